"""How much a gateway may have under way to a shard, after Breakwater (OSDI 2020): less when the shard's queue is long.

Breakwater adds a thousandth and takes off a fiftieth at a time, every few microseconds. Here a reply comes every few
milliseconds, so both are a tenth.
"""

from __future__ import annotations

import math

INCREASE = 0.1
DECREASE = 0.1
KEPT_MIN = 0.5
"""Of the credits, in one step."""
CREDITS_MAX = 100_000
CAPACITY_FACTOR = 2
"""A batch is at most so much more than the shard says it could do within the target: it may be faster than it knows."""


class Credits:
    """Additive increase, multiplicative decrease, by the delay that each reply tells.

    `limit` is in commands, from 1 to `CREDITS_MAX`. What the shard says that it can do bounds it from the first reply
    on, so that the first batch of a surge is no longer than the others.
    """

    __slots__ = ("_bound", "_credits", "_target_s")

    def __init__(self, start: int, target_s: float) -> None:
        self._target_s = target_s
        self._bound = CREDITS_MAX
        self._credits = float(min(max(start, 1), CREDITS_MAX))

    @property
    def limit(self) -> int:
        return min(int(self._credits), self._bound)

    def on_reply(self, delay_s: float, used: int, capacity_per_s: float = 0.0) -> None:
        """Take note of how long the work of a batch of `used` commands took, with all that was before it.

        `capacity_per_s` is what the shard could do, 0 if it does not know: after a takeover it goes by what the one
        before it said, whose work it has to catch up with.
        """
        if capacity_per_s:
            self._bound = min(math.ceil(CAPACITY_FACTOR * capacity_per_s * self._target_s), CREDITS_MAX)
        if delay_s > self._target_s:
            excess = (delay_s - self._target_s) / self._target_s
            self._credits = max(self._credits * max(1 - DECREASE * excess, KEPT_MIN), 1.0)
        elif used * 2 >= self._credits:
            # What is not used need not grow.
            self._credits = min(self._credits + max(self._credits * INCREASE, 1.0), CREDITS_MAX)
