"""A gateway's copy of one shard: every open order and the book that they make, kept from the shard's feed.

NOTE: applying an event costs about 1 us, because a gateway applies the events of every shard. What only some readers
want (the levels that a command touched, executions) is gathered only while somebody is there for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from exchange.engine.events import EventKind
from exchange.engine.instrument import Instrument
from exchange.engine.ladder import Ladder
from exchange.engine.words import OrderStatus, Side, Stage
from exchange.gateway.trades import Tape
from exchange.runtime.feed import EventRow, FeedBatch, ShardDump

_ACCEPTED, _TRADED, _CLOSED, _AMENDED, _STAGE, _INSTRUMENT = (int(kind) for kind in EventKind)
_BUY = int(Side.BUY)
_OPEN, _FILLED, _CANCELLED = int(OrderStatus.OPEN), int(OrderStatus.FILLED), int(OrderStatus.CANCELLED)

Execution = tuple[Any, ...]
"""(sequence, account, type, instrument, client order id, order id, side, status, price, quantity, filled, open,
close reason, trade id, trade price, trade quantity, liquidity, time in ns), numbers as in `trading.proto`."""

_NEW, _TRADE, _AMEND, _CLOSE = 1, 2, 3, 4
_MAKER, _TAKER = 1, 2
_NO_TRADE = (0, 0, 0)

LevelRow = tuple[int, int, int]
"""Price, sum of the open quantities, number of orders."""


class FeedBroken(Exception):
    """A batch does not follow on what the copy holds, or contradicts it: the copy must be loaded anew."""


class OpenOrder:
    """An order of the shard, as far as the feed tells."""

    __slots__ = ("account", "client_order_id", "open", "order_id", "price", "quantity", "side")

    def __init__(
        self, order_id: int, account: int, client_order_id: str, side: int, price: int, quantity: int, open_: int
    ) -> None:
        self.order_id = order_id
        self.account = account
        self.client_order_id = client_order_id
        self.side = side
        self.price = price
        self.quantity = quantity
        self.open = open_


class SideCopy:
    """One side's levels: price to [quantity, orders]. Keys of the ladder are prices for bids, minus prices for asks."""

    __slots__ = ("is_watched", "ladder", "levels", "sign", "touched")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, list[int]] = {}
        self.ladder = Ladder()
        self.is_watched = False
        self.touched: list[int] = []
        """Prices of the levels that the command at hand changed, in order and maybe repeated; only while watched."""

    def add(self, price: int, quantity: int, orders: int) -> None:
        """Add to a level, which comes and goes with its orders."""
        level = self.levels.get(price)
        if level is None:
            self.levels[price] = [quantity, orders]
            self.ladder.add(price * self.sign)
        else:
            level[0] += quantity
            level[1] += orders
            if not level[1]:
                del self.levels[price]
                self.ladder.remove(price * self.sign)
        if self.is_watched:
            self.touched.append(price)

    def row(self, price: int) -> LevelRow:
        """Return the level at a price; quantity 0 if there is none."""
        level = self.levels.get(price)
        return (price, level[0], level[1]) if level is not None else (price, 0, 0)

    def top(self, depth: int) -> list[LevelRow]:
        """Return the best levels, best first, all of them for depth 0."""
        levels = self.levels
        sign = self.sign
        best = []
        for key in self.ladder:
            price = key * sign
            quantity, orders = levels[price]
            best.append((price, quantity, orders))
            if len(best) == depth:
                break
        return best


class BookWatcher(Protocol):
    """Is told of one book, each time after the change."""

    def on_command(self, book: BookCopy) -> None:
        """A command changed levels: those in `touched` of both sides."""

    def on_stage(self) -> None:
        """The shard's stage is another one."""

    def on_load(self) -> None:
        """The whole book was loaded anew."""


class BookCopy:
    """One instrument's book, and its last trades."""

    __slots__ = ("asks", "bids", "instrument", "orders", "sequence", "tape", "time_ns", "watchers")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.bids = SideCopy(1)
        self.asks = SideCopy(-1)
        self.orders: dict[int, OpenOrder] = {}
        """Open orders by id; those of one price in the order of their priority."""
        self.tape = Tape()
        self.sequence = 0
        """Of the last command that did something here, at `time_ns`."""
        self.time_ns = 0
        self.watchers: list[BookWatcher] = []

    def watch(self, watcher: BookWatcher) -> None:
        self.watchers.append(watcher)
        self.bids.is_watched = self.asks.is_watched = True

    def unwatch(self, watcher: BookWatcher) -> None:
        self.watchers.remove(watcher)
        self.bids.is_watched = self.asks.is_watched = bool(self.watchers)

    def end_command(self) -> None:
        """Tell the watchers what the command changed."""
        bids, asks = self.bids.touched, self.asks.touched
        if bids or asks:
            for watcher in self.watchers:
                watcher.on_command(self)
            bids.clear()
            asks.clear()


