"""`cold`: how long a shard with a long history takes from its start until it serves, without a standby.

The history is written at a clock of its own, at 1,000 commands a second: so the shard remembers the client order ids of
the last ten minutes, as one does that has had that load for long. What is older is in nothing that a start reads, so
the figure is the same for any longer history.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from pathlib import Path

from exchange.cli.bench import Figure
from exchange.cli.bench.live import SYMBOL, OrderFlow, command_message
from exchange.cli.bench.replay import BUYER, SELLER, endowed
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Stage
from exchange.runtime.host import Host
from exchange.runtime.messages import LinkBatch, Segment, SegmentKind, unpack
from exchange.runtime.rows import rows_segment
from exchange.runtime.storage import KINDS, open_storage
from exchange.v1 import trading_pb2

COMMANDS = 1_000_000
COMMANDS_PER_S = 1_000
COMMANDS_PER_RECORD = 500
SNAPSHOT_EVERY = 100_000
"""As is the default: a start replays as many at most, and here as many as there can be."""
OPEN_ORDERS = 20_000
ROUNDS = 3
_KIND = KINDS["shard"]


def measure() -> Figure:
    """Return the median of the rounds; reference: snapshot and journal read, verified and unpacked, nothing else."""
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
        gc.disable()
        try:
            asyncio.run(_write_history(Path(directory)))
            rounds = sorted(asyncio.run(_start(Path(directory))) for _ in range(ROUNDS))
        finally:
            gc.enable()
    value, reference, detail = rounds[ROUNDS // 2]
    return Figure("cold", value, "s", reference, value / reference, detail)


async def _write_history(directory: Path) -> None:
    """Trade until just before the next snapshot, and leave without one, as after kill -9."""
    host = Host(
        _KIND,
        *open_storage(directory, "shard-0"),
        snapshot_every_commands=SNAPSHOT_EVERY,
        clock_ns=lambda: 10**18 + host.machine.sequence * (10**9 // COMMANDS_PER_S),
    )
    await host.start()
    instrument = Instrument(SYMBOL, "BENCH", "USDT", 2, 4, 6, max_open_orders=1_000_000)
    await host.submit(
        LinkBatch("bench", 1, 1, [rows_segment([AddInstrument(instrument), SetStage(int(Stage.OPEN)), *endowed()])])
    )
    flow = OrderFlow((BUYER, SELLER), "r", OPEN_ORDERS)
    n = 1
    while host.machine.sequence < COMMANDS - COMMANDS_PER_RECORD:
        n += 1
        request = trading_pb2.TradeRequest(
            commands=[command_message(flow.command()) for _ in range(COMMANDS_PER_RECORD)]
        )
        segment = Segment(int(SegmentKind.TRADE), BUYER, 0, 60_000, request.SerializeToString())
        await host.submit(LinkBatch("bench", 1, n, [segment]))
        if host.machine.sequence % SNAPSHOT_EVERY < COMMANDS_PER_RECORD:
            await host.snapshotter.settle()
    host.journal.close()


async def _start(directory: Path) -> tuple[float, float, str]:
    """Return how long a start takes, and how long to read what it reads, in s."""
    journal, snapshots = open_storage(directory, "shard-0")
    started_s = time.perf_counter()
    snapshot = snapshots.latest()
    assert snapshot is not None, "a history without a snapshot"
    unpack(unpack(snapshot.payload)[0])
    for _ in journal.read(snapshot.sequence + 1):
        pass
    reference_s = time.perf_counter() - started_s
    journal.close()
    host = Host(_KIND, *open_storage(directory, "shard-0"))
    started_s = time.perf_counter()
    await host.start()
    value_s = time.perf_counter() - started_s
    shard = host.machine
    assert isinstance(shard, Shard)
    open_orders = sum(trader.open_orders for book in shard.books.values() for trader in book.traders.values())
    detail = (
        f"{shard.sequence:,} commands at {COMMANDS_PER_S:,}/s, {host.at.replayed_commands:,} of them replayed; "
        f"{open_orders:,} open and {len(shard.closed):,} remembered orders"
    )
    host.journal.close()
    return value_s, reference_s, detail
