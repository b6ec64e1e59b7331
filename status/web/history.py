"""Uptime and response times of a component, from its days.

Uptime is the share of the measured time in which the component was not in a major outage; a partial outage and degraded
performance count as up, and are told beside it. Planned maintenance counts as neither: it is taken out of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from status.model import Board, Component, Day
from status.web.times import date, iso, moment

PERIODS = {"24h": 1, "7d": 7, "30d": 30, "90d": 90}
"""Days each. `24h` is the present UTC day and, by its share, the day before."""

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Uptime:
    measured_s: float
    down_s: float
    degraded_s: float
    maintenance_s: float

    @property
    def percent(self) -> float | None:
        """None where nothing was measured, or all of it was maintenance."""
        counted = self.measured_s - self.maintenance_s
        return max(0.0, 100 * (1 - self.down_s / counted)) if counted > 0 else None


def as_of_ns(board: Board) -> int:
    """The end of what a board tells: it was changed last at `updated_ns`, and was still true at its last look."""
    return max(board.updated_ns, board.checked_ns)


def uptime(days: Iterable[Day], now_ns: int, period: str) -> Uptime:
    """Over one of `PERIODS`, up to now."""
    now = moment(now_ns)
    dates = {(now - timedelta(days=back)).strftime("%Y-%m-%d") for back in range(PERIODS[period])}
    weights = dict.fromkeys(dates, 1.0)
    if period == "24h":
        passed = now - now.replace(hour=0, minute=0, second=0, microsecond=0)
        weights[(now - timedelta(days=1)).strftime("%Y-%m-%d")] = 1 - passed.total_seconds() / DAY_S
    chosen = [(weights[day.date], day) for day in days if day.date in weights]
    return Uptime(
        measured_s=sum(weight * day.measured_s for weight, day in chosen),
        down_s=sum(weight * day.down_s for weight, day in chosen),
        degraded_s=sum(weight * day.degraded_s for weight, day in chosen),
        maintenance_s=sum(weight * day.maintenance_s for weight, day in chosen),
    )


def percent_words(percent: float | None, digits: int = 2) -> str:
    """Cut, never rounded up: what was not always up is never called 100 %."""
    if percent is None:
        return "no data"
    scale = 10**digits
    cut = int(percent * scale + 1e-7) / scale
    return f"{cut:.{digits}f}".rstrip("0").rstrip(".") + " %" if cut == 100 else f"{cut:.{digits}f} %"


def last_dates(now_ns: int, count: int = 90) -> Iterator[str]:
    """Oldest first, today last."""
    today = moment(now_ns)
    return ((today - timedelta(days=back)).strftime("%Y-%m-%d") for back in range(count - 1, -1, -1))


def history(board: Board, component: Component) -> dict[str, Any]:
    """The document `/api/components/ID/history.json`."""
    days = board.days.get(component.id, ())
    return {
        "id": component.id,
        "name": component.name,
        "updated_at": iso(board.updated_ns),
        "today": date(as_of_ns(board)),
        "uptime_percent": {period: _rounded(uptime(days, as_of_ns(board), period).percent) for period in PERIODS},
        "days": [
            {
                "date": day.date,
                "uptime_percent": _rounded(
                    Uptime(day.measured_s, day.down_s, day.degraded_s, day.maintenance_s).percent
                ),
                "measured_s": day.measured_s,
                "down_s": day.down_s,
                "degraded_s": day.degraded_s,
                "maintenance_s": day.maintenance_s,
                "incidents": list(day.incidents),
            }
            for day in days
        ],
        "response_times": [
            {"at": iso(point.at_ns), "p50_ms": point.p50_ms, "p99_ms": point.p99_ms}
            for point in board.latency.get(component.id, ())
        ],
    }


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else int(percent * 10_000) / 10_000
