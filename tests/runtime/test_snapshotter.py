"""Snapshots by a forked process, while the host goes on: when they are taken, and by whom."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path

from structlog.testing import capture_logs

from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime.host import Host
from exchange.runtime.journal import MemoryJournal
from exchange.runtime.machine import state_hash
from exchange.runtime.messages import LinkBatch, Segment, SegmentKind
from exchange.runtime.recovery import Recovered, StateHash, recover
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshot import LOCK_FILE, SnapshotStore, SnapshotUnavailable
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
            expected = StateHash(host.machine.sequence, state_hash(SHARD, host.machine))
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
    assert state_hash(SHARD, whole.machine) == state_hash(SHARD, host.machine)
    assert whole.links == expected_links
    await host.stop()


def has_hashed(host: Host) -> bool:
    """Whether its last snapshot, one every 7 commands, is done."""
    due: int = host.machine.sequence // 7 * 7
    return host.at.hashed.sequence >= due


async def test_hosts_of_one_machine_take_them_after_the_same_records(tmp_path: Path) -> None:
    journal = MemoryJournal("shard-0")
    primary = Host(SHARD, journal, SnapshotStore(tmp_path / "a"), snapshot_every_commands=7, clock_ns=lambda: 1)
    standby = Host(SHARD, journal, SnapshotStore(tmp_path / "b"), snapshot_every_commands=7)
    await primary.start()
    await standby.follow()
    await open_market(primary)
    for number in range(1, 30):
        await primary.submit(LinkBatch("g", 1, number, [place(number)]))
        # An answer is given before a snapshot is begun, and a standby polls the journal.
        while standby.at.record < primary.at.record or not all(map(has_hashed, (primary, standby))):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
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
    """`there` are the sequences; None: the disk fails. It notes which threads look."""

    there: tuple[int, ...] | None = ()

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.looked: list[str] = []

    @property
    def sequences(self) -> tuple[int, ...]:
        self.looked.append(threading.current_thread().name)
        if self.there is None:
            raise SnapshotUnavailable("could not list: the disk is gone")
        return self.there


async def see_all(snapshotter: Snapshotter, at: Recovered, records: range) -> list[int]:
    """Let records of one command each pass; return those at which a multiple was passed."""
    passed = []
    for record in records:
        at.record = at.machine.sequence = record
        if snapshotter.see(at):
            passed.append(record)
            await snapshotter.settle()
    return passed


async def test_a_primary_takes_them_itself_only_while_its_standby_does_not(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    snapshotter = _Counted(SHARD, store, 10)
    snapshotter.leaves_it_to_standby = True
    at = Recovered(SHARD.new())
    # The standby passes the first one in this moment, too.
    assert await see_all(snapshotter, at, range(11)) == [10]
    assert snapshotter.begun == 0
    # Its snapshot of record 10 is there when 20 is passed, and so on.
    store.there = (10,)
    assert await see_all(snapshotter, at, range(11, 21)) == [20]
    store.there = (20, 10)
    assert await see_all(snapshotter, at, range(21, 31)) == [30]
    assert snapshotter.begun == 0
    # That of 30 does not come.
    assert await see_all(snapshotter, at, range(31, 41)) == [40]
    assert snapshotter.begun == 1
    # Nothing of that is looked up in the thread of the event loop.
    assert len(store.looked) == 3
    assert threading.current_thread().name not in store.looked


async def test_a_disk_that_cannot_be_read_costs_a_snapshot_and_not_the_host(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    host = Host(SHARD, MemoryJournal("shard-0"), store, snapshot_every_commands=10, clock_ns=lambda: 1)
    host.snapshotter.leaves_it_to_standby = True
    await host.start()
    await open_market(host)
    store.there = None
    with capture_logs() as logs:
        for number in range(1, 31):
            await host.submit(LinkBatch("g", 1, number, [place(number)]))
            await host.snapshotter.settle()
    assert {"snapshot.failed", "journal.not_trimmed"} <= {log["event"] for log in logs}
    assert host.broken is None
    await host.stop()


async def test_a_standby_takes_every_one_whatever_is_there(tmp_path: Path) -> None:
    snapshotter = _Counted(SHARD, _Store(tmp_path), 10)
    snapshotter.leaves_it_to_standby = True
    at = Recovered(SHARD.new())
    for record in range(41):
        at.record = at.machine.sequence = record
        snapshotter.see_as_standby(at, lambda: None)
    assert snapshotter.begun == 4


async def test_on_one_disk_the_standby_takes_each_and_the_primary_none(tmp_path: Path) -> None:
    journal = MemoryJournal("shard-0")
    hosts = [
        Host(SHARD, journal, SnapshotStore(tmp_path), snapshot_every_commands=7, clock_ns=lambda: 1) for _ in range(2)
    ]
    primary, standby = hosts
    for host in hosts:
        host.snapshotter.leaves_it_to_standby = True
    await primary.start()
    await standby.follow()
    with capture_logs() as logs:
        await open_market(primary)
        for number in range(1, 40):
            await primary.submit(LinkBatch("g", 1, number, [place(number)]))
            while standby.at.record < primary.at.record:  # noqa: ASYNC110  # it polls the journal
                await asyncio.sleep(0.001)
            for host in hosts:
                await host.snapshotter.settle()
    assert [log for log in logs if log["event"].startswith("snapshot.")] == []
    assert len(standby.snapshots.sequences) == 2
    assert standby.at.hashed.sequence == standby.machine.sequence // 7 * 7
    assert primary.at.hashed == StateHash()
    await standby.stop()
    await primary.stop()


async def test_the_first_look_after_a_start_takes_none(tmp_path: Path) -> None:
    snapshotter = _Counted(SHARD, SnapshotStore(tmp_path), 10)
    at = Recovered(SHARD.new())
    assert await see_all(snapshotter, at, range(35, 40)) == []
    assert await see_all(snapshotter, at, range(40, 61)) == [40, 50, 60]
    assert snapshotter.begun == 3


async def test_of_two_that_are_begun_at_once_one_is_written_and_the_other_is_no_failure(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    at = Recovered(SHARD.new())
    at.record = at.machine.sequence = 10
    lock = os.open(tmp_path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    snapshotter = Snapshotter(SHARD, store, 10)
    pending = tmp_path / "00000000000000000010-00000000000000000000.snapshot.pending"
    pending.write_bytes(b"the other one's, half written")
    with capture_logs() as logs:
        snapshotter.begin(at)
        await snapshotter.settle()
    assert [log["event"] for log in logs] == ["snapshot.left_to_another"]
    assert pending.read_bytes() == b"the other one's, half written"
    os.close(lock)
    snapshotter.begin(at)
    await snapshotter.settle()
    assert store.sequences == (10,)
    assert not pending.exists()


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
