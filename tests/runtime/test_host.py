"""The host: what it acknowledges is durable, and what is sent again takes effect once."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exchange.engine.commands import AddInstrument, CancelAllAfter, SetStage, Tick
from exchange.engine.events import EventKind
from exchange.engine.instrument import Instrument
from exchange.engine.words import CloseReason, RejectReason, Stage
from exchange.runtime.codec import ShardType
from exchange.runtime.feed import unpack_batch
from exchange.runtime.host import Host, NotPrimary
from exchange.runtime.journal import JournalFenced, JournalUnavailable, MemoryJournal
from exchange.runtime.machine import state_hash
from exchange.runtime.messages import LinkBatch, ReplyStatus, Segment, SegmentKind, unpack_record, unpack_replies
from exchange.runtime.recovery import StateHash, recover
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshot import SnapshotStore
from exchange.v1 import trading_pb2, types_pb2
from tests.runtime.money import BUY, SELL, grants

INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def now_s(self) -> float:
        return self.ns / 1e9


class Crash(Exception):
    """Stands for the end of the process."""


class CrashingJournal(MemoryJournal):
    """Loses its process before or after a record is written, when told to."""

    crash: str = ""
    fail: bool = False
    surely_absent: bool = True

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        if self.crash == "before append":
            raise Crash
        if self.fail:
            raise JournalUnavailable("no space left", surely_absent=self.surely_absent, errno=errno.ENOSPC)
        super().append(epoch, sequence, payload)
        if self.crash == "after append":
            raise Crash

    def reopen(self) -> int:
        if self.fail:
            raise JournalUnavailable("still no space left", surely_absent=True, errno=errno.ENOSPC)
        return super().reopen()


class LateJournal(MemoryJournal):
    """Gives no answer to the next append, when told to; its record turns out to be in, or not."""

    loses_answer = False
    gets_in = False
    settled = False
    fenced = False

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        if not self.loses_answer:
            return super().append(epoch, sequence, payload)
        self.late = epoch, sequence, payload
        raise JournalUnavailable("no answer", surely_absent=False)

    def reopen(self) -> int:
        if self.fenced:
            raise JournalFenced("another writer took over")
        if not self.settled:
            raise JournalUnavailable("no answer yet", surely_absent=False)
        if self.gets_in:
            super().append(*self.late)
        self.loses_answer = False
        return self.acquire()


class HeldJournal(MemoryJournal):
    """Keeps an append waiting while told to. `reached`: one waits."""

    def __init__(self, machine: str) -> None:
        super().__init__(machine)
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        if not self.go_on.is_set():
            self.reached.set()
            self.go_on.wait()
        super().append(epoch, sequence, payload)


def place(name: str, *, side: Any = 1, price: int = 100, quantity: int = 5, remaining_ms: int = 1_000) -> Segment:
    order = trading_pb2.PlaceOrderRequest(
        instrument="BTC-USDT",
        client_order_id=name,
        side=side,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=price,
        quantity=quantity,
    )
    request = trading_pb2.TradeRequest(request_id=7, commands=[trading_pb2.Command(place=order)])
    return Segment(int(SegmentKind.TRADE), side, 0, remaining_ms, request.SerializeToString())


def results(answer: bytes) -> list[Any]:
    (reply,) = unpack_replies(answer)
    assert reply.status == ReplyStatus.DONE, reply
    return list(trading_pb2.TradeResponse.FromString(reply.data).results)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_host(tmp_path: Path, clock: Clock) -> Callable[..., Host]:
    def make(journal: MemoryJournal) -> Host:
        return Host(ShardType(), journal, SnapshotStore(tmp_path), clock_ns=clock.now_ns, monotonic_s=clock.now_s)

    return make


async def opened(host: Host) -> Host:
    await host.start()
    commands = [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN)), *grants(INSTRUMENT.symbol, (1, BUY), (2, SELL))]
    await host.submit(LinkBatch("supervisor", host.epoch, 1, [rows_segment(commands)]))
    return host


async def test_a_restart_gives_the_state_that_was_acknowledged(make_host: Callable[..., Host], tmp_path: Path) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    for n in range(1, 20):
        await host.submit(LinkBatch("gateway-0", 1, n, [place(f"o{n}", side=1 + n % 2)]))
    expected = state_hash(host.kind, host.machine)
    await host.stop()
    for snapshots in (tmp_path, tmp_path / "without"):
        recovered = recover(host.kind, journal, SnapshotStore(snapshots))
        assert recovered.machine.sequence == host.machine.sequence
        assert state_hash(host.kind, recovered.machine) == expected


async def test_a_start_is_journaled_and_closes_the_shard_to_orders(make_host: Callable[..., Host]) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    sequence = host.machine.sequence
    await host.stop()
    again = make_host(journal)
    await again.start()
    assert (again.machine.sequence, again.machine.stage) == (sequence + 2, Stage.CANCEL_ONLY)
    await again.stop()


async def test_switches_that_ran_out_while_the_shard_was_away_fire_together_once_before_anything_else(
    make_host: Callable[..., Host], clock: Clock
) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    await host.submit(LinkBatch("gateway-0", 1, 1, [place("bid", side=BUY), place("ask", side=SELL, price=200)]))
    arm = [CancelAllAfter(1, clock.ns + 1_000_000), CancelAllAfter(2, clock.ns + 2_000_000_000)]
    await host.submit(LinkBatch("gateway-0", 1, 2, [rows_segment(arm)]))
    await host.stop()
    clock.ns += 60_000_000_000
    again = make_host(journal)
    began = journal.last_sequence
    await again.start()
    answer = await again.submit(LinkBatch("gateway-0", 1, 3, [place("next", side=SELL, price=100)]))
    assert results(answer)[0].reject_reason == RejectReason.STAGE_CANCEL_ONLY
    closed = [row for data in again.at.feed.read(host.machine.sequence) for row in unpack_batch(data).events]
    assert [(row[0], row[4]) for row in closed if row[0] == EventKind.CLOSED] == [
        (EventKind.CLOSED, CloseReason.DEAD_MANS_SWITCH)
    ] * 2
    assert len({row[1] for row in closed if row[0] == EventKind.CLOSED}) == 1
    first = unpack_record(next(iter(journal.read(began + 1))).payload)
    commands = [c for batch in first.batches for segment in batch.segments for c in again.kind.decode(segment)]
    assert commands == [Tick(), SetStage(int(Stage.CANCEL_ONLY), 0, "start"), Tick()]
    assert not again.machine.switches
    await again.stop()


async def test_an_answer_goes_out_before_readers_of_the_feed_are_woken(make_host: Callable[..., Host]) -> None:
    host = await opened(make_host(MemoryJournal("shard-0")))
    reader = asyncio.create_task(host.at.feed.wait(host.machine.sequence, 10.0))
    await asyncio.sleep(0)
    await host.submit(LinkBatch("gateway-0", 1, 1, [place("a")]))
    assert not reader.done()
    # Whoever comes by himself meanwhile gets everything.
    (data,) = host.at.feed.read(host.machine.sequence - 1)
    assert await reader == [data]
    await host.stop()


async def test_a_batch_that_is_sent_again_takes_effect_once(make_host: Callable[..., Host]) -> None:
    host = await opened(make_host(MemoryJournal("shard-0")))
    batch = LinkBatch("gateway-0", 1, 1, [place("a")])
    first = await host.submit(batch)
    sequence = host.machine.sequence
    assert await host.submit(batch) == first
    assert host.machine.sequence == sequence
    await host.stop()


async def test_a_batch_that_is_sent_twice_at_once_takes_effect_once(make_host: Callable[..., Host]) -> None:
    host = await opened(make_host(MemoryJournal("shard-0")))
    batch = LinkBatch("gateway-0", 1, 1, [place("a")])
    first, second = await asyncio.gather(host.submit(batch), host.submit(batch))
    assert first == second
    assert results(first)[0].order_id == host.machine.sequence
    await host.stop()


@pytest.mark.parametrize(("crash", "takes_effect"), [("before append", False), ("after append", True)])
async def test_a_crash_around_the_append_loses_and_doubles_nothing(
    make_host: Callable[..., Host], crash: str, takes_effect: bool
) -> None:
    journal = CrashingJournal("shard-0")
    host = await opened(make_host(journal))
    batch = LinkBatch("gateway-0", 1, 1, [place("a")])
    journal.crash = crash
    with pytest.raises(RuntimeError):
        await host.submit(batch)
    journal.crash = ""
    again = await opened(make_host(journal))
    found = again.machine.find(1, "BTC-USDT", "a", 0)
    assert (found is not None) == takes_effect
    # The gateway does not know, and sends the same batch to the new host.
    (result,) = results(await again.submit(batch))
    assert result.client_order_id == "a"
    assert [o.request.client_order_id for o in again.machine.books["BTC-USDT"].orders()] == ["a"]
    again.machine.validate()
    await again.stop()


async def test_the_answer_of_the_last_batch_survives_a_snapshot_and_a_restart(make_host: Callable[..., Host]) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    batch = LinkBatch("gateway-0", 1, 1, [place("a")])
    first = await host.submit(batch)
    await host.stop()
    again = await opened(make_host(journal))
    assert await again.submit(batch) == first
    await again.stop()


@pytest.mark.parametrize(("surely_absent", "status"), [(True, ReplyStatus.REFUSED), (False, ReplyStatus.UNKNOWN)])
async def test_a_full_disk_acknowledges_nothing_and_says_why(
    make_host: Callable[..., Host], surely_absent: bool, status: ReplyStatus
) -> None:
    journal = CrashingJournal("shard-0")
    host = await opened(make_host(journal))
    journal.fail, journal.surely_absent = True, surely_absent
    (reply,) = unpack_replies(await host.submit(LinkBatch("gateway-0", 1, 1, [place("a")])))
    assert reply.status == status
    assert "no space left" in reply.detail
    (later,) = unpack_replies(await host.submit(LinkBatch("gateway-0", 1, 2, [place("b")])))
    assert (later.status, later.reason) == (ReplyStatus.REFUSED, RejectReason.JOURNAL_UNAVAILABLE)
    assert host.machine.find(1, "BTC-USDT", "a", 0) is None
    journal.fail = False
    await host.stop()


@pytest.mark.parametrize("gets_in", [True, False])
async def test_a_record_whose_outcome_was_unknown_takes_effect_once_whether_it_got_in_or_not(
    make_host: Callable[..., Host], tmp_path: Path, gets_in: bool
) -> None:
    journal = LateJournal("shard-0")
    host = await opened(make_host(journal))
    epoch = host.epoch
    journal.loses_answer, journal.gets_in = True, gets_in
    batch = LinkBatch("gateway-0", 1, 1, [place("a")])
    (reply,) = unpack_replies(await host.submit(batch))
    assert reply.status == ReplyStatus.UNKNOWN
    # Sent again before that is settled, it must not be said to be refused: it may be in.
    (reply,) = unpack_replies(await host.submit(batch))
    assert (reply.status, reply.reason) == (ReplyStatus.UNKNOWN, RejectReason.JOURNAL_UNAVAILABLE)
    (other,) = unpack_replies(await host.submit(LinkBatch("gateway-1", 1, 1, [place("b")])))
    assert other.status == ReplyStatus.REFUSED
    applied = asyncio.Event()
    host.on_applied = applied.set
    journal.settled = True
    while host.failure is not None:  # noqa: ASYNC110  # nothing but this tells that it is over
        await asyncio.sleep(0.01)
    assert applied.is_set() == gets_in
    assert host.epoch == epoch + 1
    assert (host.machine.find(1, "BTC-USDT", "a", 0) is not None) == gets_in
    (result,) = results(await host.submit(batch))
    assert result.client_order_id == "a"
    assert [o.request.client_order_id for o in host.machine.books["BTC-USDT"].orders()] == ["a"]
    replayed = recover(host.kind, journal, SnapshotStore(tmp_path / "without"))
    assert state_hash(host.kind, replayed.machine) == state_hash(host.kind, host.machine)
    await host.stop()


async def test_a_writer_that_finds_itself_fenced_when_it_reopens_stops_for_good(
    make_host: Callable[..., Host],
) -> None:
    journal = LateJournal("shard-0")
    host = await opened(make_host(journal))
    journal.loses_answer = journal.fenced = True
    await host.submit(LinkBatch("gateway-0", 1, 1, [place("a")]))
    await host.fenced.wait()
    with pytest.raises(NotPrimary):
        await host.submit(LinkBatch("gateway-0", 1, 2, [place("b")]))
    await host.stop()


async def test_a_command_past_its_deadline_is_refused_before_the_journal(
    make_host: Callable[..., Host], clock: Clock, tmp_path: Path
) -> None:
    journal = HeldJournal("shard-0")
    host = await opened(make_host(journal))
    journal.go_on.clear()
    first = asyncio.create_task(host.submit(LinkBatch("gateway-1", 1, 1, [place("first")])))
    await asyncio.to_thread(journal.reached.wait)
    # Its record is on its way, so what comes now waits in the mailbox.
    batch = LinkBatch("gateway-0", 1, 1, [place("late", remaining_ms=10), place("in-time")])
    waiting = asyncio.create_task(host.submit(batch))
    await asyncio.sleep(0)
    clock.ns += 100_000_000
    journal.go_on.set()
    late, in_time = unpack_replies(await waiting)
    assert (late.status, late.reason) == (ReplyStatus.REFUSED, RejectReason.DEADLINE_EXCEEDED)
    assert in_time.status == ReplyStatus.DONE
    await first
    names = [order.request.client_order_id for order in host.machine.books["BTC-USDT"].orders()]
    assert names == ["first", "in-time"]
    # Sent again, also after a crash, it is answered as it was, and the late command stays refused.
    assert unpack_replies(await host.submit(batch)) == [late, in_time]
    again = await opened(make_host(journal))
    assert unpack_replies(await again.submit(batch)) == [late, in_time]
    replayed = recover(host.kind, journal, SnapshotStore(tmp_path / "without"))
    assert state_hash(host.kind, replayed.machine) == state_hash(host.kind, again.machine)
    await again.stop()


@pytest.mark.parametrize("link", ["", "gateway-0"])
async def test_a_host_that_breaks_tells_everyone_who_waits(
    make_host: Callable[..., Host], link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = HeldJournal("shard-0")
    host = await opened(make_host(journal))
    journal.go_on.clear()
    in_flight = asyncio.create_task(host.submit(LinkBatch(link, 1, 1, [place("a")])))
    await asyncio.to_thread(journal.reached.wait)
    waiting = asyncio.create_task(host.submit(LinkBatch("", 0, 0, [place("b")])))
    await asyncio.sleep(0)

    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("exchange.runtime.host.apply_record", break_down)
    journal.go_on.set()
    for told in await asyncio.gather(in_flight, waiting, return_exceptions=True):
        assert "the host is broken" in str(told)
    await host.stop()


async def test_a_deadline_that_passed_while_the_batch_lay_before_a_paused_host_is_past(
    make_host: Callable[..., Host], clock: Clock
) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    # The link's clock shows something else than ours, on another machine.
    prompt = LinkBatch("gateway-0", 1, 1, [place("prompt")], sent_s=77.0)
    assert unpack_replies(await host.submit(prompt))[0].status == ReplyStatus.DONE
    clock.ns += 3_010_000_000
    # Sent 10 ms after the first one, so it was on its way for 3 s, of which nothing was seen here.
    batch = LinkBatch("gateway-0", 1, 2, [place("late"), place("patient", remaining_ms=5_000)], sent_s=77.01)
    late, patient = unpack_replies(await host.submit(batch))
    assert (late.status, late.reason) == (ReplyStatus.REFUSED, RejectReason.DEADLINE_EXCEEDED)
    assert patient.status == ReplyStatus.DONE
    names = [order.request.client_order_id for order in host.machine.books["BTC-USDT"].orders()]
    assert names == ["prompt", "patient"]
    # When it was sent is in no record.
    last = unpack_record(list(journal.read(1))[-1].payload)
    assert last.batches[0].sent_s == 0
    await host.stop()


async def test_a_writer_that_was_fenced_stops_for_good(make_host: Callable[..., Host]) -> None:
    journal = MemoryJournal("shard-0")
    old = await opened(make_host(journal))
    new = await opened(make_host(journal))
    # Neither done nor refused: the link keeps the batch for the writer that has taken over.
    with pytest.raises(NotPrimary):
        await old.submit(LinkBatch("gateway-0", 1, 1, [place("a")]))
    assert old.fenced.is_set()
    with pytest.raises(NotPrimary):
        await old.submit(LinkBatch("gateway-0", 1, 2, [place("b")]))
    assert new.machine.find(1, "BTC-USDT", "a", 0) is None
    await new.stop()


async def test_the_hash_that_is_told_is_that_of_the_newest_snapshot(make_host: Callable[..., Host]) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    assert host.at.hashed == StateHash()
    await host.submit(LinkBatch("gateway-0", 1, 1, [place("a")]))
    at_snapshot = StateHash(host.machine.sequence, state_hash(host.kind, host.machine))
    host.snapshotter.begin(host.at)
    await host.snapshotter.settle()
    await host.submit(LinkBatch("gateway-0", 1, 2, [place("b")]))
    assert host.at.hashed == at_snapshot
    # Replay goes on from the snapshot, and does not hash again what it comes to.
    assert recover(host.kind, journal, host.snapshots).hashed == at_snapshot
    at_stop = StateHash(host.machine.sequence, state_hash(host.kind, host.machine))
    await host.stop()
    again = await opened(make_host(journal))
    assert again.at.hashed == at_stop
    await again.stop()


async def test_readers_of_the_feed_go_on_without_a_gap_after_a_restart(make_host: Callable[..., Host]) -> None:
    journal = MemoryJournal("shard-0")
    host = await opened(make_host(journal))
    await host.submit(LinkBatch("gateway-0", 1, 1, [place("a")]))
    seen = host.machine.sequence - 1
    before = host.at.feed.read(seen)
    await host.stop()
    again = await opened(make_host(journal))
    assert again.at.feed.read(seen)[: len(before)] == before
    await again.stop()
