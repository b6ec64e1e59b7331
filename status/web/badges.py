"""Badges: an SVG of our own and the JSON that shields.io reads; of the whole, of a component, and of its uptime."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape, quoteattr

from status.model import Board, Component, ComponentStatus, Impact
from status.web.history import as_of_ns, percent_words, uptime
from status.web.statuspage import indicator

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "#1a7f4b", "#8a6100", "#b4530a", "#c0262d", "#2563ab", "#5c6670"
"""Each has a contrast of at least 4.5 with white."""

WORDS = {
    ComponentStatus.OPERATIONAL: ("operational", GREEN),
    ComponentStatus.DEGRADED: ("degraded", YELLOW),
    ComponentStatus.PARTIAL_OUTAGE: ("partial outage", ORANGE),
    ComponentStatus.MAJOR_OUTAGE: ("outage", RED),
    ComponentStatus.MAINTENANCE: ("maintenance", BLUE),
}
_OVERALL = {
    Impact.NONE: ("operational", GREEN),
    Impact.MINOR: ("minor disruption", YELLOW),
    Impact.MAJOR: ("partial outage", ORANGE),
    Impact.CRITICAL: ("major outage", RED),
    Impact.MAINTENANCE: ("maintenance", BLUE),
}
UNKNOWN = ("unknown", GREY)


class Badge:
    """A label and what is said of it."""

    def __init__(self, label: str, message: str, color: str) -> None:
        self.label = label
        self.message = message
        self.color = color

    def shields(self) -> dict[str, Any]:
        """As https://shields.io/badges/endpoint-badge reads it."""
        return {
            "schemaVersion": 1,
            "label": self.label,
            "message": self.message,
            "color": self.color,
            "cacheSeconds": 60,
            "isError": False,
        }

    def svg(self) -> str:
        left, right = _width(self.label), _width(self.message)
        title = f"{self.label}: {self.message}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
            f"aria-label={quoteattr(title)}><title>{escape(title)}</title>"
            f'<clipPath id="r"><rect width="{left + right}" height="20" rx="4"/></clipPath><g clip-path="url(#r)">'
            f'<rect width="{left}" height="20" fill="#3b434b"/>'
            f'<rect x="{left}" width="{right}" height="20" fill="{self.color}"/></g>'
            '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
            f'<text x="{left / 2:g}" y="14" textLength="{left - 12}">{escape(self.label)}</text>'
            f'<text x="{left + right / 2:g}" y="14" textLength="{right - 12}">{escape(self.message)}</text></g></svg>'
        )


def overall(board: Board, stale: bool) -> Badge:
    if stale or not board.checked_ns:
        return Badge(board.page_name, *UNKNOWN)
    return Badge(board.page_name, *_OVERALL[indicator(board)])


def of_component(component: Component, board: Board, stale: bool) -> Badge:
    if stale or not board.checked_ns:
        return Badge(component.name, *UNKNOWN)
    return Badge(component.name, *WORDS[component.status])


def of_uptime(component: Component, board: Board, period: str) -> Badge:
    percent = uptime(board.days.get(component.id, ()), as_of_ns(board), period).percent
    steps = ((99.9, GREEN), (99.0, YELLOW), (95.0, ORANGE))
    color = GREY if percent is None else next((color for least, color in steps if percent >= least), RED)
    return Badge(f"{component.name} {period}", percent_words(percent), color)


_NARROW = frozenset("iljtfr I.,:;'|!()[]")


def _width(text: str) -> int:
    """Of a text of 11 px Verdana, with 6 px at each side: near enough, since `textLength` sets it exactly."""
    return 12 + round(sum(4.2 if letter in _NARROW else 9.5 if letter in "mwMW%@" else 7.0 for letter in text))
