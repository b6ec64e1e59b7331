"""What a replay brought forth, and the files and figures made of it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from exchange.cli.replay.recording import Kind, Recording, ReplayCommand
from exchange.engine.words import OrderStatus, Side

Best = tuple[int, int, int, int]
"""Bid, its quantity, ask, its quantity; 0 where a side is empty."""

_PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
_SIDES = {int(Side.BUY): "B", int(Side.SELL): "S"}
_STATUSES = {OrderStatus.OPEN: "RESTING", OrderStatus.FILLED: "FILLED", OrderStatus.CANCELLED: "CANCELLED"}


class Answer(NamedTuple):
    """The answer to one command: its sequence in the shard, the order's status, whether it was refused."""

    sequence: int
    status: int
    rejected: bool


class TradeRow(NamedTuple):
    sequence: int
    taker: str
    maker: str
    price: int
    quantity: int


class OrderRow(NamedTuple):
    side: int
    price: int
    priority: int
    order: str
    open_quantity: int


class LevelRow(NamedTuple):
    side: int
    price: int
    quantity: int
    orders: int


@dataclass(slots=True)
class Outcome:
    """What came of a recording. `fault`, if any, says why it cannot be trusted to be whole."""

    symbol: str = ""
    answers: list[Answer] = field(default_factory=list)
    """One for each command."""
    trades: list[TradeRow] = field(default_factory=list)
    """In the order of execution."""
    cancelled: dict[int, int] = field(default_factory=dict)
    """What a command took out of the book without a trade, by its sequence."""
    best: list[tuple[int, Best]] = field(default_factory=list)
    """The best prices from a sequence on, wherever they changed."""
    orders: list[OrderRow] = field(default_factory=list)
    levels: list[LevelRow] = field(default_factory=list)
    """Bids best first, then asks."""
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    fault: str = ""


def matched(recording: Recording, outcome: Outcome) -> int:
    """Return how many recorded trades came out with the same price and quantity, as multisets."""
    ours = Counter((trade.price, trade.quantity) for trade in outcome.trades)
    return (ours & Counter(recording.trades)).total()


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return for each named fraction the smallest value that so large a part of the values does not exceed."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {name: ordered[min(int(len(ordered) * fraction), last)] for name, fraction in _PERCENTILES if ordered}


def summary(recording: Recording, outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a replay."""
    count = len(outcome.answers)
    figures: dict[str, Any] = {
        "instrument": outcome.symbol,
        "commands": count,
        "seconds": round(outcome.seconds, 3),
        "commands_per_s": round(count / outcome.seconds) if outcome.seconds else 0,
        "rejected": sum(answer.rejected for answer in outcome.answers),
        "trades": len(outcome.trades),
        "open_orders": len(outcome.orders),
    }
    figures.update({f"latency_ms_{name}": round(ms, 4) for name, ms in percentiles(outcome.latencies_ms).items()})
    if recording.trades:
        figures["recorded_trades"] = len(recording.trades)
        figures["recorded_trades_matched"] = matched(recording, outcome)
    if outcome.fault:
        figures["fault"] = outcome.fault
    return figures


def write_files(prefix: str, recording: Recording, outcome: Outcome) -> list[Path]:
    """Write PREFIX.{trades,results,book,orders}.csv; return their paths."""
    numbers = {answer.sequence: c.number for c, answer in zip(recording.commands, outcome.answers, strict=True)}
    trades = [(numbers[t.sequence], t.taker, t.maker, t.price, t.quantity) for t in outcome.trades]
    levels = [(_SIDES[level.side], level.price, level.quantity, level.orders) for level in outcome.levels]
    return [
        _write(f"{prefix}.trades.csv", "seq,taker_id,maker_id,price,qty", trades),
        _write(f"{prefix}.results.csv", "seq,status,filled,rem,bid,bid_qty,ask,ask_qty", results(recording, outcome)),
        _write(f"{prefix}.book.csv", "side,price,qty,orders", levels),
        _write(f"{prefix}.orders.csv", "side,price,rank,id,open_qty", ranked(outcome.orders)),
    ]


def ranked(orders: Iterable[OrderRow]) -> list[tuple[str, int, int, str, int]]:
    """Return the resting orders as side, price, rank in the queue, id, open quantity: bids first, best price first."""
    ranks: Counter[tuple[int, int]] = Counter()
    rows = []
    for row in sorted(orders, key=lambda r: (r.side, -r.price if r.side == Side.BUY else r.price, r.priority)):
        rows.append((_SIDES[row.side], row.price, ranks[row.side, row.price], row.order, row.open_quantity))
        ranks[row.side, row.price] += 1
    return rows


def results(recording: Recording, outcome: Outcome) -> list[tuple[int | str, ...]]:
    """Return for each command its number, status, filled and remaining quantity, and the best prices after it."""
    filled: Counter[int] = Counter()
    for trade in outcome.trades:
        filled[trade.sequence] += trade.quantity
    changes = [sequence for sequence, _ in outcome.best]
    rows: list[tuple[int | str, ...]] = []
    for command, answer in zip(recording.commands, outcome.answers, strict=True):
        done = filled[answer.sequence]
        status, left = _fate(command, answer, done, outcome.cancelled.get(answer.sequence))
        at = bisect_right(changes, answer.sequence)
        best = outcome.best[at - 1][1] if at else (0, 0, 0, 0)
        rows.append((command.number, status, done, left, *best))
    return rows


def _fate(command: ReplayCommand, answer: Answer, filled: int, cancelled: int | None) -> tuple[str, int]:
    """Return the status of a command and what remained: resting, or taken out of the book."""
    match command.kind:
        case Kind.REDUCE if not answer.rejected and cancelled is None:
            return "REDUCE_OK", command.quantity
        case Kind.CANCEL | Kind.REDUCE:
            # An amend that is refused because no more is left than was to be taken away has cancelled the order.
            return ("CANCEL_REJECT", 0) if cancelled is None else ("CANCEL_OK", cancelled)
        case Kind.REPLACE if answer.rejected:
            return "REPLACE_REJECT", 0
        case Kind.REPLACE:
            left = command.quantity - filled
            return ("REPLACE_RESTING" if left else "REPLACE_FILLED"), left
        case _ if answer.rejected:
            return "REJECTED", 0
        case _:
            return _STATUSES[OrderStatus(answer.status)], command.quantity - filled


def _write(name: str, header: str, rows: Sequence[tuple[int | str, ...]]) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(header + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)
    return path
