"""The time line of one failover, drawn: what the exchange did, and which orders were acknowledged meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

BEFORE_S = 0.25
AFTER_S = 0.25
"""What is drawn beyond the failure, and beyond the first order."""
BIN_S = 0.01
_WIDTH, _LEFT, _RIGHT, _TOP, _LINE, _BARS, _BELOW = 920, 60, 20, 56, 26, 110, 54
_FONT = 'font-family="sans-serif" font-size="13"'
_WORDS = {
    "failure": "failure",
    "suspect": "suspected: no answer",
    "lost": "counted as lost",
    "taking_over": "promotion decided and journaled",
    "fenced": "old writer fenced, journal applied to its end",
    "up": "open, gateways told",
    "first order": "first order acknowledged",
}


class Moment(NamedTuple):
    """What happened so many seconds after the failure."""

    at_s: float
    what: str


def draw(title: str, moments: Sequence[Moment], taken_s: Sequence[float]) -> str:
    """Return the figure as SVG: a line for each moment in order, and below orders acknowledged in each 10 ms."""
    shown = sorted(_first_of_each(moments))
    end_s = max(moment.at_s for moment in shown) + AFTER_S
    per_s = (_WIDTH - _LEFT - _RIGHT) / (BEFORE_S + end_s)

    def x(at_s: float) -> float:
        return round(_LEFT + (at_s + BEFORE_S) * per_s, 1)

    bars_top = _TOP + _LINE * len(shown) + 24
    floor = bars_top + _BARS
    bins = Counter(int((at_s + BEFORE_S) // BIN_S) for at_s in taken_s if -BEFORE_S <= at_s < end_s - BIN_S)
    highest = max(bins.values(), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {floor + _BELOW}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{floor + _BELOW}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="28" font-size="16">{escape(title[:1].upper() + title[1:])}</text>',
    ]
    for number, moment in enumerate(shown):
        at, y = x(moment.at_s), _TOP + _LINE * number + 12
        colour = {"failure": "#c0392b", "first order": "#1e8449"}.get(moment.what, "#34495e")
        label = escape(f"{moment.at_s * 1e3:,.0f} ms  {_WORDS[moment.what]}")
        is_right = at > _WIDTH / 2
        anchor, beside = ("end", at - 9) if is_right else ("start", at + 9)
        parts += [
            f'<line x1="{at}" y1="{y}" x2="{at}" y2="{floor}" stroke="{colour}" stroke-dasharray="2 3"/>',
            f'<circle cx="{at}" cy="{y}" r="4.5" fill="{colour}"/>',
            f'<text x="{beside:.1f}" y="{y + 4.5}" text-anchor="{anchor}" fill="{colour}">{label}</text>',
        ]
    for number, count in sorted(bins.items()):
        height = round(_BARS * count / highest, 1)
        left = x(number * BIN_S - BEFORE_S)
        width = max(round(BIN_S * per_s - 0.5, 1), 0.5)
        parts.append(f'<rect x="{left}" y="{floor - height}" width="{width}" height="{height}" fill="#5dade2"/>')
    parts.append(f'<line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - _RIGHT}" y2="{floor}" stroke="#000"/>')
    parts.append(f'<text x="{_LEFT - 6}" y="{bars_top + 10}" text-anchor="end">{highest}</text>')
    step_s = next(step for step in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0) if (end_s + BEFORE_S) / step <= 12)
    first = -int(BEFORE_S / step_s)
    for tick in range(first, int(end_s / step_s) + 1):
        at = x(tick * step_s)
        parts.append(f'<line x1="{at}" y1="{floor}" x2="{at}" y2="{floor + 5}" stroke="#000"/>')
        parts.append(f'<text x="{at}" y="{floor + 20}" text-anchor="middle">{tick * step_s * 1e3:,.0f}</text>')
    caption = f"ms from the failure; bars: orders acknowledged in each {BIN_S * 1e3:.0f} ms, as the client saw it"
    parts.append(f'<text x="{_LEFT}" y="{floor + 42}" fill="#555">{caption}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _first_of_each(moments: Sequence[Moment]) -> list[Moment]:
    """Return the first moment of each kind that is drawn."""
    first: dict[str, Moment] = {}
    for moment in sorted(moments):
        if moment.what in _WORDS:
            first.setdefault(moment.what, moment)
    return list(first.values())
