"""The time line of a run: one chart below the other, all on one axis, with phases and faults marked on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chaos.report import svg
from chaos.report.account import DOWN, Span, faults_of, phases_of, series, stages_of
from chaos.report.reading import Run
from chaos.report.svg import Frame, Points, Scale, Time
from chaos.run.record import Sample

OPENNESS = {
    DOWN: 0.0,
    "REPLAYING": 0.15,
    "HALTED": 0.15,
    "CANCEL_ONLY": 0.4,
    "POST_ONLY": 0.6,
    "LIMITED": 0.8,
    "OPEN": 1.0,
}
"""How much of a band a stage fills: the more a shard takes, the higher."""
_ROW, _GAP, _AXIS = 22, 4, 22


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart. `css`: its colour and dash."""

    name: str
    css: str
    points: Points
    is_area: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves on one y axis."""

    key: str
    title: str
    unit: str
    description: str
    curves: tuple[Curve, ...]
    height: int = 150
    is_log: bool = False

    def scale(self) -> Scale:
        values = [value for curve in self.curves for _, value in curve.points]
        return svg.log_scale(values) if self.is_log else svg.linear_scale(values)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart at each width, for the page to show the one that fits."""

    key: str
    title: str
    unit: str
    legend: tuple[tuple[str, str], ...]
    pictures: tuple[str, ...]


def charts_of(run: Run) -> list[Chart]:
    """Return the charts that a run has figures for."""
    if not run.samples:
        return []
    charts = [_requests(run.samples)]
    kinds = list(dict.fromkeys(kind for sample in run.samples for kind in sample.delays))
    if kinds:
        charts.append(_delays(run.samples, kinds))
    charts.append(
        Chart(
            "memory",
            "Memory of the exchange",
            "MB",
            f"At most {max(s.memory_mb for s in run.samples):,.0f} MB.",
            (Curve("memory", "memory", series(run.samples, lambda s: s.memory_mb or None), is_area=True),),
            height=70,
        )
    )
    return charts


def _requests(samples: Sequence[Sample]) -> Chart:
    def unknown(sample: Sample) -> float:
        return sample.unknown_per_s + sample.not_sent_per_s

    curves: list[tuple[str, str, Callable[[Sample], float]]] = [
        ("goodput", "goodput", lambda s: s.goodput_per_s),
        ("attempts", "attempts", lambda s: s.attempts_per_s),
        ("offered", "offered", lambda s: s.offered_per_s),
        ("refused or shed", "refused", lambda s: s.refused_per_s),
        ("unknown or not sent", "unknown", unknown),
    ]
    worst = min(samples, key=lambda s: s.goodput_per_s / s.offered_per_s if s.offered_per_s else 1.0)
    return Chart(
        "requests",
        "Requests",
        "per second",
        f"Least goodput at {worst.t} s: {worst.goodput_per_s:,.0f} of {worst.offered_per_s:,.0f} a second. "
        f"Most attempts: {max(s.attempts_per_s for s in samples):,.0f} a second.",
        tuple(Curve(name, css, series(samples, value), is_area=css == "goodput") for name, css, value in curves),
        height=220,
    )


def _delays(samples: Sequence[Sample], kinds: Sequence[str]) -> Chart:
    def value(kind: str, field: str) -> Callable[[Sample], float | None]:
        def of(sample: Sample) -> float | None:
            delay = sample.delays.get(kind)
            return getattr(delay, field) if delay is not None and delay.count else None

        return of

    curves = []
    for number, kind in enumerate(kinds):
        css = css_of_kind(kind, number)
        curves.append(Curve(f"{kind} p99", css, series(samples, value(kind, "p99_ms"))))
        curves.append(Curve(f"{kind} p50", f"{css} half", series(samples, value(kind, "p50_ms"))))
    highest = max(delay.p99_ms for s in samples for delay in s.delays.values())
    return Chart(
        "delay",
        "Delay by class, from the intended time",
        "ms, logarithmic",
        f"Classes {', '.join(kinds)}; the highest p99 of a second is {highest:,.0f} ms.",
        tuple(curves),
        height=150,
        is_log=True,
    )


def css_of_kind(kind: str, number: int) -> str:
    """Return the class of a curve: one for each class of request, the same on the whole page."""
    known = ("place", "cancel", "amend", "query")
    return f"kind-{known.index(kind) if kind in known else number % len(known)}"


def draw_chart(chart: Chart, time: Time, background: Sequence[Callable[[float], str]] = ()) -> Drawn:
    """Return a chart at each width. `background`: draws, for a height, what lies behind the curves."""
    scale, top = chart.scale(), 8
    pictures = []
    for frame in svg.FRAMES:
        behind = [draw(chart.height) for draw in background]
        lines = [svg.curve(c.points, scale, chart.height, c.css, is_area=c.is_area) for c in chart.curves]
        pictures.append(
            svg.picture(
                frame,
                top + chart.height + _AXIS,
                chart.title,
                chart.description,
                chart.key,
                svg.grid(frame, scale, top, chart.height),
                svg.inner(frame, time, top, chart.height, *behind, *lines),
                svg.time_axis(frame, time, top + chart.height + 16),
            )
        )
    legend = tuple((curve.name, curve.css) for curve in chart.curves)
    return Drawn(chart.key, chart.title, chart.unit, legend, tuple(pictures))


