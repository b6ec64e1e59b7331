"""The Atom feed (RFC 4287): an entry per incident and maintenance, updated with it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from status.model import Board, Incident, Maintenance, Update
from status.web.times import iso, words

ENTRIES_MAX = 50
ATOM = "http://www.w3.org/2005/Atom"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def feed(board: Board) -> bytes:
    ET.register_namespace("", ATOM)
    base = board.page_url.rstrip("/")
    root = ET.Element(f"{{{ATOM}}}feed")
    _text(root, "id", f"{base}/")
    _text(root, "title", f"{board.page_name} status: incidents and maintenance")
    _text(root, "updated", iso(board.updated_ns) or "1970-01-01T00:00:00Z")
    _link(root, f"{base}/feed.atom", "self", "application/atom+xml")
    _link(root, f"{base}/", "alternate", "text/html")
    _text(_child(root, "author"), "name", board.page_name)
    told: list[Incident | Maintenance] = [*board.incidents, *board.maintenances]
    for item in sorted(told, key=lambda item: item.updated_ns, reverse=True)[:ENTRIES_MAX]:
        _entry(root, item, base)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _entry(root: ET.Element, item: Incident | Maintenance, base: str) -> None:
    kind = "incidents" if isinstance(item, Incident) else "maintenance"
    entry = _child(root, "entry")
    _text(entry, "id", f"{base}/{kind}/{item.id}")
    _text(entry, "title", f"[{item.status.value.replace('_', ' ')}] {item.name}")
    _text(entry, "published", iso(item.created_ns))
    _text(entry, "updated", iso(item.updated_ns))
    _link(entry, f"{base}/{kind}/{item.id}", "alternate", "text/html")
    _child(entry, "category").set("term", "incident" if kind == "incidents" else "maintenance")
    lines = [_line(update) for update in item.updates]
    if isinstance(item, Maintenance):
        lines.insert(0, f"Planned from {words(item.scheduled_for_ns)} to {words(item.scheduled_until_ns)}.")
    _text(entry, "content", "\n\n".join(lines) or item.name).set("type", "text")


def _line(update: Update) -> str:
    corrected = f" (corrected; first told as: {update.body_before})" if update.corrected_ns else ""
    return f"{words(update.at_ns)}, {update.status.value.replace('_', ' ')}: {update.body}{corrected}"


def _child(parent: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{ATOM}}}{name}")


def _text(parent: ET.Element, name: str, text: str) -> ET.Element:
    element = _child(parent, name)
    element.text = _NOT_XML.sub("\ufffd", text)
    return element


def _link(parent: ET.Element, href: str, rel: str, kind: str) -> None:
    link = _child(parent, "link")
    link.set("href", href)
    link.set("rel", rel)
    link.set("type", kind)
