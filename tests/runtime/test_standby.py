"""A standby is the primary's double: it follows, takes over at any moment, and loses nothing that was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime.feed import unpack_batch
from exchange.runtime.host import Host, NotPrimary, Role
from exchange.runtime.journal import FileJournal, Journal, JournalFenced, JournalUnavailable, MemoryJournal
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.machine import state_hash
from exchange.runtime.messages import LinkBatch, ReplyStatus, Segment, SegmentKind, unpack_replies
from exchange.runtime.nats_servers import NatsServers
from exchange.runtime.recovery import recover, take_snapshot
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshot import SnapshotStore
from exchange.runtime.standby import RECORDS_PER_POLL
from exchange.runtime.storage import KINDS
from exchange.v1 import trading_pb2, types_pb2
from tests.runtime.money import BUY, SELL, grants
from tests.virtual_time import AtOnce, VirtualTimeLoop, now_s, run

SHARD = KINDS["shard"]
INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)
LIMIT_S = 30.0


def place(name: str, *, side: int = BUY, price: int = 100, quantity: int = 5) -> Segment:
    order = trading_pb2.PlaceOrderRequest(
        instrument="BTC-USDT",
        client_order_id=name,
        side=types_pb2.SIDE_BUY if side == BUY else types_pb2.SIDE_SELL,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=price,
        quantity=quantity,
    )
    request = trading_pb2.TradeRequest(commands=[trading_pb2.Command(place=order)])
    return Segment(int(SegmentKind.TRADE), side, 0, 60_000, request.SerializeToString())


def is_done(answer: bytes) -> bool:
    (reply,) = unpack_replies(answer)
    return reply.status == ReplyStatus.DONE


def is_there(host: Host, name: str, side: int = BUY) -> bool:
    return host.machine.find(side, "BTC-USDT", name, 0) is not None


async def open_market(host: Host) -> None:
    commands = [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN)), *grants("BTC-USDT", (1, BUY), (2, SELL))]
    await host.submit(LinkBatch("s", 1, 1, [rows_segment(commands)]))


def fingerprint(host: Host) -> tuple[Any, ...]:
    """What must be equal in two hosts that stand at the same record."""
    at = host.at
    return at.record, host.machine.sequence, state_hash(SHARD, host.machine), at.feed.last_sequence, at.feed.checksum


def role(host: Host) -> Role:
    return host.role


def failure(host: Host) -> str | None:
    assert host.standby is not None
    return host.standby.failure


async def reached(standby: Host, record: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while standby.at.record < record:  # noqa: ASYNC110  # it polls the journal
            await asyncio.sleep(0.01)


def new_host(journal: Journal, directory: Path, **options: Any) -> Host:
    return Host(SHARD, journal, SnapshotStore(directory), monotonic_s=now_s, writer=AtOnce(), **options)


@dataclass
class Pair:
    """A primary and a standby on one journal in memory, in virtual time."""

    directory: Path
    journal: MemoryJournal = field(default_factory=lambda: MemoryJournal("shard-0"))
    primary: Host = field(init=False)
    standby: Host = field(init=False)

    def host(self, name: str, **options: Any) -> Host:
        return new_host(self.journal, self.directory / name, **options)

    async def start(self) -> Pair:
        self.primary, self.standby = self.host("a"), self.host("b")
        await self.primary.start()
        await open_market(self.primary)
        await self.standby.follow()
        return self

    async def stop(self) -> None:
        for host in (self.primary, self.standby):
            await host.stop()


@pytest.fixture
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Journal], int]:
    """Opens the journal for a host; and how many of the newest records a standby does not see yet."""
    if request.param == "memory":
        shared = MemoryJournal("shard-0")
        return lambda: shared, 0
    if request.param == "file":
        return lambda: FileJournal.open(tmp_path / "journal", "shard-0"), 1
    servers: NatsServers = request.getfixturevalue("nats_servers")
    name = f"shard-of-{tmp_path.name}"[:60]
    return lambda: NatsJournal.open(servers.settings(), name), 0


async def test_a_standby_has_caught_up_once_it_has_reached_the_end(tmp_path: Path) -> None:
    journal = MemoryJournal("shard-0")
    primary = Host(SHARD, journal, SnapshotStore(tmp_path / "a"))
    await primary.start()
    await open_market(primary)
    for number in range(2 * RECORDS_PER_POLL):
        await primary.submit(LinkBatch("g", 1, number + 1, [place(f"o{number}")]))
    host = Host(SHARD, journal, SnapshotStore(tmp_path / "b"))
    await host.follow()
    standby = host.standby
    assert standby is not None
    while not standby.has_caught_up:
        assert host.at.record <= primary.at.record
        await asyncio.sleep(0)
    assert host.at.record == primary.at.record
    await host.stop()
    await primary.stop()


@pytest.mark.parametrize("journals", ["memory", "file", "nats"], indirect=True)
async def test_a_standby_follows_and_takes_over(journals: tuple[Callable[[], Journal], int], tmp_path: Path) -> None:
    open_journal, held_back = journals
    primary = Host(SHARD, await asyncio.to_thread(open_journal), SnapshotStore(tmp_path / "a"))
    await primary.start()
    await open_market(primary)
    standby = Host(SHARD, await asyncio.to_thread(open_journal), SnapshotStore(tmp_path / "b"))
    await standby.follow()
    checksums = {}
    answer, batch = b"", LinkBatch("g", 1, 0, [])
    for number in range(30):
        side = BUY if number % 3 else SELL
        batch = LinkBatch("g", 1, number + 1, [place(f"o{number}", side=side)])
        answer = await primary.submit(batch)
        assert is_done(answer)
        checksums[primary.at.record] = primary.at.feed.checksum
    await reached(standby, primary.at.record - held_back)
    assert standby.standby is not None
    assert all(standby.standby.agrees(record, checksums[record]) for record in range(6, primary.at.record - 1))
    assert standby.standby.agrees(primary.at.record - 1, 7) is False
    assert standby.standby.agrees(primary.at.record + 1, 7) is None
    with pytest.raises(NotPrimary):
        await standby.submit(batch)
    expected = fingerprint(primary)
    await primary.hand_over()
    await standby.promote(begin=False)
    assert fingerprint(standby) == expected
    assert role(standby) == Role.PRIMARY
    assert standby.epoch > primary.epoch
    # The answer of the first time, although it was another host's.
    assert unpack_replies(await standby.submit(batch)) == unpack_replies(answer)
    assert is_done(await standby.submit(LinkBatch("g", 1, 31, [place("after")])))
    await primary.stop()
    await standby.stop()


# ---------------------------------------------------------------- any moment

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 2), st.sampled_from([BUY, SELL]), st.integers(98, 102)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.005, 0.02])),
        st.tuples(st.just("yield"), st.integers(1, 8)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=STEPS, after=STEPS, hand_over=st.booleans())
def test_a_takeover_at_any_moment_loses_nothing_and_does_nothing_twice(
    before: list[Any], after: list[Any], hand_over: bool
) -> None:
    with TemporaryDirectory() as directory:
        run(_take_over(Path(directory), before, after, hand_over=hand_over))


async def _take_over(directory: Path, before: list[Any], after: list[Any], *, hand_over: bool) -> None:
    pair = await Pair(directory).start()
    sent: list[tuple[LinkBatch, str, int, asyncio.Task[bytes]]] = []
    numbers = [0, 0, 0]
    in_flight: dict[int, asyncio.Task[bytes]] = {}

    async def step(what: tuple[Any, ...]) -> None:
        if what[0] == "wait":
            await asyncio.sleep(what[1])
        elif what[0] == "yield":
            for _ in range(what[1]):
                await asyncio.sleep(0)
        else:
            _, link, side, price = what
            # A link has one batch in flight.
            if link in in_flight and not in_flight[link].done():
                return
            numbers[link] += 1
            name = f"o-{link}-{numbers[link]}"
            batch = LinkBatch(f"g-{link}", 1, numbers[link], [place(name, side=side, price=price)])
            in_flight[link] = asyncio.create_task(pair.primary.submit(batch))
            sent.append((batch, name, side, in_flight[link]))

    for what in before:
        await step(what)
    if hand_over:
        last = await pair.primary.hand_over()
        assert last == pair.journal.last_sequence
    promotion = asyncio.create_task(pair.standby.promote(begin=not hand_over))
    # The zombie goes on as if nothing had happened.
    for what in after:
        await step(what)
    await promotion
    await asyncio.gather(*(task for *_, task in sent), return_exceptions=True)

    new = pair.standby
    # As the supervisor does before anybody is sent there.
    await new.submit(LinkBatch("s", 1, 2, [rows_segment([SetStage(int(Stage.OPEN))])]))
    lost = []
    for batch, name, side, task in sent:
        error = task.exception()
        if error is None:
            assert is_done(task.result())
            assert is_there(new, name, side), "acknowledged, and lost"
        else:
            assert isinstance(error, NotPrimary), "refused, although somebody takes over"
            lost.append((batch, name, side))
    # What the links were not answered they send again, and it takes effect once.
    newest = {batch.link: task for batch, *_, task in sent}
    for batch, _, _, task in sent:
        if task is newest[batch.link] and task.exception() is None:
            assert await new.submit(batch) == task.result()
    for batch, name, side in lost:
        if batch.n == new.at.links.get(batch.link, (0, 0))[1] or not is_there(new, name, side):
            await new.submit(batch)
        assert is_there(new, name, side)
    orders = [order for book in new.machine.books.values() for order in book.orders()]
    assert len({(o.request.account, o.request.client_order_id) for o in orders}) == len(orders)
    _check_feed(new)
    replayed = recover(SHARD, pair.journal, SnapshotStore(directory / "empty"))
    assert (replayed.record, state_hash(SHARD, replayed.machine), replayed.feed.checksum) == (
        new.at.record,
        state_hash(SHARD, new.machine),
        new.at.feed.checksum,
    )
    await pair.stop()


def _check_feed(host: Host) -> None:
    """The feed has all commands from the first to the last, without a gap, and its epochs never fall."""
    batches = [unpack_batch(data) for data in host.at.feed.read(0, bytes_max=1 << 30)]
    assert [b.first_sequence for b in batches] == [1, *(b.last_sequence + 1 for b in batches[:-1])]
    assert batches[-1].last_sequence == host.machine.sequence
    epochs = [b.epoch for b in batches]
    assert epochs == sorted(epochs)


# ---------------------------------------------------------------- the end of a primary


def test_a_fenced_primary_acknowledges_nothing_and_leaves_what_waits_to_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        pair = await Pair(tmp_path).start()
        await pair.standby.promote()
        submits = [pair.primary.submit(LinkBatch(f"g-{n}", 1, 1, [place(f"o{n}")])) for n in range(5)]
        outcomes = await asyncio.gather(*submits, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {NotPrimary}
        assert role(pair.primary) == Role.RETIRED
        assert pair.primary.fenced.is_set()
        for n in range(5):
            assert not is_there(pair.standby, f"o{n}")
            assert is_done(await pair.standby.submit(LinkBatch(f"g-{n}", 1, 1, [place(f"o{n}")])))
        with pytest.raises(JournalFenced):
            pair.journal.append(pair.primary.epoch, pair.journal.last_sequence + 1, b"")
        await pair.stop()

    run(scenario())


def test_a_handover_finishes_what_is_being_written_and_refuses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        pair = await Pair(tmp_path).start()
        first = asyncio.create_task(pair.primary.submit(LinkBatch("g-0", 1, 1, [place("written")])))
        while pair.journal.last_sequence == pair.primary.at.record:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # Its record is in the journal, and it is not answered yet.
        waiting = asyncio.create_task(pair.primary.submit(LinkBatch("g-1", 1, 1, [place("waiting")])))
        await asyncio.sleep(0)
        last = await pair.primary.hand_over()
        assert is_done(await first)
        with pytest.raises(NotPrimary):
            await waiting
        with pytest.raises(NotPrimary):
            await pair.primary.submit(LinkBatch("g-2", 1, 1, [place("late")]))
        await pair.standby.promote(begin=False)
        assert pair.standby.at.record == last
        assert is_there(pair.standby, "written")
        assert not is_there(pair.standby, "waiting")
        assert is_done(await pair.standby.submit(LinkBatch("g-1", 1, 1, [place("waiting")])))
        await pair.stop()

    run(scenario())


# ---------------------------------------------------------------- promotion


def test_a_promotion_that_is_asked_for_twice_happens_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        pair = await Pair(tmp_path).start()
        await asyncio.gather(pair.standby.promote(), pair.standby.promote())
        epoch, record = pair.standby.epoch, pair.standby.at.record
        await pair.standby.promote()
        assert (pair.standby.epoch, pair.standby.at.record) == (epoch, record)
        assert role(pair.standby) == Role.PRIMARY
        await pair.stop()

    run(scenario())


class FailingJournal(MemoryJournal):
    """Cannot be acquired, or read, while told so."""

    failing: set[str] = set()  # noqa: RUF012  # replaced, never changed

    def acquire(self) -> int:
        self._check("acquire")
        return super().acquire()

    def read(self, from_sequence: int, to_sequence: int | None = None) -> Any:
        self._check("read")
        return super().read(from_sequence, to_sequence)

    def _check(self, what: str) -> None:
        if what in self.failing:
            raise JournalUnavailable("no server answers", surely_absent=True)


@pytest.mark.parametrize("failing", ["acquire", "read"])
def test_a_promotion_that_failed_can_be_asked_for_again(tmp_path: Path, failing: str) -> None:
    async def scenario() -> None:
        journal = FailingJournal("shard-0")
        pair = await Pair(tmp_path, journal).start()
        await reached(pair.standby, journal.last_sequence)
        await pair.primary.submit(LinkBatch("g", 1, 1, [place("last")]))
        journal.failing = {failing}
        with pytest.raises(JournalUnavailable):
            await pair.standby.promote()
        assert role(pair.standby) == Role.STANDBY
        with pytest.raises(NotPrimary):
            await pair.standby.submit(LinkBatch("g", 1, 2, [place("early")]))
        journal.failing = set()
        await pair.standby.promote()
        assert role(pair.standby) == Role.PRIMARY
        assert is_there(pair.standby, "last")
        assert is_done(await pair.standby.submit(LinkBatch("g", 1, 2, [place("next")])))
        await pair.stop()

    run(scenario())


def test_a_host_that_was_never_a_standby_is_not_promoted(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = new_host(MemoryJournal("shard-0"), tmp_path)
        with pytest.raises(NotPrimary, match="expected a standby"):
            await host.promote()
        await host.start()
        with pytest.raises(NotPrimary, match="expected a standby, was PRIMARY"):
            await host.promote()
        await host.stop()

    run(scenario())


def test_a_standby_reads_on_when_the_journal_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = FailingJournal("shard-0")
        pair = await Pair(tmp_path, journal).start()
        await reached(pair.standby, journal.last_sequence)
        journal.failing = {"read"}
        await pair.primary.submit(LinkBatch("g", 1, 1, [place("a")]))
        await asyncio.sleep(1)
        assert failure(pair.standby) == "no server answers"
        journal.failing = set()
        await reached(pair.standby, pair.primary.at.record)
        assert fingerprint(pair.standby) == fingerprint(pair.primary)
        assert failure(pair.standby) is None
        await pair.stop()

    run(scenario())


# ---------------------------------------------------------------- difference, and falling behind


def test_a_standby_whose_state_differs_is_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        pair = await Pair(tmp_path).start()
        await pair.primary.submit(LinkBatch("g", 1, 1, [place("a", side=SELL)]))
        await reached(pair.standby, pair.primary.at.record)
        standby = pair.standby.standby
        assert standby is not None
        assert standby.agrees(pair.primary.at.record, pair.primary.at.feed.checksum)
        # Planted: one unit less in an order of the standby's book, which the next trade shows.
        (order,) = pair.standby.machine.books["BTC-USDT"].orders()
        order.open -= 1
        await pair.primary.submit(LinkBatch("g", 1, 2, [place("b", side=BUY)]))
        await reached(pair.standby, pair.primary.at.record)
        assert standby.agrees(pair.primary.at.record, pair.primary.at.feed.checksum) is False
        await pair.stop()

    run(scenario())


def test_a_standby_that_fell_behind_a_trimmed_journal_goes_on_from_the_newest_snapshot(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = MemoryJournal("shard-0")
        shared = tmp_path / "shared"
        primary = new_host(journal, shared)
        await primary.start()
        await open_market(primary)
        standby = new_host(journal, shared)
        # It has read nothing when the journal is trimmed.
        await standby.follow()
        for n in range(1, 20):
            task = asyncio.create_task(primary.submit(LinkBatch("g", 1, n, [place(f"o{n}")])))
            while not task.done():  # noqa: ASYNC110
                await asyncio.sleep(0)
        take_snapshot(SHARD, primary.at, primary.snapshots)
        journal.trim(primary.at.record)
        assert standby.at.record < journal.first_sequence - 1
        await primary.submit(LinkBatch("g", 1, 20, [place("after")]))
        await reached(standby, primary.at.record)
        assert fingerprint(standby) == fingerprint(primary)
        await standby.promote()
        assert is_there(standby, "o7")
        await standby.stop()
        await primary.stop()

    run(scenario())


def test_virtual_time_is_what_these_tests_run_on() -> None:
    async def scenario() -> None:
        assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        before_s = now_s()
        await asyncio.sleep(3_600)
        assert 3_600 <= now_s() - before_s < 3_601

    run(scenario())
