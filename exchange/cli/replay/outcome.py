"""What a replay brought forth, and the files and figures made of it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from exchange.cli.replay.recording import Kind, Recording
from exchange.engine.words import OrderStatus

Best = tuple[int, int, int, int]
"""Bid, its quantity, ask, its quantity; 0 where a side is empty."""


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


@dataclass(slots=True)
class Outcome:
    """`cancelled`: what a cancel took away, by sequence; `best`: best prices after each sequence that changed them."""

    answers: list[Answer] = field(default_factory=list)
    trades: list[TradeRow] = field(default_factory=list)
    cancelled: dict[int, int] = field(default_factory=dict)
    best: list[tuple[int, Best]] = field(default_factory=list)
    orders: list[OrderRow] = field(default_factory=list)
    levels: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Side, price, quantity, orders; bids best first, then asks."""
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)


def matched(recording: Recording, outcome: Outcome) -> int:
    """Return how many recorded trades came out with the same price and quantity, as multisets."""
    ours = Counter((trade.price, trade.quantity) for trade in outcome.trades)
    return sum((ours & Counter(recording.trades)).values())


def percentile(values: list[float], fraction: float) -> float:
    """Return the value that so large a part of the values does not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * fraction), len(ordered) - 1)] if ordered else 0.0


def summary(recording: Recording, outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a replay."""
    figures: dict[str, Any] = {
        "commands": len(outcome.answers),
        "seconds": round(outcome.seconds, 3),
        "commands_per_s": round(len(outcome.answers) / outcome.seconds) if outcome.seconds else 0,
        "rejected": sum(answer.rejected for answer in outcome.answers),
        "trades": len(outcome.trades),
        "open_orders": len(outcome.orders),
    }
    if outcome.latencies_ms:
        for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            figures[f"latency_ms_{name}"] = round(percentile(outcome.latencies_ms, fraction), 3)
    if recording.trades:
        figures["recorded_trades"] = len(recording.trades)
        figures["recorded_trades_matched"] = matched(recording, outcome)
    return figures


def write_files(prefix: str, recording: Recording, outcome: Outcome) -> list[Path]:
    """Write PREFIX.{trades,results,book,orders}.csv; return their paths."""
    numbers = {answer.sequence: c.number for c, answer in zip(recording.commands, outcome.answers, strict=True)}
    trades = ((numbers[t.sequence], t.taker, t.maker, t.price, t.quantity) for t in outcome.trades)
    sides = {1: "B", 2: "S"}
    ranks: Counter[tuple[int, int]] = Counter()
    orders = []
    for row in sorted(outcome.orders, key=lambda r: (r.side, -r.price if r.side == 1 else r.price, r.priority)):
        orders.append((sides[row.side], row.price, ranks[row.side, row.price], row.order, row.open_quantity))
        ranks[row.side, row.price] += 1
    levels = ((sides[side], price, quantity, count) for side, price, quantity, count in outcome.levels)
    return [
        _write(f"{prefix}.trades.csv", "seq,taker_id,maker_id,price,qty", trades),
        _write(f"{prefix}.results.csv", "seq,status,filled,rem,bid,bid_qty,ask,ask_qty", _results(recording, outcome)),
        _write(f"{prefix}.book.csv", "side,price,qty,orders", levels),
        _write(f"{prefix}.orders.csv", "side,price,rank,id,open_qty", orders),
    ]


def _results(recording: Recording, outcome: Outcome) -> Iterable[tuple[Any, ...]]:
    filled: Counter[int] = Counter()
    for trade in outcome.trades:
        filled[trade.sequence] += trade.quantity
    changes = [sequence for sequence, _ in outcome.best]
    for command, answer in zip(recording.commands, outcome.answers, strict=True):
        sequence = answer.sequence
        done = filled[sequence]
        left = command.quantity - done
        if command.kind in (Kind.CANCEL, Kind.REDUCE):
            status = "CANCEL_REJECT" if answer.rejected else "CANCEL_OK"
            left = outcome.cancelled.get(sequence, 0)
        elif answer.rejected:
            status, left = "REPLACE_REJECT" if command.kind == Kind.REPLACE else "REJECTED", 0
        elif command.kind == Kind.REPLACE:
            status = "REPLACE_RESTING" if left else "REPLACE_FILLED"
        else:
            names = {OrderStatus.OPEN: "RESTING", OrderStatus.FILLED: "FILLED", OrderStatus.CANCELLED: "CANCELLED"}
            status = names[OrderStatus(answer.status)]
        at = bisect_right(changes, sequence)
        best = outcome.best[at - 1][1] if at else (0, 0, 0, 0)
        yield command.number, status, done, left, *best


def _write(name: str, header: str, rows: Iterable[tuple[Any, ...]]) -> Path:
    path = Path(name)
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(header + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)
    return path
