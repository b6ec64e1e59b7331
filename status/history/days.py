"""Days condensed from moments: how long a component was in each state. Time that nobody measured counts as nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from status.model import ComponentStatus, Day, Incident

_MEASURED_S_MAX = 5.0
"""Between two moments that both were measured; what is longer was not looked at."""


@dataclass(slots=True)
class DayCount:
    measured_s: float = 0.0
    down_s: float = 0.0
    degraded_s: float = 0.0
    maintenance_s: float = 0.0


@dataclass(slots=True)
class Days:
    """The days of all components, filled moment by moment."""

    counts: dict[tuple[str, str], DayCount] = field(default_factory=dict)
    """By component and date."""
    changed: set[tuple[str, str]] = field(default_factory=set)
    _last: dict[str, tuple[int, ComponentStatus]] = field(default_factory=dict)

    def note(self, at_ns: int, component: str, status: ComponentStatus) -> None:
        """A component was measured; since it was last it was what it then was."""
        before = self._last.get(component)
        self._last[component] = (at_ns, status)
        if before is None or at_ns <= before[0]:
            return
        seconds = (at_ns - before[0]) / 1e9
        if seconds > _MEASURED_S_MAX:
            return
        key = (component, date_of(at_ns))
        count = self.counts.setdefault(key, DayCount())
        count.measured_s += seconds
        match before[1]:
            case ComponentStatus.MAJOR_OUTAGE:
                count.down_s += seconds
            case ComponentStatus.DEGRADED | ComponentStatus.PARTIAL_OUTAGE:
                count.degraded_s += seconds
            case ComponentStatus.MAINTENANCE:
                count.maintenance_s += seconds
        self.changed.add(key)

    def of(self, component: str, incidents: Iterable[Incident], now_ns: int, days: int = 90) -> tuple[Day, ...]:
        """Return the newest days of a component that were measured, oldest first."""
        first = date_of(now_ns - (days - 1) * 86_400_000_000_000)
        by_date: dict[str, list[str]] = {}
        for incident in incidents:
            if component in incident.components:
                for date in _dates(incident.started_ns, incident.resolved_ns or now_ns):
                    by_date.setdefault(date, []).append(incident.id)
        found = sorted(
            ((date, count) for (name, date), count in self.counts.items() if name == component),
            key=lambda pair: pair[0],
        )
        return tuple(
            Day(
                date=date,
                measured_s=round(count.measured_s, 1),
                down_s=round(count.down_s, 1),
                degraded_s=round(count.degraded_s, 1),
                maintenance_s=round(count.maintenance_s, 1),
                incidents=tuple(by_date.get(date, ())),
            )
            for date, count in found
            if date >= first
        )


def date_of(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).date().isoformat()


def _dates(from_ns: int, to_ns: int) -> Iterable[str]:
    day = datetime.fromtimestamp(from_ns / 1e9, UTC).date()
    last = datetime.fromtimestamp(to_ns / 1e9, UTC).date()
    while day <= last:
        yield day.isoformat()
        day += timedelta(days=1)
