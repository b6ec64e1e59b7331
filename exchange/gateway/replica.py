"""A gateway's copy of one shard: every open order and the book that they make, kept from the shard's feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exchange.engine.events import EventKind
from exchange.engine.instrument import Instrument
from exchange.engine.ladder import Ladder
from exchange.engine.words import Side, Stage
from exchange.gateway.candles import Tape
from exchange.runtime.feed import FeedBatch, ShardDump

_ACCEPTED, _TRADED, _CLOSED, _AMENDED, _STAGE, _INSTRUMENT = (int(kind) for kind in EventKind)
_BUY = int(Side.BUY)

Execution = tuple[Any, ...]
"""(sequence, account, type, instrument, client order id, order id, side, status, price, quantity, filled, open,
close reason, trade id, trade price, trade quantity, liquidity, time in ns), numbers as in `trading.proto`."""

_NEW, _TRADE, _AMEND, _CLOSE = 1, 2, 3, 4
_MAKER, _TAKER = 1, 2
_OPEN, _FILLED, _CANCELLED = 1, 2, 3


class FeedBroken(Exception):
    """A batch does not follow on what the copy holds; it must be loaded anew."""


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

    __slots__ = ("ladder", "levels", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, list[int]] = {}
        self.ladder = Ladder()

    def add(self, price: int, quantity: int, orders: int) -> None:
        level = self.levels.get(price)
        if level is None:
            self.levels[price] = [quantity, orders]
            self.ladder.add(price * self.sign)
            return
        level[0] += quantity
        level[1] += orders
        if not level[1]:
            del self.levels[price]
            self.ladder.remove(price * self.sign)

    def top(self, depth: int) -> list[tuple[int, int, int]]:
        """Return (price, quantity, orders) of the best levels, all of them for depth 0."""
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


class BookCopy:
    """One instrument's book. `watchers` are told of each command that changed it, after the change."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.bids = SideCopy(1)
        self.asks = SideCopy(-1)
        self.orders: dict[int, OpenOrder] = {}
        self.tape = Tape()
        self.sequence = 0
        self.time_ns = 0
        self.touched: set[tuple[int, int]] = set()
        """Levels (side, price) that the current command changed."""
        self.watchers: list[Callable[[BookCopy], None]] = []

    def add_level(self, order: OpenOrder, quantity: int, orders: int) -> None:
        (self.bids if order.side == _BUY else self.asks).add(order.price, quantity, orders)
        self.touched.add((order.side, order.price))


