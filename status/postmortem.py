"""The draft of a post-mortem, from the incident and the event log. What only a person can know is marked. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from status.causes import Plan
from status.model import Component, Incident

_MARGIN_NS = 30_000_000_000
"""Events so long before the first failed look may be of the cause."""
_TOLD = {
    "suspect": "did not answer for a moment",
    "lost": "was lost",
    "taking_over": "its standby began to take over",
    "fenced": "the standby is the only writer",
    "up": "is up",
    "parked": "was parked: lost again and again",
    "unparked": "was let go again by an operator",
    "handing_over": "began a planned handover",
    "stopping": "was stopped as planned",
    "adopted": "was found running by a new supervisor",
    "gave_up": "was overloaded again and again while it reopened, and waits for an operator",
}


class LoggedEvent(NamedTuple):
    """As the history keeps it."""

    time_ns: int
    kind: str
    component: str
    detail: str


def draft(incident: Incident, events: Iterable[LoggedEvent], components: Iterable[Component], plan: Plan) -> str:
    """Return Markdown with impact, time line in UTC, cause, resolution and prevention."""
    names = {component.id: component.name for component in components}
    ended_ns = incident.resolved_ns or incident.updated_ns
    lines = [
        f"# {incident.name}",
        "",
        f"{_moment(incident.started_ns)} UTC, {_span(incident.started_ns, ended_ns)}. Impact: {incident.impact.value}.",
        "",
        "## Impact",
        "",
        *(f"- {names.get(name, name)}" for name in incident.components),
        "",
        "[To be filled in: what it meant for users: orders refused, orders in doubt, volume. How many were affected?]",
        "",
        "## Time line (UTC)",
        "",
        *_time_line(incident, events, plan),
        "",
        "## Cause",
        "",
        incident.cause or "[To be filled in: the event log does not say.]",
        "",
        "[To be filled in: why it could happen, and why it was not noticed before.]",
        "",
        "## Resolution",
        "",
        _resolution(incident),
        "",
        "[To be filled in: what people did, if anything.]",
        "",
        "## Prevention",
        "",
        "[To be filled in: what is changed so that it does not come again, by whom, until when.]",
        "",
    ]
    return "\n".join(lines)


def _time_line(incident: Incident, events: Iterable[LoggedEvent], plan: Plan) -> list[str]:
    ended_ns = incident.resolved_ns or incident.updated_ns
    rows = [(incident.started_ns, "The first look failed.")]
    oldest_first = reversed(incident.updates)
    rows += [(update.at_ns, f"Told the public ({update.status.value}): {update.body}") for update in oldest_first]
    affected = frozenset(incident.components)
    for event in events:
        if not incident.started_ns - _MARGIN_NS <= event.time_ns <= ended_ns:
            continue
        # A standby's name is its primary's and "-standby".
        part = event.component.removesuffix("-standby")
        if not affected.intersection(plan.components_of(part)):
            continue
        who = plan.words_for(part)
        who = f"{who}, standby" if part != event.component else who
        said = _said(event)
        if said:
            rows.append((event.time_ns, f"{who[0].upper()}{who[1:]}: {said}."))
    return [f"- {_moment(at_ns)} {text}" for at_ns, text in sorted(rows, key=lambda row: row[0])]


def _said(event: LoggedEvent) -> str:
    """What an event says. Details name hosts and processes, so only those of stages, which do not, are told."""
    if event.kind == "stage":
        return f"goes to {event.detail}"
    if event.kind == "by_hand":
        return "was set by an operator"
    return _TOLD.get(event.kind, "")


def _resolution(incident: Incident) -> str:
    if not incident.resolved_ns:
        return "[Not resolved yet.]"
    back = incident.monitoring_ns
    text = f"Resolved at {_moment(incident.resolved_ns)} UTC."
    return f"{text} It began to come back at {_moment(back)} UTC." if back else text


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _span(from_ns: int, to_ns: int) -> str:
    seconds = max((to_ns - from_ns) / 1e9, 0.0)
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