class ShardReplica:
    """The books of one shard.

    `on_executions`, if set, gets the executions of each batch, in order; `on_instrument` each instrument that is new.
    """

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.books: dict[str, BookCopy] = {}
        self.is_loaded = False
        self.sequence = 0
        self.epoch = 0
        self.time_ns = 0
        self.on_executions: Callable[[list[Execution]], None] | None = None
        self.on_instrument: Callable[[str], None] | None = None
        self._stage = int(Stage.REPLAYING)
        self._away = True
        self._taker: OpenOrder | None = None
        """The order of the command at hand, which rests when the command ends with something left of it."""
        self._taker_book: BookCopy | None = None
        self._changed: dict[str, BookCopy] = {}
        """Watched books that the command at hand changed."""
        self._executions: list[Execution] | None = None

    @property
    def stage(self) -> int:
        """The shard's stage; while it is away, `REPLAYING`."""
        return int(Stage.REPLAYING) if self._away else self._stage

    def set_away(self, away: bool) -> None:
        """Mark the shard as away: its last books stand."""
        self._set_stage(self._stage, away)

    def load(self, dump: ShardDump) -> None:
        """Start from a dump. Watchers of books that were there before stay and are told."""
        self.epoch, self.sequence, self.time_ns = dump.epoch, dump.sequence, dump.time_ns
        self._taker = self._taker_book = None
        self._changed.clear()
        before, self.books = self.books, {}
        for instrument, last_price, trade_id, orders in dump.books:
            book = BookCopy(Instrument(*instrument))
            symbol = book.instrument.symbol
            if symbol in before:
                book.tape = before[symbol].tape
            book.tape.resume(last_price, trade_id)
            for order_id, account, client_order_id, side, price, quantity, open_ in orders:
                book.orders[order_id] = OpenOrder(order_id, account, client_order_id, side, price, quantity, open_)
                (book.bids if side == _BUY else book.asks).add(price, open_, 1)
            book.sequence, book.time_ns = self.sequence, self.time_ns
            self.books[symbol] = book
        self.is_loaded = True
        self._set_stage(dump.stage, self._away)
        for symbol, book in self.books.items():
            if symbol not in before:
                self._tell_instrument(symbol)
                continue
            for watcher in before[symbol].watchers:
                book.watch(watcher)
                watcher.on_load()

    def apply(self, batch: FeedBatch) -> None:
        """Go on with a record's events. What is known already, or of a writer that was fenced, changes nothing.

        Raises:
            FeedBroken: the batch does not follow on the last one, or names an order that is not open.
        """
        if batch.last_sequence <= self.sequence or batch.epoch < self.epoch:
            return
        if batch.first_sequence != self.sequence + 1:
            raise FeedBroken(f"{self.shard}: expected {self.sequence + 1}, was {batch.first_sequence}")
        self.epoch = batch.epoch
        self.time_ns = batch.time_ns
        self._executions = [] if self.on_executions is not None else None
        try:
            self._apply_events(batch.events)
        except KeyError as error:
            # Half a batch cannot be taken back; a copy that is wrong must not go on.
            self.is_loaded = False
            raise FeedBroken(f"{self.shard}: no order or instrument {error} is known") from error
        self.sequence = batch.last_sequence
        if self._executions and self.on_executions is not None:
            self.on_executions(self._executions)

    def _apply_events(self, events: Sequence[EventRow]) -> None:
        sequence = 0
        for row in events:
            if row[1] != sequence:
                self._end_command()
                sequence = row[1]
            kind = row[0]
            if kind == _ACCEPTED:
                self._accepted(row)
            elif kind == _CLOSED:
                self._closed(row)
            elif kind == _TRADED:
                self._traded(row)
            elif kind == _AMENDED:
                self._amended(row)
            elif kind == _STAGE:
                self._set_stage(row[2], self._away)
            elif kind == _INSTRUMENT:
                instrument = Instrument(*row[2])
                if instrument.symbol not in self.books:
                    self.books[instrument.symbol] = BookCopy(instrument)
                    self._book(instrument.symbol, sequence)
                    self._tell_instrument(instrument.symbol)
        self._end_command()

    def _book(self, symbol: str, sequence: int) -> BookCopy:
        book = self.books[symbol]
        book.sequence = sequence
        book.time_ns = self.time_ns
        if book.watchers:
            self._changed[symbol] = book
        return book

    def _accepted(self, row: EventRow) -> None:
        _, sequence, symbol, order_id, account, client_order_id, side, price, quantity = row
        self._taker_book = self._book(symbol, sequence)
        order = self._taker = OpenOrder(order_id, account, client_order_id, side, price, quantity, quantity)
        if self._executions is not None:
            self._report(self._executions, sequence, symbol, order, _NEW, _OPEN)

    def _traded(self, row: EventRow) -> None:
        _, sequence, symbol, trade_id, maker_id, taker_id, price, quantity = row
        book = self._book(symbol, sequence)
        maker, taker = book.orders[maker_id], self._taker
        if taker is None or taker.order_id != taker_id:
            raise KeyError(taker_id)
        maker.open -= quantity
        taker.open -= quantity
        gone = not maker.open
        (book.bids if maker.side == _BUY else book.asks).add(price, -quantity, -1 if gone else 0)
        if gone:
            del book.orders[maker_id]
        book.tape.add(trade_id, price, quantity, taker.side, sequence, self.time_ns)
        executions = self._executions
        if executions is not None:
            trade = (trade_id, price, quantity)
            self._report(
                executions, sequence, symbol, taker, _TRADE, _OPEN if taker.open else _FILLED, 0, trade, _TAKER
            )
            self._report(executions, sequence, symbol, maker, _TRADE, _FILLED if gone else _OPEN, 0, trade, _MAKER)

    def _closed(self, row: EventRow) -> None:
        _, sequence, symbol, order_id, reason, left = row
        book = self._book(symbol, sequence)
        order = self._taker
        if order is not None and order.order_id == order_id:
            self._taker = None
        else:
            order = book.orders.pop(order_id)
            (book.bids if order.side == _BUY else book.asks).add(order.price, -left, -1)
        if self._executions is not None:
            self._report(self._executions, sequence, symbol, order, _CLOSE, _CANCELLED, reason)

    def _amended(self, row: EventRow) -> None:
        _, sequence, symbol, order_id, price, quantity, open_, kept_place = row
        book = self._book(symbol, sequence)
        order = book.orders[order_id]
        side = book.bids if order.side == _BUY else book.asks
        if kept_place:
            side.add(order.price, open_ - order.open, 0)
        else:
            side.add(order.price, -order.open, -1)
            del book.orders[order_id]
            self._taker, self._taker_book = order, book
        order.price, order.quantity, order.open = price, quantity, open_
        if self._executions is not None:
            self._report(self._executions, sequence, symbol, order, _AMEND, _OPEN)

    def _end_command(self) -> None:
        """Rest what is left of the command's order, and tell the watchers."""
        order = self._taker
        if order is not None:
            book = self._taker_book
            if order.open and book is not None:
                book.orders[order.order_id] = order
                (book.bids if order.side == _BUY else book.asks).add(order.price, order.open, 1)
            self._taker = None
        if self._changed:
            for book in self._changed.values():
                book.end_command()
            self._changed.clear()

    def _set_stage(self, stage: int, away: bool) -> None:
        before = self.stage
        self._stage, self._away = stage, away
        if self.stage != before:
            for book in self.books.values():
                for watcher in book.watchers:
                    watcher.on_stage()

    def _tell_instrument(self, symbol: str) -> None:
        if self.on_instrument is not None:
            self.on_instrument(symbol)

    def _report(
        self,
        executions: list[Execution],
        sequence: int,
        symbol: str,
        order: OpenOrder,
        kind: int,
        status: int,
        close_reason: int = 0,
        trade: tuple[int, int, int] = _NO_TRADE,
        liquidity: int = 0,
    ) -> None:
        quantity, open_ = order.quantity, order.open
        executions.append(
            (
                sequence,
                order.account,
                kind,
                symbol,
                order.client_order_id,
                order.order_id,
                order.side,
                status,
                order.price,
                quantity,
                quantity - open_,
                open_ if status == _OPEN else 0,
                close_reason,
                *trade,
                liquidity,
                self.time_ns,
            )
        )
