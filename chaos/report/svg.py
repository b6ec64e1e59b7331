"""Curves and bands over time as SVG; colours and dashes are classes of `chart.css`, so that it can be light or dark.

What has a place in time lies in an inner picture whose x is in seconds: a script zooms by changing its view box, and
without one it is drawn all the same. Text lies outside of it, because it must not be stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float | None]]
CHARACTER_PX = 6.6
"""Of the text in charts, on average."""
POINTS_MAX = 1_200


@dataclass(frozen=True, slots=True)
class Frame:
    """The width of a chart, and the margins left and right of what is drawn, in px."""

    name: str
    width: int
    left: int
    right: int

    @property
    def inner(self) -> int:
        return self.width - self.left - self.right


WIDE, NARROW = Frame("wide", 1040, 68, 16), Frame("narrow", 360, 46, 8)
FRAMES = (WIDE, NARROW)


@dataclass(frozen=True, slots=True)
class Time:
    """What a time axis shows, in s."""

    begin_s: float
    end_s: float

    def x(self, at_s: float, frame: Frame) -> float:
        return round(frame.left + (at_s - self.begin_s) / (self.end_s - self.begin_s) * frame.inner, 1)


@dataclass(frozen=True, slots=True)
class Scale:
    """The y axis of a chart: linear from 0, or logarithmic."""

    low: float
    high: float
    is_log: bool = False

    def y(self, value: float, height: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(height * (1 - share), 2)

    def ticks(self) -> list[float]:
        if not self.is_log:
            step = _step(self.high, 3)
            return [number * step for number in range(int(self.high / step + 1e-9) + 1)]
        return [10.0**power for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]


def linear_scale(values: Iterable[float | None]) -> Scale:
    """Return a scale from 0 to a little above the highest value."""
    highest = max((value for value in values if value is not None), default=0.0) or 1.0
    return Scale(0.0, highest * 1.08)


def log_scale(values: Iterable[float | None], least: float = 1.0) -> Scale:
    """Return a scale of whole powers of ten around the values; those below `least` lie on the floor."""
    known = [value for value in values if value is not None and value > 0] or [least]
    low = 10.0 ** math.floor(math.log10(max(min(known), least)))
    high = 10.0 ** math.ceil(math.log10(max(*known, low * 1.001)))
    return Scale(low, max(high, low * 10), is_log=True)


def _step(span: float, wanted: int) -> float:
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def time_ticks(time: Time, frame: Frame) -> list[float]:
    span = time.end_s - time.begin_s
    most = frame.inner / 64
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400)
    step = next((step for step in steps if span / step <= most), 86_400)
    first = math.ceil(time.begin_s / step)
    return [float(number * step) for number in range(first, math.floor(time.end_s / step) + 1)]


def element(name: str, content: str = "", **attributes: object) -> str:
    """Return an element; `content` is markup already. `class_` and `data_t` stand for `class` and `data-t`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(words: str, x: float, y: float, **attributes: object) -> str:
    return element("text", escape(words), x=x, y=y, **attributes)


def picture(frame: Frame, height: float, title: str, description: str, key: str, *parts: str) -> str:
    """Return a whole SVG. `key`: names it on the page."""
    title_id, description_id = f"{key}-{frame.name}-title", f"{key}-{frame.name}-desc"
    return element(
        "svg",
        element("title", escape(title), id=title_id)
        + element("desc", escape(description), id=description_id)
        + "".join(parts),
        class_=f"chart {frame.name}",
        viewBox=f"0 0 {frame.width} {height:g}",
        role="img",
        aria_labelledby=f"{title_id} {description_id}",
        data_left=frame.left,
        data_inner=frame.inner,
    )


def inner(frame: Frame, time: Time, top: float, height: float, *parts: str) -> str:
    """Return the picture in which x is in seconds and y in px from `top`."""
    return element(
        "svg",
        "".join(parts) or element("g"),
        class_="plot",
        x=frame.left,
        y=top,
        width=frame.inner,
        height=height,
        viewBox=f"{time.begin_s:g} 0 {time.end_s - time.begin_s:g} {height:g}",
        preserveAspectRatio="none",
    )


