"""The link to a machine whose hosts fail, hang, lie about what they did, or hand over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from exchange.engine.words import RejectReason
from exchange.gateway import admission, links
from exchange.gateway.links import HOLD_S, RETRY_S, UNKNOWN_AFTER_S, Link
from exchange.overload.classes import WorkClass
from exchange.runtime.messages import (
    HostLoad,
    LinkBatch,
    ReplyStatus,
    Segment,
    SegmentReply,
    pack,
    unpack,
    unpack_batch,
    with_load,
)
from exchange.runtime.peers import PeerUnavailable

DONE, REFUSED, UNKNOWN, PARKED = ReplyStatus
CONTROL, CANCELS, _, ORDERS, _ = WorkClass
MARGIN_MS = 20


class ScriptedPeer:
    """A host that answers when the test says so. `calls` has each batch that it was given, and its answer."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.calls: list[tuple[LinkBatch, asyncio.Future[bytes]]] = []
        self.abandoned = 0

    async def submit(self, batch: bytes) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.calls.append((unpack_batch(unpack(batch)), answer))
        try:
            return await answer
        except asyncio.CancelledError:
            self.abandoned += 1
            raise

    async def given(self, count: int) -> LinkBatch:
        """Wait until it was given so many batches; return the last."""
        await until(lambda: len(self.calls) >= count)
        return self.calls[count - 1][0]

    def answer(self, status: int, reason: int = 0, *, call: int = -1) -> None:
        batch, answer = self.calls[call]
        answer.set_result(pack([SegmentReply(int(status), int(reason), segment.data) for segment in batch.segments]))

    def fail(self, call: int = -1) -> None:
        self.calls[call][1].set_exception(PeerUnavailable("gone"))

    async def feed(self, after_sequence: int, timeout_s: float) -> None:
        raise NotImplementedError

    async def dump(self) -> bytes:
        raise NotImplementedError

    async def query(self, request: bytes) -> bytes:
        raise NotImplementedError


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until it holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - what a link does has no event to wait for
        await asyncio.sleep(0.001)


async def settled() -> None:
    """Lets everybody take note of what has happened so far."""
    for _ in range(10):
        await asyncio.sleep(0)


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.link = Link("shard-0", "gateway-0", 3, monotonic_s=lambda: self.now_s)
        self.old, self.new = ScriptedPeer(1), ScriptedPeer(2)

    def sends(self, data: bytes = b"a", priority: WorkClass = ORDERS, remaining_ms: int = 1_000) -> Any:
        return self.link.enqueue(Segment(0, 7, 0, remaining_ms, data), priority)

    async def is_sent(self) -> Any:
        """Have the old host be given a batch."""
        self.link.set_peer(self.old)
        reply = self.sends()
        await self.old.given(1)
        return reply


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.link.start()
    yield world
    await world.link.stop()


# ---------------------------------------------------------------- what makes a batch


async def answered(world: World, batches: int) -> None:
    """Have the old host answer its last batch, and the link look at what is next."""
    assert len(world.old.calls) == batches
    world.old.answer(DONE)
    await settled()


