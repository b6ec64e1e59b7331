"""How much a gateway may have under way to a shard, after Breakwater (OSDI 2020): less when the shard's queue is long.

Breakwater adds a thousandth and takes off a fiftieth at a time, every few microseconds. Here a reply comes every few
milliseconds, so both are a tenth.
"""

from __future__ import annotations

INCREASE = 0.1
DECREASE = 0.1
KEPT_MIN = 0.5
"""Of the credits, in one step."""
CREDITS_MAX = 100_000


class Credits:
    """Additive increase, multiplicative decrease, by the delay that each reply tells.

    `limit` is in commands, from 1 to `CREDITS_MAX`.
    """

    __slots__ = ("_credits", "_target_s")

    def __init__(self, start: int, target_s: float) -> None:
        self._target_s = target_s
        self._credits = float(min(max(start, 1), CREDITS_MAX))

    @property
    def limit(self) -> int:
        return int(self._credits)

    def on_reply(self, delay_s: float, used: int) -> None:
        """Take note of how long the work of a batch of `used` commands took, with all that was before it."""
        if delay_s > self._target_s:
            excess = (delay_s - self._target_s) / self._target_s
            self._credits = max(self._credits * max(1 - DECREASE * excess, KEPT_MIN), 1.0)
        elif used * 2 >= self._credits:
            # What is not used need not grow.
            self._credits = min(self._credits + max(self._credits * INCREASE, 1.0), CREDITS_MAX)
