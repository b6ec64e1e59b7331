"""How much was refused, by class and reason."""

from __future__ import annotations

from exchange.overload.classes import ShedReason, WorkClass


class ShedCounts:
    """Commands, since the process began."""

    def __init__(self) -> None:
        self._counts: dict[WorkClass, dict[ShedReason, int]] = {}

    def count(self, work_class: WorkClass, reason: ShedReason, commands: int) -> None:
        of_class = self._counts.setdefault(work_class, {})
        of_class[reason] = of_class.get(reason, 0) + commands

    def of(self, work_class: WorkClass, reason: ShedReason | None = None) -> int:
        of_class = self._counts.get(work_class, {})
        return sum(of_class.values()) if reason is None else of_class.get(reason, 0)

    def plain(self) -> dict[int, dict[str, int]]:
        """Return them as plain values, for vitals."""
        return {int(c): {str(reason): n for reason, n in counts.items()} for c, counts in self._counts.items()}
