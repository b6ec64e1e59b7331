"""Snapshots by a forked process, while the host goes on: when they are taken, and by whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime.host import Host
from exchange.runtime.journal import MemoryJournal
from exchange.runtime.messages import LinkBatch, Segment, SegmentKind
from exchange.runtime.recovery import Recovered, StateHash, recover
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshot import SnapshotStore, SnapshotUnavailable
from exchange.runtime.snapshotter import Snapshotter
from exchange.runtime.storage import KINDS, open_storage
from exchange.v1 import trading_pb2, types_pb2
from tests.runtime.money import BUY, SELL, grants

INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)
SHARD = KINDS["shard"]


def place(number: int) -> Segment:
    order = trading_pb2.PlaceOrderRequest(
        instrument="BTC-USDT",
        client_order_id=f"o{number}",
        side=types_pb2.SIDE_BUY if number % 2 else types_pb2.SIDE_SELL,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=100 + number % 7,
        quantity=1 + number % 5,
    )
    request = trading_pb2.TradeRequest(commands=[trading_pb2.Command(place=order)])
    return Segment(int(SegmentKind.TRADE), 1 + number % 2, 0, 5_000, request.SerializeToString())


async def open_market(host: Host) -> None:
    owners = [(2, BUY), (1, SELL)]
    commands = [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN)), *grants(INSTRUMENT.symbol, *owners)]
    await host.submit(LinkBatch("s", 1, 1, [rows_segment(commands)]))


async def test_what_is_written_aside_is_the_moment_at_which_it_was_begun(tmp_path: Path) -> None:
    # Its time stands still, so that nothing but the test's own commands moves it on.
    host = Host(SHARD, *open_storage(tmp_path, "shard-0"), clock_ns=lambda: 1)
    await host.start()
    await open_market(host)
    for number in range(1, 60):
        await host.submit(LinkBatch("g", 1, number, [place(number)]))
        if number % 20 == 0:
            host.snapshotter.begin(host.at)
            expected = StateHash(host.machine.sequence, SHARD.state_hash(host.machine))
            record = host.at.record
            # The child has not been waited for; whatever it has come to, this is none of its state.
            await host.submit(LinkBatch("h", 1, number, [place(1_000 + number)]))
            await host.snapshotter.settle()
            assert host.at.hashed == expected
            assert host.snapshots.sequences[0] == record
    expected_links = dict(host.at.links)
    # The host holds the journal meanwhile, and the child has left it so.
    journal, snapshots = open_storage(tmp_path, "shard-0")
    snapshot = snapshots.latest()
    assert snapshot is not None
    assert snapshot.sequence < host.at.record
    whole = recover(SHARD, journal, snapshots)
    assert SHARD.state_hash(whole.machine) == SHARD.state_hash(host.machine)
    assert whole.links == expected_links
    await host.stop()


async def test_hosts_of_one_machine_take_them_after_the_same_records(tmp_path: Path) -> None:
    journal = MemoryJournal("shard-0")
    primary = Host(SHARD, journal, SnapshotStore(tmp_path / "a"), snapshot_every_commands=7, clock_ns=lambda: 1)
    standby = Host(SHARD, journal, SnapshotStore(tmp_path / "b"), snapshot_every_commands=7)
    await primary.start()
    await standby.follow()
    await open_market(primary)
    for number in range(1, 30):
        await primary.submit(LinkBatch("g", 1, number, [place(number)]))
        await primary.snapshotter.settle()
        while standby.at.record < primary.at.record:  # noqa: ASYNC110  # it polls the journal
            await asyncio.sleep(0.001)
        await standby.snapshotter.settle()
        assert standby.snapshots.sequences == primary.snapshots.sequences
        assert standby.at.hashed == primary.at.hashed
    assert len(primary.snapshots.sequences) == 2
    await standby.stop()
    await primary.stop()


class _Counted(Snapshotter):
    """Writes none, and counts those that it would have begun."""

    begun = 0

    def begin(self, at: Recovered) -> None:
        self.begun += 1


class _Store(SnapshotStore):
    there: tuple[int, ...] = ()

    @property
    def sequences(self) -> tuple[int, ...]:
        return self.there


def see_all(snapshotter: Snapshotter, at: Recovered, records: range) -> list[int]:
    """Let records of one command each pass; return those at which a multiple was passed."""
    passed = []
    for record in records:
        at.record = at.machine.sequence = record
        if snapshotter.see(at):
            passed.append(record)
    return passed


def test_a_primary_takes_them_itself_only_while_its_standby_does_not(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    snapshotter = _Counted(SHARD, store, 10)
    snapshotter.leaves_it_to_standby = True
    at = Recovered(SHARD.new())
    # Nobody has taken one yet.
    assert see_all(snapshotter, at, range(11)) == [10]
    assert snapshotter.begun == 1
    # The standby's of record 10 is there when 20 is passed, and so on.
    store.there = (10,)
    assert see_all(snapshotter, at, range(11, 21)) == [20]
    store.there = (20, 10)
    assert see_all(snapshotter, at, range(21, 31)) == [30]
    assert snapshotter.begun == 1
    # That of 30 does not come.
    assert see_all(snapshotter, at, range(31, 41)) == [40]
    assert snapshotter.begun == 2


def test_the_first_look_after_a_start_takes_none(tmp_path: Path) -> None:
    snapshotter = _Counted(SHARD, SnapshotStore(tmp_path), 10)
    at = Recovered(SHARD.new())
    assert see_all(snapshotter, at, range(35, 40)) == []
    assert see_all(snapshotter, at, range(40, 61)) == [40, 50, 60]
    assert snapshotter.begun == 3


class _Broken(SnapshotStore):
    def prune(self) -> None:
        raise SnapshotUnavailable("no space left")


async def test_one_that_fails_is_reported_and_the_next_multiple_is_another_chance(tmp_path: Path) -> None:
    snapshotter = Snapshotter(SHARD, _Broken(tmp_path), 10)
    at = Recovered(SHARD.new())
    with capture_logs() as logs:
        for _ in range(2):
            snapshotter.begin(at)
            await snapshotter.settle()
    assert [(log["event"], log["kind"]) for log in logs] == [("snapshot.failed", "shard")] * 2
    assert at.hashed == StateHash()
