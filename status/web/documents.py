"""What is served from memory: each public document, made once per version of the board, as bytes, plain and gzipped."""

from __future__ import annotations

import gzip
import hashlib
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from status.model import Board, Maintenance
from status.web import badges, feed, okx, openapi
from status.web.history import PERIODS, history
from status.web.page import Pages
from status.web.source import Publisher, is_stale
from status.web.statuspage import Statuspage, active, unresolved, upcoming

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
ATOM = "application/atom+xml; charset=utf-8"
SVG = "image/svg+xml; charset=utf-8"

GZIP_FROM_BYTES = 512
LOOKED_AGAIN_S = 10.0
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Ids that may stand in a path and be the name of a file; others are told in lists only."""

_encoder = msgspec.json.Encoder()
T = TypeVar("T")
Make = Callable[[], "Document"]


class Document:
    """A body and its headers. The tag is weak, since it stands for the plain and the gzipped body alike."""

    __slots__ = ("body", "etag", "gzipped", "media_type")

    def __init__(self, body: bytes, media_type: str) -> None:
        self.body = body
        self.media_type = media_type
        self.etag = f'W/"{hashlib.sha256(body).hexdigest()[:20]}"'
        self.gzipped = gzip.compress(body, 6, mtime=0) if len(body) >= GZIP_FROM_BYTES else None


def json_document(value: Any) -> Document:
    return Document(_encoder.encode(value), JSON)


class Documents:
    """The documents of one board by their paths, made when they are first asked for."""

    def __init__(self, board: Board, *, stale: bool, snapshot: bool = False) -> None:
        self.board = board
        self.stale = stale
        self._made: dict[str, Document] = {}
        self._pages = Pages(board, stale=stale, snapshot=snapshot)
        self._makers = {**self._api(), **self._of_components(), **self._html()}

    def __contains__(self, path: str) -> bool:
        return path in self._makers

    def paths(self) -> list[str]:
        return list(self._makers)

    def get(self, path: str) -> Document | None:
        document = self._made.get(path)
        if document is None:
            make = self._makers.get(path)
            if make is None:
                return None
            document = self._made[path] = make()
        return document

    def _api(self) -> dict[str, Make]:
        board = self.board
        v2 = Statuspage(board)

        def under(key: str, rows: Callable[[], list[Any]]) -> Make:
            return lambda: json_document({"page": v2.page(), key: rows()})

        def maintenances(rows: list[Maintenance]) -> Make:
            return under("scheduled_maintenances", lambda: [v2.maintenance(row) for row in rows])

        makers: dict[str, Make] = {
            "/api/v2/summary.json": lambda: json_document(v2.summary()),
            "/api/v2/status.json": lambda: json_document({"page": v2.page(), "status": v2.status()}),
            "/api/v2/components.json": under("components", v2.components),
            "/api/v2/incidents.json": under("incidents", lambda: [v2.incident(i) for i in board.incidents]),
            "/api/v2/incidents/unresolved.json": under(
                "incidents", lambda: [v2.incident(i) for i in unresolved(board)]
            ),
            "/api/v2/scheduled-maintenances.json": maintenances(list(board.maintenances)),
            "/api/v2/scheduled-maintenances/upcoming.json": maintenances(upcoming(board)),
            "/api/v2/scheduled-maintenances/active.json": maintenances(active(board)),
            "/api/openapi.json": lambda: json_document(openapi.document(board)),
            "/feed.atom": lambda: Document(feed.feed(board), ATOM),
            **_badge("/badge", partial(badges.overall, board, self.stale)),
        }
        for incident in board.incidents:
            makers[f"/api/v2/incidents/{incident.id}.json"] = made(
                lambda incident: {"page": v2.page(), "incident": v2.incident(incident)}, incident
            )
        for state in ("", *okx.STATES):
            makers[f"/api/v5/system/status?state={state}"] = made(lambda state: okx.system_status(board, state), state)
        return {path: make for path, make in makers.items() if _is_safe(path)}

    def _of_components(self) -> dict[str, Make]:
        board, stale = self.board, self.stale
        v2 = Statuspage(board)
        makers: dict[str, Make] = {}
        for c in board.components:
            base = f"/api/components/{c.id}"
            makers[f"/api/v2/components/{c.id}.json"] = made(
                lambda c: {"page": v2.page(), "component": v2.component(c)}, c
            )
            makers[f"{base}/history.json"] = made(lambda c: history(board, c), c)
            makers |= _badge(f"{base}/badge", partial(badges.of_component, c, board, stale))
            for period in PERIODS:
                makers |= _badge(f"{base}/badge/uptime-{period}", partial(badges.of_uptime, c, board, period))
        return {path: make for path, make in makers.items() if _is_safe(path)}

    def _html(self) -> dict[str, Make]:
        return {path: partial(_html, make) for path, make in self._pages.makers().items() if _is_safe(path)}


def made(tell: Callable[[T], Any], of: T) -> Make:
    """A JSON document of what is told of one thing."""
    return lambda: json_document(tell(of))


def _badge(path: str, badge: Callable[[], badges.Badge]) -> dict[str, Make]:
    return {
        f"{path}.svg": lambda: Document(badge().svg().encode(), SVG),
        f"{path}.json": lambda: json_document(badge().shields()),
    }


def _html(make: Callable[[], str]) -> Document:
    return Document(make().encode(), HTML)


def _is_safe(path: str) -> bool:
    """Whether each part of a path is the name of a file that no file system or browser reads as more."""
    return path == "/" or all(SAFE_ID.fullmatch(part.partition("?")[0]) for part in path[1:].split("/"))


class Current:
    """The documents of the latest board. They are new when its version is, when it begins or ceases to be stale, and
    every `LOOKED_AGAIN_S`, so that the time of the last look in them is near."""

    def __init__(self, publisher: Publisher, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._publisher = publisher
        self._now_ns = now_ns
        self._documents: Documents | None = None

    def documents(self) -> Documents:
        board = self._publisher.board()
        stale = is_stale(board, self._now_ns())
        held = self._documents
        if (
            held is None
            or held.board.version != board.version
            or held.stale is not stale
            or board.checked_ns - held.board.checked_ns >= LOOKED_AGAIN_S * 1e9
        ):
            held = self._documents = Documents(board, stale=stale)
        return held
