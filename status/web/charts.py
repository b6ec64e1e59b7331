"""The geometry of the drawings on the page: uptime bars and response times, as SVG paths in their own coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from status.model import Day, Latency
from status.web.history import last_dates
from status.web.times import SECOND, day_words, duration

DAY_WIDTH = 8
BAR_WIDTH = 6
TROUBLE_FROM_S = 1.0
"""Less is not seen in a day of 86,400 s, and is told in numbers only."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A day on which something happened: it is a link, and taller the worse it was, so that colour is not needed."""

    date: str
    x: int
    kind: str
    """`down`, `degraded`, `maintenance` or `incident` (told of, without time lost)."""
    words: str

    @property
    def y(self) -> int:
        return {"down": 0, "degraded": 3}.get(self.kind, 6)


@dataclass(frozen=True, slots=True)
class Uptimes:
    """90 days, oldest first: those without trouble and those without data are a path each, the others are `bars`."""

    width: int
    good: str
    absent: str
    bars: tuple[Bar, ...]


def day_kind(day: Day) -> str:
    if day.down_s >= TROUBLE_FROM_S:
        return "down"
    if day.degraded_s >= TROUBLE_FROM_S:
        return "degraded"
    if day.maintenance_s >= TROUBLE_FROM_S:
        return "maintenance"
    return "incident" if day.incidents else "good"


def day_facts(day: Day) -> str:
    """`down 12 min, degraded 3 s, 1 incident`."""
    facts = [
        f"{word} {duration(seconds)}"
        for word, seconds in (("down", day.down_s), ("degraded", day.degraded_s), ("maintenance", day.maintenance_s))
        if seconds >= TROUBLE_FROM_S
    ]
    if day.incidents:
        facts.append(f"{len(day.incidents)} incident{'s' if len(day.incidents) > 1 else ''}")
    return ", ".join(facts) or "no trouble"


def uptimes(days: Sequence[Day], now_ns: int) -> Uptimes:
    by_date = {day.date: day for day in days}
    good: list[str] = []
    absent: list[str] = []
    bars: list[Bar] = []
    dates = list(last_dates(now_ns))
    for index, date in enumerate(dates):
        x = index * DAY_WIDTH
        day = by_date.get(date)
        if day is None or not day.measured_s:
            absent.append(f"M{x} 14h{BAR_WIDTH}v10h-{BAR_WIDTH}z")
        elif (kind := day_kind(day)) == "good":
            good.append(f"M{x} 8h{BAR_WIDTH}v24h-{BAR_WIDTH}z")
        else:
            bars.append(Bar(date=date, x=x, kind=kind, words=f"{day_words(date)}: {day_facts(day)}"))
    return Uptimes(width=len(dates) * DAY_WIDTH, good="".join(good), absent="".join(absent), bars=tuple(bars))


CHART_WIDTH = 720
CHART_HEIGHT = 160
GAP_STEPS = 2.5
"""A line breaks where so many steps are missing."""


@dataclass(frozen=True, slots=True)
class LatencyChart:
    p50: str
    p99: str
    top_ms: float
    """The value at the upper edge; the lower edge is 0."""
    first_ns: int
    last_ns: int
    worst_p99_ms: float


def latency_chart(points: Sequence[Latency]) -> LatencyChart | None:
    """None where there is too little for a line."""
    if len(points) < 2:
        return None
    first_ns, last_ns = points[0].at_ns, points[-1].at_ns
    span_ns = max(last_ns - first_ns, SECOND)
    worst = max(point.p99_ms for point in points)
    top = _round_up(worst)
    step_ns = min(b.at_ns - a.at_ns for a, b in pairwise(points))

    def path(values: list[float]) -> str:
        parts: list[str] = []
        before_ns = 0
        for point, value in zip(points, values, strict=True):
            pen = "L" if before_ns and point.at_ns - before_ns <= GAP_STEPS * step_ns else "M"
            x = (point.at_ns - first_ns) / span_ns * CHART_WIDTH
            y = CHART_HEIGHT * (1 - min(value / top, 1))
            parts.append(f"{pen}{x:.0f} {y:.1f}")
            before_ns = point.at_ns
        return "".join(parts)

    return LatencyChart(
        p50=path([p.p50_ms for p in points]),
        p99=path([p.p99_ms for p in points]),
        top_ms=top,
        first_ns=first_ns,
        last_ns=last_ns,
        worst_p99_ms=worst,
    )


def _round_up(value: float) -> float:
    """To a round number just above, at least 1 ms."""
    size = 1.0
    while True:
        for step in (1, 1.5, 2, 3, 5, 7.5):
            if value <= step * size:
                return step * size
        size *= 10
