"""What a host knows of its own load: how long work waits, how fast it is done, and how much could be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exchange.overload.classes import WorkClass
from exchange.overload.delays import Delays
from exchange.overload.service_rate import ServiceRate

INTERVAL_S = 1.0


class Load:
    """Counts of one host. Work is told when it comes, and again when it is done."""

    def __init__(self, half_life_s: float, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._rate = ServiceRate(half_life_s)
        self._delays = Delays(INTERVAL_S)
        self._since_s = monotonic_s()
        self._done_before = 0
        self._busy_before_s = 0.0
        self._orders_per_s = 0.0
        self._utilisation = 0.0
        self.admitted = 0
        self.done = 0
        self.late = 0
        """Commands that were past their deadline before the journal."""
        self.shed = 0
        self.busy_s = 0.0
        """Time that went into commands, rather than into waiting for the journal or for work."""

    @property
    def capacity_per_s(self) -> float:
        """How many commands it could do if it did nothing else; 0 while nobody knows."""
        return self._rate.per_s

    def set_half_life(self, half_life_s: float) -> None:
        self._rate.half_life_s = half_life_s

    def note_work(self, commands: int, busy_s: float) -> None:
        """Take note of a record's commands, and how long they took without the journal."""
        self.done += commands
        self.busy_s += busy_s
        if commands:
            self._rate.observe(commands, busy_s)

    def note_delay(self, work_class: WorkClass, delay_s: float) -> None:
        """Take note of how long something was here until it was answered."""
        self._delays.note(work_class, delay_s, self._monotonic_s())

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for vitals."""
        self._turn()
        return {
            "delay_ms": self._delays.p99_ms(self._monotonic_s()),
            "admitted": self.admitted,
            "done": self.done,
            "orders_per_s": round(self._orders_per_s, 1),
            "capacity_per_s": round(self.capacity_per_s, 1),
            "utilisation": round(self._utilisation, 3),
            "late": self.late,
            "shed": self.shed,
        }

    def _turn(self) -> None:
        """Make the rates of the last interval, once it is over."""
        now_s = self._monotonic_s()
        elapsed_s = now_s - self._since_s
        if elapsed_s < INTERVAL_S:
            return
        self._orders_per_s = (self.done - self._done_before) / elapsed_s
        self._utilisation = min((self.busy_s - self._busy_before_s) / elapsed_s, 1.0)
        self._done_before, self._busy_before_s, self._since_s = self.done, self.busy_s, now_s
