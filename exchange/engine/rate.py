"""How many orders the stage LIMITED lets through."""

from __future__ import annotations

from typing import Final

NS_PER_S: Final = 1_000_000_000


class OrderRate:
    """A token bucket in integers, that saves up at most a tenth of a second's worth and at least one order."""

    __slots__ = ("allowance", "orders_per_s", "time_ns")

    def __init__(self, orders_per_s: int = 0, allowance: int = 0, time_ns: int = 0) -> None:
        self.orders_per_s = orders_per_s
        self.allowance = allowance
        """What may still go through, in orders x 1e9, as reckoned at `time_ns`."""
        self.time_ns = time_ns

    def refill(self, time_ns: int) -> bool:
        """Reckon what may go through at this time; return whether one order may."""
        elapsed_ns = time_ns - self.time_ns
        self.time_ns = time_ns
        allowance_max = max(self.orders_per_s * NS_PER_S // 10, NS_PER_S)
        self.allowance = min(self.allowance + elapsed_ns * self.orders_per_s, allowance_max)
        return self.allowance >= NS_PER_S

    def spend(self) -> None:
        """Let one order through."""
        self.allowance -= NS_PER_S
