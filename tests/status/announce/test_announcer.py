"""Each subscriber hears of what concerns it, once and in order, whatever fails and however often it is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from status.announce.announcer import Announcer
from status.announce.delivery import Channel, Delivery, NotDelivered, Refused
from status.announce.outbox import ATTEMPTS_MAX
from status.announce.subscribers import Mail, Subscriber, Telegram
from status.history.store import Store
from status.model import Board, Impact
from status.publisher import Publisher
from tests.status.announce.boards import BEGAN_NS, KNOWN, OPENED, QUIET, RESOLVED, SECOND_NS, board, incident

MAIL = Mail(name="mail", to="a@example.org", sender="b@example.org")
CHAT = Telegram(name="chat", chat_id="@c", token_file="t")


class FakePublisher:
    def __init__(self) -> None:
        self._board = QUIET
        self._changed = asyncio.Condition()

    def board(self) -> Board:
        return self._board

    async def changes(self) -> AsyncIterator[Board]:
        version = -1
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda seen=version: self._board.version != seen)  # type: ignore[misc]
                told = self._board
            version = told.version
            yield told

    async def tell(self, new: Board) -> None:
        async with self._changed:
            self._board = new
            self._changed.notify_all()


class FakeChannel:
    """Takes what it is told, after it has failed as it was told to."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []
        self.failures: list[Exception] = []
        self.tried = 0
        self.more = asyncio.Event()
        self.holds: asyncio.Event | None = None

    async def deliver(self, delivery: Delivery) -> str:
        self.tried += 1
        self.more.set()
        if self.holds is not None:
            await self.holds.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(delivery)
        return "first"

    async def close(self) -> None: ...

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self.more.clear()
            await self.more.wait()
            await asyncio.sleep(0)


class Scene:
    def __init__(self, path: Path, subscriber: Subscriber) -> None:
        self.publisher = FakePublisher()
        self.channel = FakeChannel()
        self.subscriber = subscriber
        self.path = path
        self.now_ns = BEGAN_NS

    def clock_ns(self) -> int:
        # Each look is an hour later, so that what was put off is due at the next.
        self.now_ns += 3_600 * SECOND_NS
        return self.now_ns

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Announcer]:
        store = Store(self.path / "history.db")
        store.open()
        channels: dict[str, Channel] = {self.subscriber.name: self.channel}
        announcer = Announcer(
            [self.subscriber], channels, store, cast(Publisher, self.publisher), self.clock_ns, lambda: 0.5
        )
        task = asyncio.create_task(announcer.run())
        try:
            yield announcer
            await asyncio.sleep(0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()

    async def heard(self, count: int) -> list[str]:
        await self.channel.until(lambda: len(self.channel.taken) >= count)
        return [delivery.message.revision for delivery in self.channel.taken]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, MAIL)


async def test_every_update_is_told_once_in_order_with_the_thread_it_belongs_to(scene: Scene) -> None:
    async with scene.running():
        for number, updates in enumerate(([OPENED], [OPENED, KNOWN], [OPENED, KNOWN, RESOLVED]), 1):
            await scene.publisher.tell(board(incident(*updates), version=number + 1))
            await scene.heard(number)
    assert [d.message.revision for d in scene.channel.taken] == ["u1", "u2", "u9"]
    assert [d.reference for d in scene.channel.taken] == ["", "first", "first"]


async def test_a_board_that_says_nothing_new_tells_nothing(scene: Scene) -> None:
    async with scene.running():
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.heard(1)
        await scene.publisher.tell(board(incident(OPENED), version=3))
        await scene.publisher.tell(board(incident(OPENED, RESOLVED), version=4))
        assert await scene.heard(2) == ["u1", "u9"]


async def test_what_was_told_is_not_told_again_after_a_restart(scene: Scene) -> None:
    async with scene.running() as announcer:
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.heard(1)
        while announcer.outbox.next("mail") is not None:
            await asyncio.sleep(0)
    async with scene.running():
        await scene.publisher.tell(board(incident(OPENED, RESOLVED), version=3))
        assert await scene.heard(2) == ["u1", "u9"]
    assert scene.channel.taken[1].reference == "first"