@pytest.fixture
async def patient(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A link with a batch in flight, to which time is no object."""
    monkeypatch.setattr(links, "GATHER_S", 3_600)
    await world.is_sent()
    return world


@pytest.mark.parametrize(("several", "wanted"), [(4, 8), (5, 10), (32, 64), (60, 64)])
async def test_where_several_came_more_are_waited_for(patient: World, several: int, wanted: int) -> None:
    for _ in range(several):
        patient.sends()
    await answered(patient, 1)
    # The first of several came alone.
    assert len((await patient.old.given(2)).segments) == several
    await answered(patient, 2)
    for _ in range(wanted - 1):
        patient.sends()
        await settled()
    assert len(patient.old.calls) == 2
    patient.sends()
    assert len((await patient.old.given(3)).segments) == wanted


@pytest.mark.parametrize("few", [1, 3])
async def test_one_of_a_few_waits_for_nobody(patient: World, few: int) -> None:
    for _ in range(few):
        patient.sends()
    await answered(patient, 1)
    await patient.old.given(2)
    await answered(patient, 2)
    patient.sends()
    assert len((await patient.old.given(3)).segments) == 1


async def test_what_waits_already_goes_at_once(patient: World) -> None:
    for count in (4, 8, 64):
        for _ in range(count):
            patient.sends()
        await answered(patient, len(patient.old.calls))
    assert [len(batch.segments) for batch, _ in patient.old.calls] == [1, 4, 8, 64]


async def test_no_more_are_waited_for_than_the_host_takes_at_once(patient: World) -> None:
    for _ in range(8):
        patient.sends()
    await answered(patient, 1)
    assert len((await patient.old.given(2)).segments) == 8
    # Of what it can do in a second, a batch is what it does in twice the target of 25 ms.
    replies = pack([SegmentReply(int(DONE), 0, b"") for _ in range(8)])
    patient.old.calls[-1][1].set_result(with_load(replies, HostLoad(1.0, 120.0)))
    await settled()
    for _ in range(6):
        patient.sends()
    assert len((await patient.old.given(3)).segments) == 6


async def test_those_who_do_not_come_are_not_waited_for_long(world: World) -> None:
    await world.is_sent()
    for _ in range(10):
        world.sends()
    await answered(world, 1)
    await world.old.given(2)
    await answered(world, 2)
    world.sends()
    assert len((await world.old.given(3)).segments) == 1


# ---------------------------------------------------------------- the batch in flight


async def test_a_host_that_hangs_is_not_waited_for_once_there_is_another(world: World) -> None:
    reply = await world.is_sent()
    world.now_s += 0.5
    world.link.set_peer(world.new)
    batch = await world.new.given(1)
    first = world.old.calls[0][0]
    assert (batch.link, batch.incarnation, batch.n) == (first.link, first.incarnation, first.n) == ("gateway-0", 3, 1)
    assert [first.segments[0].remaining_ms, batch.segments[0].remaining_ms] == [1_000 - MARGIN_MS, 500 - MARGIN_MS]
    world.new.answer(DONE)
    assert (await reply).status == DONE
    await until(lambda: world.old.abandoned == 1)


@pytest.mark.parametrize(("status", "reason"), [(DONE, 0), (PARKED, 0), (REFUSED, RejectReason.DEADLINE_EXCEEDED)])
async def test_what_the_old_host_journaled_is_true_however_late(world: World, status: int, reason: int) -> None:
    reply = await world.is_sent()
    world.link.set_peer(world.new)
    await world.new.given(1)
    world.old.answer(status, reason)
    assert (await reply)[:2] == (status, reason)
    await until(lambda: world.new.abandoned == 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(REFUSED, RejectReason.SHARD_UNAVAILABLE), (REFUSED, RejectReason.JOURNAL_UNAVAILABLE), (UNKNOWN, 0)],
)
async def test_what_else_the_old_host_says_is_not_believed(world: World, status: int, reason: int) -> None:
    reply = await world.is_sent()
    world.link.set_peer(world.new)
    await world.new.given(1)
    world.old.answer(status, reason)
    await settled()
    assert not reply.done()
    world.new.answer(DONE)
    assert (await reply).status == DONE


async def test_a_fenced_host_does_not_know_and_the_next_one_does(world: World) -> None:
    reply = await world.is_sent()
    world.old.answer(UNKNOWN)
    world.link.set_peer(world.new)
    batch = await world.new.given(1)
    assert (batch.incarnation, batch.n) == (3, 1)
    assert not reply.done()
    world.new.answer(REFUSED, RejectReason.JOURNAL_UNAVAILABLE)
    assert (await reply).reason == RejectReason.JOURNAL_UNAVAILABLE, "it has the whole history, and is believed"


@pytest.mark.parametrize("was_lost", [True, False])
async def test_a_host_that_did_not_know_is_asked_again_and_not_believed_when_it_refuses(
    world: World, was_lost: bool
) -> None:
    reply = await world.is_sent()
    if was_lost:
        world.old.fail()
    else:
        world.old.answer(UNKNOWN)
    await settled()
    world.now_s += RETRY_S
    await world.old.given(2)
    world.old.answer(REFUSED, RejectReason.JOURNAL_UNAVAILABLE)
    while len(world.old.calls) < 3:
        world.now_s += RETRY_S
        await asyncio.sleep(0.01)
    assert not reply.done()
    assert {(batch.incarnation, batch.n) for batch, _ in world.old.calls} == {(3, 1)}
    world.old.answer(DONE)
    assert (await reply).status == DONE


async def test_a_refusal_at_first_is_surely_one(world: World) -> None:
    reply = await world.is_sent()
    world.old.answer(REFUSED, RejectReason.JOURNAL_UNAVAILABLE)
    assert (await reply)[:2] == (REFUSED, RejectReason.JOURNAL_UNAVAILABLE)


async def test_what_stays_without_an_answer_is_unknown_and_sent_all_the_same(world: World) -> None:
    reply = await world.is_sent()
    world.link.set_peer(None)
    world.now_s += UNKNOWN_AFTER_S
    assert (await reply).status == UNKNOWN
    world.link.set_peer(world.new)
    batch = await world.new.given(1)
    assert (batch.n, batch.segments[0].remaining_ms) == (1, 0), "too late to be executed, if it was not before"
    world.new.answer(REFUSED, RejectReason.DEADLINE_EXCEEDED)
    later = world.sends()
    assert (await world.new.given(2)).n == 2
    world.new.answer(DONE)
    assert (await later).status == DONE


async def test_a_batch_in_flight_is_never_refused_by_its_deadline(world: World) -> None:
    reply = await world.is_sent()
    world.now_s += 5.0
    behind = world.sends(remaining_ms=10)
    world.now_s += 1.0
    assert (await behind).reason == RejectReason.DEADLINE_EXCEEDED
    assert not reply.done()
    world.old.answer(DONE)
    assert (await reply).status == DONE


async def test_many_changes_of_hosts_leave_one_answer(world: World) -> None:
    reply = await world.is_sent()
    peers = [ScriptedPeer(incarnation) for incarnation in range(2, 12)]
    for peer in peers:
        world.link.set_peer(None)
        world.link.set_peer(peer)
        await peer.given(1)
    peers[-1].answer(DONE)
    assert (await reply).status == DONE
    await until(lambda: all(peer.abandoned for peer in [world.old, *peers[:-1]]))


# ---------------------------------------------------------------- what is queued


async def test_what_waits_for_a_host_enters_in_the_order_in_which_it_came_but_cancels_first(world: World) -> None:
    world.link.set_peer(world.old)
    world.link.set_peer(None)
    replies = [world.sends(data, remaining_ms=8_000) for data in (b"1", b"2", b"3")]
    cancel = world.sends(b"cancel", CANCELS)
    late = world.sends(b"late", remaining_ms=500)
    world.now_s += 0.6
    assert (await late)[:2] == (REFUSED, RejectReason.SHARD_UNAVAILABLE)
    world.link.set_peer(world.new)
    batch = await world.new.given(1)
    assert [segment.data for segment in batch.segments] == [b"cancel", b"1", b"2", b"3"]
    world.new.answer(DONE)
    assert [(await reply).data for reply in [cancel, *replies]] == [b"cancel", b"1", b"2", b"3"]


async def test_cancels_are_not_behind_the_orders_that_wait(world: World) -> None:
    await world.is_sent()
    for number in range(3_000):
        world.sends(bytes(500) + str(number).encode(), remaining_ms=8_000)
    cancel = world.sends(b"cancel", CANCELS)
    world.old.answer(DONE)
    batch = await world.old.given(2)
    assert batch.segments[0].data == b"cancel"
    assert len(batch.segments) < 3_000
    world.old.answer(DONE)
    assert (await cancel).status == DONE


@pytest.mark.parametrize(("limit", "value"), [("QUEUE_SEGMENTS_MAX", 2), ("QUEUE_BYTES_MAX", 2 * 65)])
async def test_a_full_queue_refuses_orders_but_no_cancels(
    world: World, limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, limit, value)
    world.link.set_peer(world.old)
    world.link.set_peer(None)
    waiting = [world.sends(), world.sends()]
    assert (await world.sends())[:2] == (REFUSED, RejectReason.QUEUE_FULL)
    waiting += [world.sends(b"c", CANCELS), world.sends(b"s", CONTROL)]
    world.link.set_peer(world.new)
    batch = await world.new.given(1)
    assert [segment.data for segment in batch.segments] == [b"s", b"c", b"a", b"a"]
    world.new.answer(DONE)
    await asyncio.gather(*waiting)


async def test_a_machine_that_was_lost_just_now_is_worth_waiting_for(world: World) -> None:
    def is_up() -> bool:
        return world.link.is_up

    assert not is_up(), "there never was a host"
    reply = await world.is_sent()
    world.link.set_peer(None)
    world.now_s += HOLD_S * 0.9
    assert is_up()
    world.now_s += HOLD_S * 0.2
    assert not is_up()
    world.link.set_peer(world.new)
    assert is_up()
    await world.new.given(1)
    world.new.fail()
    await until(lambda: world.link._interrupted_s is not None)
    world.now_s += HOLD_S
    assert not is_up()
    await world.new.given(2)
    world.new.answer(DONE)
    await reply
    assert is_up()


async def test_a_link_is_settled_when_nothing_is_queued_or_in_flight(world: World) -> None:
    await world.link.settle()
    await world.is_sent()
    settled = asyncio.create_task(world.link.settle())
    world.sends(b"b")
    world.old.answer(DONE)
    await world.old.given(2)
    assert not settled.done()
    world.old.answer(DONE)
    await settled
