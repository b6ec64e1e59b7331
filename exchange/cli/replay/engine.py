"""`--engine`: a recording straight through the shard machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from exchange.cli.replay.outcome import Answer, Best, LevelRow, OrderRow, Outcome, TradeRow
from exchange.cli.replay.recording import Recording, ReplayCommand
from exchange.cli.replay.translate import Translator
from exchange.engine.book import Book
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.events import Event, OrderClosed, OrderTraded, event_of
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Side, Stage
from exchange.runtime.hosted_shard import new_shard

SYMBOL = "REPLAY-FLOW"
OPEN_ORDERS_MAX = 1_000_000
RICH = 10**60
"""So much of each asset that no order of a recording waits for money."""
_COMMANDS_PER_PROGRESS = 1_000


def replay_engine(
    recording: Recording,
    pace: Callable[[ReplayCommand], None],
    progress: Callable[[int], None],
    symbol: str = SYMBOL,
) -> Outcome:
    """Enter a recording, each command as a batch of its own, because the best prices after each are wanted.

    `pace` waits until a command is due.
    """
    scales = recording.price_scale, recording.quantity_scale, recording.price_scale + recording.quantity_scale
    shard = open_shard(Instrument(symbol, "REPLAY", "FLOW", *scales, max_open_orders=OPEN_ORDERS_MAX))
    book = shard.books[symbol]
    translate = Translator(symbol)
    outcome = Outcome(symbol)
    names: dict[int, str] = {}
    best: Best | None = None
    clock = time.perf_counter
    started_s = clock()
    for index, command in enumerate(recording.commands):
        pace(command)
        translated = translate(command)
        entered_s = clock()
        (result,), events = shard.apply(max(command.time_ns, 1), [translated])
        outcome.latencies_ms.append((clock() - entered_s) * 1_000)
        if result.order_id:
            names[result.order_id] = command.order
        outcome.answers.append(Answer(result.sequence, result.status, bool(result.reject_reason)))
        for row in events:
            _note(event_of(row), outcome, names, command.order)
        now = _best(book)
        if now != best:
            best = now
            outcome.best.append((result.sequence, now))
        if index % _COMMANDS_PER_PROGRESS == 0:
            progress(index)
    outcome.seconds = clock() - started_s
    progress(len(recording.commands))
    _read_end_state(book, outcome)
    shard.validate()
    return outcome


def open_shard(instrument: Instrument) -> Shard:
    """Return a shard that is open for trading in an instrument, and whose accounts are rich."""
    shard = new_shard()
    shard.apply(1, [AddInstrument(instrument), SetStage(int(Stage.OPEN))])
    for account in Translator.ACCOUNTS:
        for asset in (instrument.base_asset, instrument.quote_asset):
            shard.funds.endow(account, asset, RICH)
    return shard


def _note(event: Event, outcome: Outcome, names: dict[int, str], taker: str) -> None:
    if isinstance(event, OrderTraded):
        row = TradeRow(event.sequence, taker, names[event.maker_order_id], event.price, event.quantity)
        outcome.trades.append(row)
    elif isinstance(event, OrderClosed):
        outcome.cancelled[event.sequence] = event.quantity


def _best(book: Book) -> Best:
    bid, ask = book.bids.best, book.asks.best
    return (
        *((bid.price, bid.quantity) if bid is not None else (0, 0)),
        *((ask.price, ask.quantity) if ask is not None else (0, 0)),
    )


def _read_end_state(book: Book, outcome: Outcome) -> None:
    outcome.orders = [
        OrderRow(o.request.side, o.price, o.priority, o.request.client_order_id, o.open) for o in book.orders()
    ]
    for side, levels in ((Side.BUY, book.bids), (Side.SELL, book.asks)):
        outcome.levels += [LevelRow(int(side), level.price, level.quantity, sum(1 for _ in level)) for level in levels]
