"""How fast something serves, and how much may wait for it in a given time."""

from __future__ import annotations

import math

FASTER = 10
"""How much sooner a rate is believed that is higher: nothing is served faster than it can be, but much may delay it."""
WINDOW_S = 0.1
"""Of work that is looked at as one: what a single batch took says little."""
SURE_SHARE = 0.5
"""Of the rate within one such window: chance does not make it twice what it is, so that much is believed at once."""


class ServiceRate:
    """The geometric mean of what was served by time, what is older counting half every `half_life_s` of that time.

    What was done with room left says what was wanted rather than what could be served, so it only ever raises the
    estimate.
    """

    __slots__ = ("_done", "_spent_s", "half_life_s", "per_s")

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self.per_s = 0.0
        """The estimate; 0 while there is none."""
        self._done = 0.0
        self._spent_s = 0.0

    def observe(self, done: float, spent_s: float, *, is_saturated: bool = True) -> None:
        """Take note of work that took so long. `is_saturated`: more was waiting."""
        if not is_saturated:
            if spent_s > 0 and done / spent_s > self.per_s > 0:
                self._learn(done, spent_s)
            return
        self._done += done
        self._spent_s += spent_s
        if self._done > 0 and (self._spent_s >= WINDOW_S or (self._spent_s > 0 and not self.per_s)):
            self._learn(self._done, self._spent_s)
            self.per_s = max(self.per_s, SURE_SHARE * self._done / self._spent_s)
            self._done = self._spent_s = 0.0

    def _learn(self, done: float, spent_s: float) -> None:
        seen = done / spent_s
        if not self.per_s:
            self.per_s = seen
            return
        kept = 0.5 ** (spent_s * (FASTER if seen > self.per_s else 1) / self.half_life_s)
        self.per_s = self.per_s**kept * seen ** (1 - kept)

    def reset(self) -> None:
        """Forget everything."""
        self.per_s = self._done = self._spent_s = 0.0


def capacity_of(rate_per_s: float, wait_s: float) -> int | None:
    """Return how much is served in that time; None, no bound, while the rate is not known."""
    return math.ceil(rate_per_s * wait_s) if rate_per_s > 0 else None
