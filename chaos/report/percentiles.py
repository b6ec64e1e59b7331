"""Latency over percentiles, both axes logarithmic: each step to the right is a request in ten times as many."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chaos.load.histograms import percentile_ms
from chaos.report import svg
from chaos.report.account import trigger_of
from chaos.report.latencies import merged
from chaos.report.reading import Run
from chaos.report.svg import Time
from chaos.report.timeline import Curve, Drawn, css_of_kind

_TICKS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
_STEPS = 80
_HEIGHT, _TOP = 240, 8


def percentile_plot(run: Run) -> Drawn | None:
    """Return the plot of a run that has histograms: each class from the trouble on, and before it."""
    begin_s = trigger_of(run)[0]
    curves: list[Curve] = []
    for number, kind in enumerate(dict.fromkeys(latency.kind for latency in run.latencies)):
        for name, is_before in (("", False), (" before the trouble", True)):
            histogram = merged(one for one in run.latencies if one.kind == kind and (one.t < begin_s) is is_before)
            count = int(histogram.get_total_count())
            if not count:
                continue
            nines = math.log10(count)
            points = []
            for step in range(_STEPS + 1):
                x = min(nines, 4.0) * step / _STEPS
                points.append((x, percentile_ms(histogram, 100 * (1 - 10**-x))))
            css = css_of_kind(kind, number) + (" half" if is_before else "")
            curves.append(Curve(f"{kind}{name}", css, points))
    return _draw(curves) if curves else None


def _draw(curves: Sequence[Curve]) -> Drawn:
    scale = svg.log_scale(value for curve in curves for _, value in curve.points)
    title = "Latency by percentile"
    described = "; ".join(f"{c.name}: up to {max(v for _, v in c.points if v is not None):,.0f} ms" for c in curves)
    axis = Time(0.0, 4.0)
    pictures = []
    for frame in svg.FRAMES:
        ticks, lines = [], []
        for percentile in _TICKS:
            at = -math.log10(1 - percentile / 100)
            name = "p0" if not percentile else f"p{percentile:g}"
            # At the borders the words lie inside.
            anchor = "start" if at == 0 else "end" if at > 3.9 else "middle"
            ticks.append(svg.text(name, axis.x(at, frame), _TOP + _HEIGHT + 17, text_anchor=anchor, class_="tick"))
            lines.append(svg.moment(at, _HEIGHT, "border"))
        lines += [svg.curve(curve.points, scale, _HEIGHT, curve.css) for curve in curves]
        pictures.append(
            svg.picture(
                frame,
                _TOP + _HEIGHT + 24,
                title,
                described,
                "percentiles",
                svg.grid(frame, scale, _TOP, _HEIGHT),
                svg.inner(frame, axis, _TOP, _HEIGHT, *lines),
                *ticks,
            )
        )
    legend = tuple((curve.name, curve.css) for curve in curves)
    return Drawn("percentiles", title, "ms, both axes logarithmic", legend, tuple(pictures))
