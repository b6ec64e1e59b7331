"""A run drawn as SVG: what was attempted and what was done in each second, and the stages of the shard below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _HEIGHT, _TOP, _BELOW = 920, 56, 20, 190, 40, 64
_FONT = 'font-family="sans-serif" font-size="12"'
_STAGES = {
    "REPLAYING": "#7b241c",
    "CANCEL_ONLY": "#c0392b",
    "POST_ONLY": "#e67e22",
    "LIMITED": "#f1c40f",
    "OPEN": "#27ae60",
    "HALTED": "#000",
}


class Second(NamedTuple):
    begin_s: float
    attempts_per_s: float
    goodput_per_s: float
    offered_per_s: float
    """First attempts alone."""


class Panel(NamedTuple):
    """One run. `marks`: what happened when, in words."""

    title: str
    seconds: Sequence[Second]
    stages: Sequence[tuple[float, str]]
    capacity_per_s: float
    marks: Sequence[tuple[float, str]] = ()


def draw(panels: Sequence[Panel]) -> str:
    """Return the panels one below the other, all on the same scales."""
    end_s = max(panel.seconds[-1].begin_s for panel in panels) + 1
    highest = max(second.attempts_per_s for panel in panels for second in panel.seconds)
    each = _TOP + _HEIGHT + _BELOW
    total = each * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{total}" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        parts += _draw_panel(panel, number * each, end_s, highest)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_panel(panel: Panel, top: float, end_s: float, highest: float) -> list[str]:
    floor = top + _TOP + _HEIGHT

    def x(at_s: float) -> float:
        return round(_LEFT + at_s / end_s * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(per_s: float) -> float:
        return round(floor - per_s / highest * _HEIGHT, 1)

    def line(values: Sequence[tuple[float, float]], colour: str) -> str:
        points = " ".join(f"{x(at_s + 0.5)},{y(per_s)}" for at_s, per_s in values)
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    capacity_y = y(panel.capacity_per_s)
    parts = [
        f'<text x="{_LEFT}" y="{top + 20}" font-size="15">{escape(panel.title)}</text>',
        f'<line x1="{_LEFT}" y1="{capacity_y}" x2="{_WIDTH - _RIGHT}" y2="{capacity_y}" stroke="#888" '
        'stroke-dasharray="6 4"/>',
        f'<text x="{_WIDTH - _RIGHT}" y="{capacity_y - 4}" text-anchor="end" fill="#666">capacity '
        f"{panel.capacity_per_s:,.0f}/s</text>",
        line([(s.begin_s, s.attempts_per_s) for s in panel.seconds], "#aab7b8"),
        line([(s.begin_s, s.goodput_per_s) for s in panel.seconds], "#2471a3"),
        f'<line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - _RIGHT}" y2="{floor}" stroke="#000"/>',
        f'<text x="{_LEFT - 6}" y="{y(highest) + 10}" text-anchor="end">{highest:,.0f}</text>',
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">0</text>',
    ]
    for at_s, words in panel.marks:
        at = x(at_s)
        parts.append(f'<line x1="{at}" y1="{top + _TOP - 8}" x2="{at}" y2="{floor}" stroke="#c0392b"/>')
        parts.append(f'<text x="{at + 4}" y="{top + _TOP}" fill="#c0392b">{escape(words)}</text>')
    ends = [at_s for at_s, _ in panel.stages[1:]] + [end_s]
    for (at_s, stage), until_s in zip(panel.stages, ends, strict=True):
        colour, width = _STAGES.get(stage, "#ccc"), max(x(until_s) - x(at_s), 1)
        parts.append(f'<rect x="{x(at_s)}" y="{floor + 4}" width="{width:.1f}" height="8" fill="{colour}"/>')
    step_s = next(step for step in (1, 2, 5, 10, 20, 60, 600) if end_s / step <= 14)
    parts += [
        f'<text x="{x(at_s)}" y="{floor + 26}" text-anchor="middle">{at_s}</text>'
        for at_s in range(0, int(end_s) + 1, step_s)
    ]
    seen = dict.fromkeys(stage for _, stage in panel.stages if stage in _STAGES)
    at = float(_LEFT)
    caption = "s; grey: attempted, blue: done within the deadline, a second; bar: the shard's stage"
    parts.append(f'<text x="{at}" y="{floor + 44}" fill="#444">{caption}</text>')
    at += 500
    for stage in seen:
        parts.append(f'<rect x="{at}" y="{floor + 35}" width="10" height="10" fill="{_STAGES[stage]}"/>')
        parts.append(f'<text x="{at + 14}" y="{floor + 44}" fill="#444">{stage}</text>')
        at += 26 + 7.2 * len(stage)
    return parts
