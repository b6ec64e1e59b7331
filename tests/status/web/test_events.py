"""Server-sent events: what a watcher gets first, what it gets after, and what becomes of one that is slow or gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from status.model import TradingMode
from status.web import events as events_module
from status.web.events import KEPT, Events
from tests.status.web import scenes
from tests.status.web.scenes import NOW_NS, FakePublisher

WAIT_S = 30.0


class Watcher:
    """A client of `Events.serve`, without a socket."""

    def __init__(self, events: Events, last_event_id: str = "") -> None:
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()
        self.status = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self._left = asyncio.Event()
        headers = [(b"last-event-id", last_event_id.encode())] if last_event_id else []
        scope = {"type": "http", "method": "GET", "headers": headers}
        self.task = asyncio.create_task(events.serve(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            await self.reads.wait()
            self.parts.put_nowait(message["body"])

    async def events(self) -> list[tuple[str, str, Any]]:
        """The next part that was sent, as (id, kind, data)."""
        body = (await asyncio.wait_for(self.parts.get(), WAIT_S)).decode()
        found: list[tuple[str, str, Any]] = []
        for block in body.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            if "data" in fields:
                found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
        return found

    async def leave(self) -> None:
        self._left.set()
        await asyncio.wait_for(self.task, WAIT_S)


@contextlib.asynccontextmanager
async def following(publisher: FakePublisher, **more: Any) -> AsyncIterator[Events]:
    events = Events(publisher, now_ns=lambda: NOW_NS, **more)
    task = asyncio.create_task(events.run())
    try:
        yield events
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_watcher_gets_the_whole_and_then_what_changes() -> None:
    publisher = FakePublisher(scenes.operational())
    async with following(publisher, heartbeat_s=3600) as events:
        watcher = Watcher(events)
        first = await watcher.events()
        assert [kind for _, kind, _ in first] == ["summary", "look"]
        assert first[0][2]["status"]["indicator"] == "none"
        publisher.publish(scenes.incident())
        ((_, kind, change),) = await watcher.events()
        assert kind == "change"
        assert {c["id"] for c in change["components"]} == {"trading-btc-usdt", "trading-eth-usdt"}
        assert [i["id"] for i in change["incidents"]] == ["inc-1"]
        await watcher.leave()
        assert events.watchers == 0


async def test_who_comes_back_gets_what_it_missed_and_nothing_twice() -> None:
    publisher = FakePublisher(scenes.operational())
    async with following(publisher, heartbeat_s=3600) as events:
        watcher = Watcher(events)
        ((last, _, _), _) = await watcher.events()
        await watcher.leave()
        for version, mode in enumerate((TradingMode.CANCEL_ONLY, TradingMode.POST_ONLY, TradingMode.LIMITED)):
            board = scenes.incident(mode=mode)
            events.tell(scenes.changed(board, NOW_NS + version))
            events.tell(scenes.changed(scenes.changed(board), NOW_NS + version))
        back = Watcher(events, last)
        (_, present, _), *missed = await back.events()
        assert present == "look"
        assert [kind for _, kind, _ in missed] == ["change"] * 6
        assert len({id_ for id_, _, _ in missed}) == 6
        await back.leave()


@pytest.mark.parametrize("last", ["", "nonsense", "0-0", "ffff-12", "-", "x" * 5000])
async def test_who_comes_with_an_id_that_is_not_known_gets_the_whole(last: str) -> None:
    async with following(FakePublisher(scenes.operational()), heartbeat_s=3600) as events:
        watcher = Watcher(events, last)
        assert (await watcher.events())[0][1] == "summary"
        await watcher.leave()


async def test_a_heartbeat_says_when_the_exchange_was_last_seen() -> None:
    async with following(FakePublisher(scenes.stale()), heartbeat_s=0.01) as events:
        watcher = Watcher(events)
        await watcher.events()
        (_, kind, look) = (await watcher.events())[0]
        assert (kind, look["stale"]) == ("look", True)
        await watcher.leave()


async def test_a_reader_that_does_not_read_is_dropped_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "SEND_WITHIN_S", 0.01)
    publisher = FakePublisher(scenes.operational())
    async with following(publisher, heartbeat_s=3600) as events:
        slow, quick = Watcher(events), Watcher(events)
        await slow.events()
        await quick.events()
        slow.reads.clear()
        publisher.publish(scenes.incident())
        assert (await quick.events())[0][1] == "change"
        await asyncio.wait_for(slow.task, WAIT_S)
        assert events.watchers == 1
        await quick.leave()


async def test_what_is_kept_is_bounded_and_so_are_the_watchers() -> None:
    publisher = FakePublisher(scenes.operational())
    async with following(publisher, heartbeat_s=3600, watchers_max=1) as events:
        watcher = Watcher(events)
        await watcher.events()
        refused = Watcher(events)
        await asyncio.wait_for(refused.task, WAIT_S)
        assert refused.status == 503
        board = scenes.operational()
        for _ in range(2 * KEPT):
            board = scenes.changed(board)
            events.tell(board)
        assert len(events._kept) == KEPT
        await watcher.leave()
