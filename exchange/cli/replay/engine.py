"""`--engine`: a recording straight through the shard machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from exchange.cli.replay.outcome import Answer, Best, OrderRow, Outcome, TradeRow
from exchange.cli.replay.recording import Kind, Recording, ReplayCommand
from exchange.engine.book import Book
from exchange.engine.commands import AddInstrument, AmendOrder, CancelOrder, PlaceOrder, SetStage
from exchange.engine.events import EventKind
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Side, Stage

SYMBOL = "REPLAY-FLOW"


def replay_engine(
    recording: Recording, pace: Callable[[ReplayCommand], None], progress: Callable[[int], None]
) -> Outcome:
    """Enter a recording command by command; `pace` waits until a command is due."""
    shard = Shard()
    scale = recording.price_scale + recording.quantity_scale
    instrument = Instrument(
        SYMBOL, "REPLAY", "FLOW", recording.price_scale, recording.quantity_scale, scale, max_open_orders=1_000_000
    )
    shard.apply(1, [AddInstrument(instrument), SetStage(int(Stage.OPEN))])
    book = shard.books[SYMBOL]
    outcome = Outcome()
    names: dict[int, str] = {}
    sides: dict[str, int] = {}
    started_s = time.perf_counter()
    for index, command in enumerate(recording.commands):
        pace(command)
        # Buys and sells under two accounts, so that self-trade prevention has no part in it.
        side = sides.setdefault(command.order, command.side or int(Side.BUY))
        (result,), events = shard.apply(max(command.time_ns, 1), [_command(command, side, shard)])
        if result.order_id:
            names[result.order_id] = command.order
        outcome.answers.append(Answer(result.sequence, result.status, bool(result.reject_reason)))
        for event in events:
            _note(event, outcome, names, command.order)
        best = _best(book)
        if not outcome.best or outcome.best[-1][1] != best:
            outcome.best.append((result.sequence, best))
        if index % 1_000 == 0:
            progress(index)
    outcome.seconds = time.perf_counter() - started_s
    outcome.orders = [
        OrderRow(o.request.side, o.price, o.priority, o.request.client_order_id, o.open) for o in book.orders()
    ]
    for number, book_side in ((1, book.bids), (2, book.asks)):
        outcome.levels += [(number, level.price, level.quantity, level.orders) for level in book_side]
    shard.validate()
    return outcome


def _command(command: ReplayCommand, account: int, shard: Shard) -> Any:
    match command.kind:
        case Kind.NEW | Kind.MARKET:
            kind = 1 if command.kind == Kind.NEW else 2
            return PlaceOrder(
                account,
                command.order,
                SYMBOL,
                command.side,
                kind,
                command.time_in_force,
                command.price,
                command.quantity,
            )
        case Kind.CANCEL:
            return CancelOrder(account, SYMBOL, command.order)
        case Kind.REPLACE:
            return AmendOrder(
                account, SYMBOL, command.order, 0, command.price, 0, open_quantity=command.quantity, requeue=True
            )
        case Kind.REDUCE:
            order = shard.find(account, SYMBOL, command.order, 0)
            left = order.open - command.quantity if order is not None else 0
            if left <= 0:
                return CancelOrder(account, SYMBOL, command.order)
            return AmendOrder(account, SYMBOL, command.order, 0, 0, 0, open_quantity=left)


def _note(event: Any, outcome: Outcome, names: dict[int, str], taker: str) -> None:
    if event.kind == EventKind.TRADED:
        row = TradeRow(event.sequence, taker, names[event.maker_order_id], event.price, event.quantity)
        outcome.trades.append(row)
    elif event.kind == EventKind.CLOSED:
        outcome.cancelled[event.sequence] = event.quantity


def _best(book: Book) -> Best:
    bid, ask = book.bids.best, book.asks.best
    return (
        *((bid.price, bid.quantity) if bid is not None else (0, 0)),
        *((ask.price, ask.quantity) if ask is not None else (0, 0)),
    )