def timeline_of(run: Run) -> list[Drawn]:
    """Return everything that is drawn over the time of a run, from top to bottom."""
    time = Time(0.0, run.end_s)
    phases, faults, stages = phases_of(run), faults_of(run), stages_of(run)
    background = [marks_of(phases, faults)]
    drawn = [_doings(time, phases, faults)] if phases or faults else []
    charts = [draw_chart(chart, time, background) for chart in charts_of(run)]
    bands = [_bands(time, stages, background[0])] if stages else []
    return [*drawn, *charts[:1], *bands, *charts[1:]]


def marks_of(phases: Sequence[Span], faults: Sequence[Span]) -> Callable[[float], str]:
    """Return what draws triggers and faults behind a chart."""

    def draw(height: float) -> str:
        shades = [svg.band(p.begin_s, p.end_s, 0, height, "trigger") for p in phases if p.is_trigger]
        borders = [svg.moment(phase.begin_s, height, "border") for phase in phases[1:]]
        lines = [svg.moment(fault.begin_s, height, "fault-line") for fault in faults]
        return "".join([*shades, *borders, *lines])

    return draw


def _doings(time: Time, phases: Sequence[Span], faults: Sequence[Span]) -> Drawn:
    rows = _packed(faults)
    height = (1 + len(rows)) * (_ROW + _GAP) + 2
    described = "; ".join(
        [f"phase {p.name} from {p.begin_s:.0f} to {p.end_s:.0f} s" for p in phases]
        + [f"fault {f.name} at {f.begin_s:.1f} s until {f.end_s:.1f} s" for f in faults]
    )
    pictures = []
    for frame in svg.FRAMES:
        bands, labels = [], []
        for phase in phases:
            css = "phase trigger-phase" if phase.is_trigger else "phase"
            bands.append(svg.band(phase.begin_s, phase.end_s, 0, _ROW, css, _span_title(phase)))
            labels.append(svg.label(phase.name, phase.begin_s, phase.end_s, 15, frame, time))
        if phases:
            labels.append(svg.text("phase", frame.left - 7, 15, text_anchor="end", class_="tick"))
        for number, row in enumerate(rows, 1):
            top = number * (_ROW + _GAP)
            labels.append(svg.text("fault", frame.left - 7, top + 15, text_anchor="end", class_="tick"))
            for position, fault in enumerate(row):
                room_s = row[position + 1].begin_s if position + 1 < len(row) else time.end_s
                bands.append(svg.band(fault.begin_s, fault.end_s, top, _ROW, "fault", _span_title(fault)))
                bands.append(
                    svg.element(
                        "line",
                        x1=f"{fault.begin_s:g}",
                        x2=f"{fault.begin_s:g}",
                        y1=top,
                        y2=top + _ROW,
                        class_="fault-line",
                    )
                )
                labels.append(svg.label(f"⚡ {fault.name}", fault.begin_s, room_s, top + 15, frame, time))
        pictures.append(
            svg.picture(
                frame,
                height,
                "Phases and faults",
                described,
                "doings",
                svg.inner(frame, time, 0, height, *bands),
                *labels,
            )
        )
    return Drawn("doings", "Phases and faults", "", (), tuple(pictures))


def _packed(spans: Sequence[Span]) -> list[list[Span]]:
    """Return rows in which no two overlap."""
    rows: list[list[Span]] = []
    for span in spans:
        row = next((row for row in rows if row[-1].end_s <= span.begin_s), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def _bands(time: Time, stages: Mapping[str, Sequence[Span]], background: Callable[[float], str]) -> Drawn:
    height = len(stages) * (_ROW + _GAP)
    described = ". ".join(
        f"{shard}: " + ", ".join(f"{s.name} from {s.begin_s:.1f} s" for s in spans) for shard, spans in stages.items()
    )
    pictures = [_draw_bands(frame, time, stages, height, described, background) for frame in svg.FRAMES]
    seen = dict.fromkeys(span.name for spans in stages.values() for span in spans)
    legend = tuple((name, f"stage {css_of_stage(name)}") for name in seen)
    return Drawn("stages", "Stage of each shard", "the higher, the more it takes", legend, tuple(pictures))


def _draw_bands(
    frame: Frame,
    time: Time,
    stages: Mapping[str, Sequence[Span]],
    height: float,
    described: str,
    background: Callable[[float], str],
) -> str:
    bands, labels = [background(height)], []
    for number, (shard, spans) in enumerate(stages.items()):
        top = number * (_ROW + _GAP)
        shown = shard if frame is svg.WIDE else shard.replace("shard-", "sh-")
        labels.append(svg.text(shown, frame.left - 7, top + 16, text_anchor="end", class_="tick"))
        for span in spans:
            filled = max(OPENNESS.get(span.name, 0.15) * _ROW, 3)
            css = f"stage {css_of_stage(span.name)}"
            title = _span_title(span)
            bands.append(svg.band(span.begin_s, span.end_s, top, _ROW, "stage-room", title))
            bands.append(svg.band(span.begin_s, span.end_s, top + _ROW - filled, filled, css, title))
            labels.append(svg.label(span.name, span.begin_s, span.end_s, top + 15, frame, time, "name stage-name"))
    return svg.picture(
        frame,
        height + _AXIS,
        "Stage of each shard",
        described,
        "stages",
        svg.inner(frame, time, 0, height, *bands),
        *labels,
        svg.time_axis(frame, time, height + 14),
    )


def css_of_stage(name: str) -> str:
    return f"stage-{name.lower().replace('_', '-')}" if name in OPENNESS else "stage-unknown"


def _span_title(span: Span) -> str:
    detail = f": {span.detail}" if span.detail else ""
    return f"{span.name}, {span.begin_s:.1f} to {span.end_s:.1f} s{detail}"
