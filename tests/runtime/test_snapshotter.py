"""Snapshots by a process of their own, while the host goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime.host import Host
from exchange.runtime.messages import LinkBatch, Segment, SegmentKind
from exchange.runtime.recovery import StateHash, recover
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshotter import KINDS, SnapshotterFailed, open_storage, snapshot_elsewhere
from exchange.v1 import trading_pb2, types_pb2
from tests.runtime.money import BUY, SELL, grants

INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)


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


async def test_the_snapshotter_writes_what_the_host_stands_at(tmp_path: Path) -> None:
    kind = KINDS["shard"]
    # Its time stands still, so that nothing but the test's own commands moves it on.
    host = Host(kind, *open_storage(tmp_path, "shard-0"), clock_ns=lambda: 1)
    await host.start()
    owners = [(2, BUY), (1, SELL)]
    commands = [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN)), *grants(INSTRUMENT.symbol, *owners)]
    await host.submit(LinkBatch("s", 1, 1, [rows_segment(commands)]))
    for number in range(1, 60):
        await host.submit(LinkBatch("g", 1, number, [place(number)]))
        if number % 20 == 0:
            # The host holds the journal meanwhile, as it does when it starts one.
            hashed = await snapshot_elsewhere(tmp_path, "shard-0", "shard", host.at.record)
            assert hashed == StateHash(host.machine.sequence, kind.state_hash(host.machine))
            assert host.snapshots.sequences[0] == host.at.record
    await host.trim()
    expected = kind.state_hash(host.machine)
    await host.submit(LinkBatch("g", 1, 60, [place(60)]))
    journal, snapshots = open_storage(tmp_path, "shard-0")
    snapshot = snapshots.latest()
    assert snapshot is not None
    assert snapshot.sequence < host.at.record
    recovered = recover(kind, journal, snapshots, to_record=host.at.record - 1)
    assert kind.state_hash(recovered.machine) == expected
    whole = recover(kind, journal, snapshots)
    assert kind.state_hash(whole.machine) == kind.state_hash(host.machine)
    assert whole.links["g"] == host.at.links["g"]
    await host.stop()


async def test_a_snapshotter_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "shard-0").write_text("where the journal's directory should be")
    with pytest.raises(SnapshotterFailed, match="shard-0"):
        await snapshot_elsewhere(tmp_path, "shard-0", "shard", 7)
