"""How fast something serves, and how much may wait for it in a given time."""

from __future__ import annotations

import math


class ServiceRate:
    """Work done by time spent on it, what is older counting half every `half_life_s` of that time.

    What was done with room left says what was wanted rather than what could be served, so it only ever raises the
    estimate.
    """

    __slots__ = ("_done", "_spent_s", "half_life_s")

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self._done = 0.0
        self._spent_s = 0.0

    @property
    def per_s(self) -> float:
        """The estimate; 0 while there is none."""
        return self._done / self._spent_s if self._spent_s > 0 else 0.0

    def observe(self, done: float, spent_s: float, *, is_saturated: bool = True) -> None:
        """Take note of work that took so long. `is_saturated`: more was waiting."""
        if spent_s <= 0 or (not is_saturated and done / spent_s <= self.per_s):
            return
        kept = 0.5 ** (spent_s / self.half_life_s)
        self._done = self._done * kept + done
        self._spent_s = self._spent_s * kept + spent_s


def capacity_of(rate_per_s: float, wait_s: float) -> int | None:
    """Return how much is served in that time; None, no bound, while the rate is not known."""
    return math.ceil(rate_per_s * wait_s) if rate_per_s > 0 else None
