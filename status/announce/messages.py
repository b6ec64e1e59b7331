"""What is said of an incident, or of maintenance, as it is now. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources

import jinja2
import msgspec

from status.model import Board, Impact, Incident, IncidentStatus, Maintenance, MaintenanceStatus, Update

TEMPLATES = resources.files("status.announce") / "templates"
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FunctionLoader(lambda name: (TEMPLATES / name).read_text("utf-8")),
    autoescape=False,  # plain text; each channel escapes for itself
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_DONE = (
    IncidentStatus.RESOLVED,
    IncidentStatus.POSTMORTEM,
    MaintenanceStatus.COMPLETED,
    MaintenanceStatus.CANCELED,
)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber is to see of one subject."""

    subject: str
    """`incident-ID` or `maintenance-ID`: what is said of it later takes the place of this, or follows on it."""
    revision: str
    """Of what is said: the same one is never said twice."""
    title: str
    text: str
    """Without the title; plain."""
    latest: str
    """What is new in it, for channels that add rather than edit."""
    url: str
    status: str
    impact: Impact
    components: tuple[str, ...]
    at_ns: int
    is_over: bool


def messages_of(board: Board) -> Iterator[Message]:
    """Yield what is to be said of each incident and each maintenance on a board, oldest first."""
    for incident in sorted(board.incidents, key=lambda incident: incident.started_ns):
        if incident.updates:
            yield _message("incident", f"incidents/{incident.id}", incident, incident.impact, board)
    for maintenance in sorted(board.maintenances, key=lambda maintenance: maintenance.scheduled_for_ns):
        if maintenance.updates:
            yield _message("maintenance", f"maintenance/{maintenance.id}", maintenance, Impact.MAINTENANCE, board)


def _message(kind: str, page: str, told: Incident | Maintenance, impact: Impact, board: Board) -> Message:
    """`kind` names the template, and what the template calls the thing that is told; `page` is its own."""
    newest = told.updates[0]
    names = {component.id: component.name for component in board.components}
    return Message(
        subject=f"{kind}-{told.id}",
        revision=_revision(told.updates),
        title=told.name,
        text=_ENVIRONMENT.get_template(f"{kind}.txt").render({kind: told}, names=names, utc=utc).strip(),
        latest=f"{newest.status.value.replace('_', ' ').capitalize()}: {newest.body}",
        url=f"{board.page_url.rstrip('/')}/{page}",
        status=told.status.value,
        impact=impact,
        components=told.components,
        at_ns=newest.at_ns,
        is_over=told.status in _DONE,
    )


def _revision(updates: tuple[Update, ...]) -> str:
    """Return what tells one text from another: the newest update, and the newest correction of any."""
    corrected_ns = max(update.corrected_ns for update in updates)
    return f"{updates[0].id}-{corrected_ns}" if corrected_ns else updates[0].id


def utc(time_ns: int) -> str:
    """Return a time as announcements have it."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
