"""Server-sent events: what changed from board to board, told to all who watch, who are many.

Each event is encoded once and kept for those who come back with its id. A watcher is a coroutine and the number of the
last event that it got, so there is no queue to grow: one that cannot take its next event in time is dropped, and
comes back by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from status.model import Board
from status.web.source import Publisher, is_stale
from status.web.statuspage import Statuspage, indicator
from status.web.times import iso_or_none

HEARTBEAT_S = 5.0
KEPT = 256
"""Events that can be resumed from; who comes back later gets the whole state."""
SEND_WITHIN_S = 20.0
"""A reader that takes longer to make room for an event is dropped."""
WATCHERS_MAX = 20_000

_encoder = msgspec.json.Encoder()


def encode(kind: str, data: Any, event_id: str = "") -> bytes:
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {_encoder.encode(data).decode()}\n\n".encode()


class Events:
    """Follows the publisher (`run`) and serves watchers (`serve`)."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        heartbeat_s: float = HEARTBEAT_S,
        watchers_max: int = WATCHERS_MAX,
    ) -> None:
        self._publisher = publisher
        self._now_ns = now_ns
        self._heartbeat_s = heartbeat_s
        self._watchers_max = watchers_max
        # Versions count from anew in another life of the service, so an id names the life too.
        self._life = f"{now_ns() // 1_000_000:x}"
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._number = 0
        self._told: Board | None = None
        self._beat = b""
        self._beats = 0
        self._wake = asyncio.Event()
        self.watchers = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._pulse())

    async def _follow(self) -> None:
        async for board in self._publisher.changes():
            self.tell(board)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._beats += 1
            self._beat = encode("look", self._look())
            self._ring()

    def tell(self, board: Board) -> None:
        """Makes an event of what differs from the board told last."""
        before, self._told = self._told, board
        if before is None or before.version == board.version:
            return
        self._number += 1
        event = encode("change", self._change(before, board), f"{self._life}-{self._number}")
        self._kept.append((self._number, event))
        self._ring()

    def _ring(self) -> None:
        wake, self._wake = self._wake, asyncio.Event()
        wake.set()

    def _change(self, before: Board, board: Board) -> dict[str, Any]:
        v2 = Statuspage(board)
        old_components, old_incidents = set(before.components), set(before.incidents)
        old_maintenances = set(before.maintenances)
        components = [v2.component(c) for c in board.components if c not in old_components]
        return {
            "version": board.version,
            "status": v2.status(),
            "components": components,
            "incidents": [v2.incident(i) for i in board.incidents if i not in old_incidents],
            "scheduled_maintenances": [v2.maintenance(m) for m in board.maintenances if m not in old_maintenances],
            "refetch_within_ms": self.watchers,
        }

    def _look(self) -> dict[str, Any]:
        board = self._publisher.board()
        return {
            "version": board.version,
            "indicator": indicator(board).value,
            "checked_at": iso_or_none(board.checked_ns),
            "stale": is_stale(board, self._now_ns()),
        }

    def _start(self, last_event_id: str) -> tuple[int, bytes]:
        """Where a watcher begins, and what it gets first: what it missed, or the whole."""
        life, _, number = last_event_id.rpartition("-")
        oldest = self._kept[0][0] if self._kept else self._number + 1
        if life == self._life and number.isascii() and number.isdigit() and oldest - 1 <= int(number) <= self._number:
            return int(number), b""
        board = self._publisher.board()
        return self._number, encode("summary", Statuspage(board).summary(), f"{self._life}-{self._number}")

    def _after(self, number: int) -> list[tuple[int, bytes]]:
        return [(at, event) for at, event in self._kept if at > number]

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.watchers >= self._watchers_max:
            await _refuse(send)
            return
        self.watchers += 1
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await self._watch(scope, send, gone)
        except (TimeoutError, OSError):
            pass  # A reader that is too slow, or gone: it comes back with its last id.
        finally:
            gone.cancel()
            self.watchers -= 1

    async def _watch(self, scope: Scope, send: Send, gone: asyncio.Future[None]) -> None:
        given = next((value for name, value in scope["headers"] if name == b"last-event-id"), b"")
        at, first = self._start(given.decode("latin-1"))
        beats = self._beats
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would hold events back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        body = b"retry: 2000\n\n" + first + encode("look", self._look())
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        while True:
            wake = self._wake
            missed = self._after(at)
            if missed:
                at = missed[-1][0]
                body += b"".join(event for _, event in missed)
            if beats != self._beats:
                beats = self._beats
                body += self._beat
            if body:
                async with asyncio.timeout(SEND_WITHIN_S):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                body = b""
                continue
            waiting = asyncio.ensure_future(wake.wait())
            try:
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if gone.done():
                return


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send) -> None:
    body = _encoder.encode(
        {"code": "TOO_MANY_WATCHERS", "message": "expected fewer watchers; poll /api/v2/summary.json"}
    )
    head = [(b"content-type", b"application/json"), (b"retry-after", b"10")]
    await send({"type": "http.response.start", "status": 503, "headers": head})
    await send({"type": "http.response.body", "body": body})
