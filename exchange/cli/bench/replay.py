"""`replay`: commands per second that a shard recovers from its journal, beside reading the journal alone."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from statistics import median

from exchange.cli.bench import Figure
from exchange.cli.bench.live import SYMBOL, OrderFlow, command_message
from exchange.engine.channel import AnswerFunds, AnswerStatus
from exchange.engine.commands import AddInstrument, CancelOrder, Command, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import OrderType, Side, Stage, TimeInForce
from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal
from exchange.runtime.machine import Machine
from exchange.runtime.messages import LinkBatch, RecordPayload, Segment, SegmentKind, pack_record
from exchange.runtime.recovery import recover
from exchange.runtime.rows import rows_segment
from exchange.runtime.snapshot import SnapshotStore
from exchange.v1 import trading_pb2

RECORDS = 500
COMMANDS_PER_RECORD = 200
ROUNDS = 3
BUYER, SELLER = 1, 2
GRANT = 10**18
"""So much that no order after the first waits for money."""


def measure() -> Figure:
    """Return the medians of the rounds; reference: the same journal read and verified, in commands per second."""
    flow = OrderFlow((BUYER, SELLER), "r")
    instrument = Instrument(SYMBOL, "BENCH", "USDT", 2, 4, 6, max_open_orders=1_000_000)
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
        journal = FileJournal.open(Path(directory) / "journal", "shard-0")
        epoch = journal.acquire()
        segments = [rows_segment([AddInstrument(instrument), SetStage(int(Stage.OPEN)), *endowed()])]
        journal.append(epoch, 1, pack_record(RecordPayload(1, [LinkBatch("bench", 1, 1, segments)])))
        for n in range(2, RECORDS + 2):
            request = trading_pb2.TradeRequest(
                commands=[command_message(flow.command()) for _ in range(COMMANDS_PER_RECORD)]
            )
            segments = [Segment(int(SegmentKind.TRADE), 1, 0, 1_000, request.SerializeToString())]
            journal.append(epoch, n, pack_record(RecordPayload(n, [LinkBatch("bench", 1, n, segments)])))
        snapshots = SnapshotStore(Path(directory) / "snapshots")
        rates = []
        for _ in range(ROUNDS):
            gc.collect()
            started_s = time.perf_counter()
            recovered = recover(ShardType(), journal, snapshots)
            ours = recovered.replayed_commands / (time.perf_counter() - started_s)
            _check(recovered.machine)
            started_s = time.perf_counter()
            records = sum(1 for _ in journal.read(1))
            rates.append((ours, records * COMMANDS_PER_RECORD / (time.perf_counter() - started_s)))
        journal.close()
    value, reference = median(rate for rate, _ in rates), median(rate for _, rate in rates)
    detail = "journal to machine, events and answers included; reference: reading the journal alone"
    return Figure("replay", value, "commands/s", reference, median(a / b for a, b in rates), detail)


def _check(machine: Machine) -> None:
    """See to it that what was measured is trading, and not orders that ask for money."""
    if not isinstance(machine, Shard) or not machine.books[SYMBOL].trade_id or machine.funds.outbox:
        raise RuntimeError(
            "expected a shard that has traded and asks for no money: the journal is not what it should be"
        )


def endowed() -> list[Command]:
    """Return what gives both accounts money, the way that a journal has it: an order asks and the ledger grants."""
    limit, good_till_cancelled = int(OrderType.LIMIT), int(TimeInForce.GTC)
    commands: list[Command] = []
    for n, (account, side) in enumerate(((BUYER, Side.BUY), (SELLER, Side.SELL)), 1):
        price = 1 if side == Side.BUY else 1_000_000
        commands += [
            PlaceOrder(account, "first", SYMBOL, int(side), limit, good_till_cancelled, price, 1),
            AnswerFunds(n, int(AnswerStatus.GRANTED), GRANT),
            CancelOrder(account, SYMBOL, "first"),
        ]
    return commands