async def test_what_was_not_told_before_a_restart_is_told_after_it_under_the_same_id(scene: Scene) -> None:
    scene.channel.holds = asyncio.Event()
    async with scene.running():
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.channel.until(lambda: scene.channel.tried == 1)
    assert scene.channel.taken == []
    scene.channel.holds = None
    async with scene.running():
        assert await scene.heard(1) == ["u1"]
    assert scene.channel.taken[0].id == "mail.incident-abc123.u1"


async def test_what_fails_is_tried_again_and_the_order_stays(scene: Scene) -> None:
    scene.channel.failures = [NotDelivered("away"), NotDelivered("away", 3.0)]
    async with scene.running():
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.channel.until(lambda: scene.channel.tried >= 1)
        await scene.publisher.tell(board(incident(OPENED, RESOLVED), version=3))
        assert await scene.heard(2) == ["u1", "u9"]
    assert scene.channel.tried == 4


async def test_what_is_refused_is_a_dead_letter_that_can_be_sent_again(scene: Scene) -> None:
    scene.channel.failures = [Refused("no such chat")]
    async with scene.running() as announcer:
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.channel.until(lambda: not scene.channel.failures and bool(announcer.outbox.dead))
        (dead,) = announcer.outbox.dead.values()
        assert (dead.error, dead.attempts) == ("no such chat", 1)
    async with scene.running() as announcer:
        while not announcer.outbox.dead:
            await asyncio.sleep(0)
        assert announcer.revive(dead.id)
        assert not announcer.revive("nobody")
        assert await scene.heard(1) == ["u1"]


async def test_what_fails_for_too_long_is_a_dead_letter(scene: Scene) -> None:
    scene.channel.failures = [NotDelivered("away") for _ in range(ATTEMPTS_MAX)]
    async with scene.running() as announcer:
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.channel.until(lambda: scene.channel.tried == ATTEMPTS_MAX)
        while not announcer.outbox.dead:
            await asyncio.sleep(0)
    assert scene.channel.taken == []


async def test_a_chat_that_was_away_hears_the_newest_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CHAT)
    scene.channel.holds = asyncio.Event()
    async with scene.running():
        await scene.publisher.tell(board(incident(OPENED), version=2))
        await scene.channel.until(lambda: scene.channel.tried == 1)
        for version, updates in ((3, [OPENED, KNOWN]), (4, [OPENED, KNOWN, RESOLVED])):
            await scene.publisher.tell(board(incident(*updates), version=version))
            for _ in range(20):
                await asyncio.sleep(0)
        scene.channel.holds.set()
        assert await scene.heard(2) == ["u1", "u9"]


async def test_a_new_subscriber_is_not_told_what_was_over_before(scene: Scene) -> None:
    old = incident(OPENED, RESOLVED, id_="old")
    await scene.publisher.tell(board(old, version=2))
    async with scene.running():
        await scene.publisher.tell(board(old, incident(OPENED), version=3))
        assert await scene.heard(1) == ["u1"]
    assert scene.channel.taken[0].message.subject == "incident-abc123"


@pytest.mark.parametrize(
    ("least", "components", "impact", "wants"),
    [
        (Impact.MINOR, ("*",), Impact.MINOR, True),
        (Impact.MAJOR, ("*",), Impact.MINOR, False),
        (Impact.MAJOR, ("*",), Impact.CRITICAL, True),
        (Impact.CRITICAL, ("*",), Impact.MAINTENANCE, True),
        (Impact.MINOR, ("market-data-*",), Impact.MAJOR, False),
        (Impact.MINOR, ("market-data-*", "trading-btc*"), Impact.MAJOR, True),
    ],
)
def test_a_subscriber_picks_components_and_severity(
    least: Impact, components: tuple[str, ...], impact: Impact, wants: bool
) -> None:
    subscriber = Mail(
        name="mail", to="a@example.org", sender="b@example.org", least_impact=least, components=components
    )
    assert subscriber.wants(impact, ("trading-btc-usdt", "funds")) is wants
