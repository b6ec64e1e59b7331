"""What a shard must do at a given time: orders that expire, switches that fire, commands parked too long."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from exchange.engine.ladder import Ladder


class TimerKind(IntEnum):
    EXPIRY = 0
    SWITCH = 1
    PARKED = 2


class Timer(NamedTuple):
    """`order_id` is 0 for a switch, and the sequence of a parked command. Timers of one time fire in this order."""

    kind: int
    account: int
    order_id: int


class Timers:
    """Timers by time.

    A timer that is called off leaves at once, so that orders which come and go long before they expire cost no memory,
    and nothing ever has to stop and clean up.
    """

    __slots__ = ("_at", "_times")

    def __init__(self) -> None:
        self._times = Ladder()  # of minus the time, so that the soonest is the highest
        self._at: dict[int, dict[Timer, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._at.values()))

    def __contains__(self, item: tuple[int, Timer]) -> bool:
        time_ns, timer = item
        return timer in self._at.get(time_ns, ())

    def add(self, time_ns: int, timer: Timer) -> None:
        timers = self._at.get(time_ns)
        if timers is None:
            timers = self._at[time_ns] = {}
            self._times.add(-time_ns)
        timers[timer] = None

    def remove(self, time_ns: int, timer: Timer) -> None:
        """Call a timer off; KeyError if it is not set."""
        timers = self._at[time_ns]
        del timers[timer]
        if not timers:
            del self._at[time_ns]
            self._times.remove(-time_ns)

    def next_ns(self) -> int | None:
        """When the first timer is due, or None."""
        return -self._times.highest() if self._times else None

    def due(self, time_ns: int) -> list[Timer]:
        """Return the timers of the soonest time, if that is not after `time_ns`; they stay set."""
        next_ns = self.next_ns()
        return sorted(self._at[next_ns]) if next_ns is not None and next_ns <= time_ns else []
