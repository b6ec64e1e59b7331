"""What is to be told to whom, as values, and its words."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from status.model import Incident, Maintenance


class State(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    MERGED = "merged"
    """A later one of the same subject said all that it would have said."""
    DEAD = "dead"


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Made when the subject changed, so that what is sent later says what was so then."""

    title: str
    text: str
    is_first: bool
    event: dict[str, Any]
    """For programs: what a webhook gets."""


class Letter(msgspec.Struct, kw_only=True):
    id: str
    """Subscriber and update: the same change makes the same letter, also after a restart. Sent along as the idempotency
    key where a channel has one."""
    subscriber: str
    subject: str
    """Of the incident or maintenance."""
    content: Content
    created_ns: int
    due_ns: int
    attempts: int = 0
    state: State = State.WAITING
    error: str = ""


class Templates:
    """The words of announcements: those of the package, or an operator's own."""

    def __init__(self, folder: Path | None, page_name: str, page_url: str) -> None:
        loaders: list[jinja2.BaseLoader] = [jinja2.FileSystemLoader(folder)] if folder is not None else []
        self._environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader([*loaders, jinja2.PackageLoader("status.announce")]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )
        self._environment.filters["utc"] = _utc
        self._page = {"page_name": page_name, "page_url": page_url.rstrip("/")}

    def content(self, subject: Incident | Maintenance, names: dict[str, str]) -> Content:
        is_incident = isinstance(subject, Incident)
        template = self._environment.get_template("incident.txt" if is_incident else "maintenance.txt")
        known = [names.get(name, name) for name in subject.components]
        text = template.render(subject=subject, component_names=known, **self._page).strip()
        kind = "incident" if is_incident else "maintenance"
        event = {
            "kind": kind,
            "page": self._page["page_url"],
            kind: msgspec.to_builtins(subject),
        }
        title = f"[{self._page['page_name']}] {subject.name}"
        return Content(title=title, text=text, is_first=len(subject.updates) <= 1, event=event)


def letter_id(subscriber: str, subject: Incident | Maintenance) -> str:
    """The newest change of the subject: an update, or the correction of one."""
    corrected_ns = max((update.corrected_ns for update in subject.updates), default=0)
    newest = subject.updates[0].id if subject.updates else subject.id
    return f"{subscriber}.{newest}" + (f".{corrected_ns}" if corrected_ns else "")


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
