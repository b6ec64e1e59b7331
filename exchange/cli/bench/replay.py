"""`replay`: commands per second that a shard recovers from its journal, beside reading the journal alone."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from statistics import median

from exchange.cli.bench import Figure
from exchange.cli.bench.live import SYMBOL, OrderFlow, command_message
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal
from exchange.runtime.messages import LinkBatch, RecordPayload, Segment, SegmentKind, pack
from exchange.runtime.recovery import recover
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshot import SnapshotStore
from exchange.v1 import trading_pb2

RECORDS = 500
COMMANDS_PER_RECORD = 200
ROUNDS = 3


def measure() -> Figure:
    """Return the medians of the rounds; reference: the same journal read and verified, in commands per second."""
    flow = OrderFlow((1, 2), "r")
    instrument = Instrument(SYMBOL, "BENCH", "USDT", 2, 4, 6, max_open_orders=1_000_000)
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
        journal = FileJournal.open(Path(directory) / "journal", "shard-0")
        epoch = journal.acquire()
        segments = [rows_segment([AddInstrument(instrument), SetStage(int(Stage.OPEN))])]
        journal.append(epoch, 1, pack(RecordPayload(1, [LinkBatch("bench", 1, 1, segments)])))
        for n in range(2, RECORDS + 2):
            request = trading_pb2.TradeRequest(
                commands=[command_message(flow.command()) for _ in range(COMMANDS_PER_RECORD)]
            )
            segments = [Segment(int(SegmentKind.TRADE), 1, 0, 1_000, request.SerializeToString())]
            journal.append(epoch, n, pack(RecordPayload(n, [LinkBatch("bench", 1, n, segments)])))
        snapshots = SnapshotStore(Path(directory) / "snapshots")
        rates = []
        for _ in range(ROUNDS):
            gc.collect()
            started_s = time.perf_counter()
            recovered = recover(ShardType(), journal, snapshots)
            ours = recovered.replayed_commands / (time.perf_counter() - started_s)
            started_s = time.perf_counter()
            records = sum(1 for _ in journal.read(1))
            rates.append((ours, records * COMMANDS_PER_RECORD / (time.perf_counter() - started_s)))
        journal.close()
    value, reference = median(rate for rate, _ in rates), median(rate for _, rate in rates)
    detail = "journal to machine, events and answers included; reference: reading the journal alone"
    return Figure("replay", value, "commands/s", reference, median(a / b for a, b in rates), detail)