def curve(points: Points, scale: Scale, height: float, css: str, *, is_area: bool = False) -> str:
    """Return a line with gaps where there is no value; with `is_area`, what lies below it as well."""
    parts = []
    for run in _runs(_thinned(points)):
        placed = [f"{at_s:g},{scale.y(value, height):g}" for at_s, value in run]
        if is_area:
            corners = [f"{run[0][0]:g},{height:g}", *placed, f"{run[-1][0]:g},{height:g}"]
            parts.append(element("polygon", points=" ".join(corners), class_=f"area {css}"))
        if len(placed) == 1:
            # A single second between gaps is seen as a short line.
            (at_s, value) = run[0]
            placed = [f"{at_s + by_s:g},{scale.y(value, height):g}" for by_s in (-0.3, 0.3)]
        parts.append(element("polyline", points=" ".join(placed), class_=f"line {css}"))
    return "".join(parts)


def _runs(points: Points) -> Iterable[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for at_s, value in points:
        if value is not None:
            run.append((at_s, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _thinned(points: Points) -> Points:
    """Return the lowest and the highest point of each stretch of a curve that has more of them than can be seen."""
    if len(points) <= POINTS_MAX:
        return points
    each = math.ceil(2 * len(points) / POINTS_MAX)
    kept: list[tuple[float, float | None]] = []
    for begin in range(0, len(points), each):
        stretch = points[begin : begin + each]
        known = [(at_s, value) for at_s, value in stretch if value is not None]
        if not known:
            kept.append(stretch[0])
            continue
        kept += sorted({min(known, key=lambda point: point[1]), max(known, key=lambda point: point[1])})
    return kept


def grid(frame: Frame, scale: Scale, top: float, height: float) -> str:
    """Return lines and figures of the y axis."""
    parts = []
    for value in scale.ticks():
        y = round(top + scale.y(value, height), 1)
        parts.append(element("line", x1=frame.left, x2=frame.left + frame.inner, y1=y, y2=y, class_="grid"))
        parts.append(text(f"{value:,.10g}", frame.left - 7, y + 4, text_anchor="end", class_="tick"))
    return "".join(parts)


def time_axis(frame: Frame, time: Time, y: float) -> str:
    """Return the figures of the x axis; the script writes them again when it zooms."""
    labels = [
        text(f"{at_s:g} s", time.x(at_s, frame), y, text_anchor="middle", class_="tick")
        for at_s in time_ticks(time, frame)
    ]
    return element("g", "".join(labels) or element("g"), class_="times", data_y=y)


def band(begin_s: float, end_s: float, top: float, height: float, css: str, title: str = "") -> str:
    """Return a rectangle in time."""
    return element(
        "rect",
        element("title", escape(title)) if title else "",
        x=f"{begin_s:g}",
        y=f"{top:g}",
        width=f"{max(end_s - begin_s, 0):g}",
        height=f"{height:g}",
        class_=css,
    )


def moment(at_s: float, height: float, css: str) -> str:
    """Return a vertical line in time."""
    return element("line", x1=f"{at_s:g}", x2=f"{at_s:g}", y1=0, y2=f"{height:g}", class_=css)


def label(words: str, begin_s: float, end_s: float, y: float, frame: Frame, time: Time, css: str = "name") -> str:
    """Return what stands in a band, cut to its width."""
    x = time.x(max(begin_s, time.begin_s), frame)
    room = int((time.x(min(end_s, time.end_s), frame) - x - 8) / CHARACTER_PX)
    shown = words if len(words) <= room else words[: room - 1] + "…" if room >= 4 else ""
    return text(shown, x + 5, y, class_=css, data_begin=f"{begin_s:g}", data_end=f"{end_s:g}", data_words=words)