class ShardReplica:
    """The books of one shard. `on_execution` and `on_trades`, if set, are told in order."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.books: dict[str, BookCopy] = {}
        self.is_loaded = False
        self.sequence = 0
        self.epoch = 0
        self.time_ns = 0
        self.on_execution: Callable[[Execution], None] | None = None
        self._stage = int(Stage.REPLAYING)
        self._away = True
        self._taker: OpenOrder | None = None
        self._taker_book: BookCopy | None = None
        self._changed: dict[str, BookCopy] = {}

    @property
    def stage(self) -> int:
        """The shard's stage; while it is away, `REPLAYING`."""
        return int(Stage.REPLAYING) if self._away else self._stage

    def set_away(self, away: bool) -> None:
        """Mark the shard as away: its last books stand."""
        self._away = away

    def load(self, dump: ShardDump) -> None:
        """Start from a dump. Watchers of books that were there before stay and are told."""
        self.epoch, self.sequence, self.time_ns, self._stage = dump.epoch, dump.sequence, dump.time_ns, dump.stage
        before, self.books = self.books, {}
        for instrument, last_price, trade_id, orders in dump.books:
            book = BookCopy(Instrument(*instrument))
            symbol = book.instrument.symbol
            if symbol in before:
                book.watchers, book.tape = before[symbol].watchers, before[symbol].tape
            book.tape.resume(last_price, trade_id)
            for order_id, account, client_order_id, side, price, quantity, open_ in orders:
                order = OpenOrder(order_id, account, client_order_id, side, price, quantity, open_)
                book.orders[order_id] = order
                book.add_level(order, open_, 1)
            book.sequence, book.time_ns = self.sequence, self.time_ns
            book.touched.clear()
            self.books[symbol] = book
        self.is_loaded = True
        for book in self.books.values():
            for watcher in book.watchers:
                watcher(book)

    def apply(self, batch: FeedBatch) -> None:
        """Go on with a record's events. One that is known already changes nothing.

        Raises:
            FeedBroken: the batch does not follow on the last one.
        """
        if batch.last_sequence <= self.sequence:
            return
        if batch.first_sequence != self.sequence + 1:
            raise FeedBroken(f"{self.shard}: expected {self.sequence + 1}, was {batch.first_sequence}")
        self.epoch = max(self.epoch, batch.epoch)
        self.time_ns = batch.time_ns
        sequence = 0
        for row in batch.events:
            if row[1] != sequence:
                if sequence:
                    self._end_command(sequence)
                sequence = row[1]
            kind = row[0]
            if kind == _ACCEPTED:
                self._accepted(row)
            elif kind == _TRADED:
                self._traded(row)
            elif kind == _CLOSED:
                self._closed(row)
            elif kind == _AMENDED:
                self._amended(row)
            elif kind == _STAGE:
                self._stage = row[2]
            elif kind == _INSTRUMENT:
                instrument = Instrument(*row[2])
                self.books[instrument.symbol] = BookCopy(instrument)
        if sequence:
            self._end_command(sequence)
        self.sequence = batch.last_sequence

    def _accepted(self, row: tuple[Any, ...]) -> None:
        _, sequence, symbol, order_id, account, client_order_id, side, price, quantity = row
        book = self._changed[symbol] = self.books[symbol]
        order = self._taker = OpenOrder(order_id, account, client_order_id, side, price, quantity, quantity)
        self._taker_book = book
        self._report(sequence, symbol, order, _NEW, _OPEN)

    def _traded(self, row: tuple[Any, ...]) -> None:
        _, sequence, symbol, trade_id, maker_id, _, price, quantity = row
        book = self._changed[symbol] = self.books[symbol]
        maker, taker = book.orders[maker_id], self._taker
        assert taker is not None
        maker.open -= quantity
        taker.open -= quantity
        gone = not maker.open
        book.add_level(maker, -quantity, -1 if gone else 0)
        if gone:
            del book.orders[maker_id]
        book.tape.add(trade_id, price, quantity, taker.side, sequence, self.time_ns)
        trade = (trade_id, price, quantity)
        self._report(sequence, symbol, taker, _TRADE, _OPEN if taker.open else _FILLED, 0, trade, _TAKER)
        self._report(sequence, symbol, maker, _TRADE, _FILLED if gone else _OPEN, 0, trade, _MAKER)

    def _closed(self, row: tuple[Any, ...]) -> None:
        _, sequence, symbol, order_id, reason, left = row
        book = self._changed[symbol] = self.books[symbol]
        order = self._taker
        if order is not None and order.order_id == order_id:
            self._taker = None
        else:
            order = book.orders.pop(order_id)
            book.add_level(order, -left, -1)
        self._report(sequence, symbol, order, _CLOSE, _CANCELLED, reason)

    def _amended(self, row: tuple[Any, ...]) -> None:
        _, sequence, symbol, order_id, price, quantity, open_, kept_place = row
        book = self._changed[symbol] = self.books[symbol]
        order = book.orders[order_id]
        if kept_place:
            book.add_level(order, open_ - order.open, 0)
        else:
            book.add_level(order, -order.open, -1)
            del book.orders[order_id]
            self._taker, self._taker_book = order, book
        order.price, order.quantity, order.open = price, quantity, open_
        self._report(sequence, symbol, order, _AMEND, _OPEN)

    def _end_command(self, sequence: int) -> None:
        """Rest what is left of the command's order, and tell the watchers."""
        order, book = self._taker, self._taker_book
        if order is not None and order.open:
            assert book is not None
            book.orders[order.order_id] = order
            book.add_level(order, order.open, 1)
        self._taker = self._taker_book = None
        for book in self._changed.values():
            book.sequence, book.time_ns = sequence, self.time_ns
            for watcher in book.watchers:
                watcher(book)
            book.touched.clear()
        self._changed.clear()

    def _report(
        self,
        sequence: int,
        symbol: str,
        order: OpenOrder,
        kind: int,
        status: int,
        close_reason: int = 0,
        trade: tuple[int, int, int] = (0, 0, 0),
        liquidity: int = 0,
    ) -> None:
        if self.on_execution is None:
            return
        self.on_execution(
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
                order.quantity,
                order.quantity - order.open,
                order.open if status == _OPEN else 0,
                close_reason,
                *trade,
                liquidity,
                self.time_ns,
            )
        )
