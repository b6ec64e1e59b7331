"""A gateway's copy of one shard: every open order and the book that they make, kept from the shard's feed.

NOTE: applying an event costs about 1 us, because a gateway applies the events of every shard. What only some readers
want (the levels that a command touched, executions) is gathered only while somebody is there for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from exchange.engine.events import EventKind, OrderAccepted, ParkedResolved
from exchange.engine.instrument import Instrument
from exchange.engine.ladder import Ladder
from exchange.engine.stages import StageRow, is_stricter
from exchange.engine.words import Side, Stage
from exchange.gateway.execution_rows import ExecutionBatch, has_executions
from exchange.gateway.trades import Tape
from exchange.runtime.feed import EventRow, FeedBatch, ShardDump

_ACCEPTED: Final = int(EventKind.ACCEPTED)
_TRADED: Final = int(EventKind.TRADED)
_CLOSED: Final = int(EventKind.CLOSED)
_AMENDED: Final = int(EventKind.AMENDED)
_STAGE: Final = int(EventKind.STAGE)
_INSTRUMENT: Final = int(EventKind.INSTRUMENT)
_RESOLVED: Final = int(EventKind.RESOLVED)
_BUY: Final = int(Side.BUY)
_AWAY: Final = StageRow("", int(Stage.REPLAYING), 0, "the shard is away", 0, 0)
_OPEN: Final = StageRow("", int(Stage.OPEN), 0, "", 0, 0)

LevelRow = tuple[int, int, int]
"""Price, sum of the open quantities, number of orders."""


class FeedBroken(Exception):
    """A batch does not follow on what the copy holds, or contradicts it: the copy must be loaded anew."""


class OpenOrder:
    """An order of the shard, as far as the feed tells: what is `open` of it, and its `terms`, a row of `OrderAccepted`.

    Terms are kept as they came, because most orders are in and out before anybody looks at them. An amended order gets
    new ones.
    """

    __slots__ = ("open", "terms")

    def __init__(self, terms: EventRow, open_: int) -> None:
        self.terms = terms
        self.open = open_

    @property
    def named(self) -> OrderAccepted:
        """The terms with names."""
        return OrderAccepted._make(self.terms)


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


def all_loaded(replicas: Mapping[str, ShardReplica]) -> bool:
    """Whether the copies have every instrument that there is: else one that is in none of them may exist."""
    return all(replica.is_loaded for replica in replicas.values())


class BookWatcher(Protocol):
    """Is told of one book, each time after the change."""

    def on_command(self, book: BookCopy) -> None:
        """A command changed levels: those in `touched` of both sides."""

    def on_stage(self) -> None:
        """The stage that holds for the book is another one, or what is told of it."""

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

    `on_executions`, if set, gets the executions of each batch, in order; `on_instrument` each instrument that is new,
    `on_resolved` what became of a command that has waited for money.
    """

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.books: dict[str, BookCopy] = {}
        self.is_loaded = False
        self.sequence = 0
        self.epoch = 0
        self.time_ns = 0
        self.on_executions: Callable[[ExecutionBatch], None] | None = None
        self.on_instrument: Callable[[str], None] | None = None
        self.on_resolved: Callable[[ParkedResolved], None] | None = None
        self._stages: dict[str, StageRow] = {"": _AWAY}
        """By instrument, "" for the whole shard."""
        self._away = True
        self._changed: dict[str, BookCopy] = {}
        """Watched books that the command at hand changed."""
        self._notes: list[Any] = []
        """What `ExecutionBatch` needs beside the events at hand."""

    @property
    def stage(self) -> int:
        """The stage of the whole shard; while it is away, `REPLAYING`."""
        return self.stage_of("").stage

    def stage_of(self, symbol: str) -> StageRow:
        """Return the stage that holds for an instrument: its own or the shard's, whichever is stricter."""
        if self._away:
            return _AWAY
        whole, own = self._stages[""], self._stages.get(symbol, _OPEN)
        return own if is_stricter(own.stage, whole.stage) else whole

    def set_away(self, away: bool) -> None:
        """Mark the shard as away: its last books stand."""
        self._set_stages(self._stages, away)

    def load(self, dump: ShardDump) -> None:
        """Start from a dump. Watchers of books that were there before stay and are told."""
        self.epoch, self.sequence, self.time_ns = dump.epoch, dump.sequence, dump.time_ns
        self._changed.clear()
        before, self.books = self.books, {}
        for instrument, last_price, trade_id, orders in dump.books:
            book = BookCopy(Instrument(*instrument))
            symbol = book.instrument.symbol
            if symbol in before:
                book.tape = before[symbol].tape
            book.tape.resume(last_price, trade_id)
            for order_id, account, client_order_id, side, price, quantity, open_ in orders:
                terms = (_ACCEPTED, order_id, symbol, order_id, account, client_order_id, side, price, quantity)
                book.orders[order_id] = OpenOrder(terms, open_)
                (book.bids if side == _BUY else book.asks).add(price, open_, 1)
            book.sequence, book.time_ns = self.sequence, self.time_ns
            self.books[symbol] = book
        self.is_loaded = True
        self._set_stages({row.instrument: row for row in dump.stages}, self._away)
        for symbol, book in self.books.items():
            if symbol not in before:
                self._tell_instrument(symbol)
                continue
            for watcher in before[symbol].watchers:
                book.watch(watcher)
                watcher.on_load()

    def apply(self, batch: FeedBatch, data: bytes = b"") -> None:
        """Go on with a record's events. What is known already, or of a writer that was fenced, changes nothing.

        `data` is the batch as it came, if there is no need to pack it again.

        Raises:
            FeedBroken: the batch does not follow on the last one, or names an order that is not open.
        """
        if batch.last_sequence <= self.sequence or batch.epoch < self.epoch:
            return
        if batch.first_sequence != self.sequence + 1:
            raise FeedBroken(f"{self.shard}: expected {self.sequence + 1}, was {batch.first_sequence}")
        self.epoch = batch.epoch
        self.time_ns = batch.time_ns
        self._notes = []
        try:
            self._apply_events(batch.events)
        except KeyError as error:
            # Half a batch cannot be taken back; a copy that is wrong must not go on.
            self.is_loaded = False
            raise FeedBroken(f"{self.shard}: no order or instrument {error} is known") from error
        self.sequence = batch.last_sequence
        if self.on_executions is not None and has_executions(batch.events):
            self.on_executions(ExecutionBatch(batch, data, self._notes))

    def _apply_events(self, events: Sequence[EventRow]) -> None:
        books, time_ns, changed = self.books, self.time_ns, self._changed
        note = self._notes.append
        sequence = 0
        # The order of the command at hand: what is left of it when the command ends rests in the book.
        taker: OpenOrder | None = None
        for row in events:
            # Once known to be integers and texts, they are compared as such where this is compiled.
            kind: int = row[0]
            row_sequence: int = row[1]
            if row_sequence != sequence:
                if taker is not None:
                    self._rest(taker)
                    taker = None
                if changed:
                    self._tell_watchers()
                sequence = row_sequence
            if kind > _AMENDED:
                self._apply_rare(row)
                continue
            symbol: str = row[2]
            book = books[symbol]
            book.sequence, book.time_ns = sequence, time_ns
            if book.watchers:
                changed[symbol] = book
            if kind == _ACCEPTED:
                if taker is not None:
                    # A command may let several orders in that have waited for money.
                    self._rest(taker)
                taker = OpenOrder(row, row[8])
            elif kind == _CLOSED:
                order_id: int = row[3]
                if taker is not None and taker.terms[3] == order_id:
                    note(taker.terms)
                    taker = None
                else:
                    terms = book.orders.pop(order_id).terms
                    left: int = row[5]
                    side: int = terms[6]
                    (book.bids if side == _BUY else book.asks).add(terms[7], -left, -1)
                    note(terms)
            elif kind == _TRADED:
                note(_trade(book, taker, row, time_ns))
            else:
                if taker is not None:
                    self._rest(taker)
                    taker = None
                order, keeps_place = _amend(book, row)
                if not keeps_place:
                    taker = order
                note(order.terms)
        if taker is not None:
            self._rest(taker)
        if changed:
            self._tell_watchers()

    def _apply_rare(self, row: EventRow) -> None:
        """Apply what is not about an order."""
        if row[0] == _STAGE:
            stage = StageRow._make(row[2:])
            self._set_stages({**self._stages, stage.instrument: stage}, self._away)
        elif row[0] == _INSTRUMENT:
            instrument = Instrument(*row[2])
            symbol = instrument.symbol
            if symbol not in self.books:
                book = self.books[symbol] = BookCopy(instrument)
                book.sequence, book.time_ns = row[1], self.time_ns
                self._tell_instrument(symbol)
        elif row[0] == _RESOLVED and self.on_resolved is not None:
            self.on_resolved(ParkedResolved._make(row))

    def _rest(self, order: OpenOrder) -> None:
        if order.open:
            terms = order.terms
            book = self.books[terms[2]]
            book.orders[terms[3]] = order
            side: int = terms[6]
            (book.bids if side == _BUY else book.asks).add(terms[7], order.open, 1)

    def _tell_watchers(self) -> None:
        for book in self._changed.values():
            book.end_command()
        self._changed.clear()

    def _set_stages(self, stages: dict[str, StageRow], away: bool) -> None:
        before = {symbol: self.stage_of(symbol) for symbol in self.books}
        self._stages, self._away = stages, away
        for symbol, book in self.books.items():
            if self.stage_of(symbol) != before[symbol]:
                for watcher in book.watchers:
                    watcher.on_stage()

    def _tell_instrument(self, symbol: str) -> None:
        if self.on_instrument is not None:
            self.on_instrument(symbol)


def _trade(book: BookCopy, taker: OpenOrder | None, row: EventRow, time_ns: int) -> tuple[Any, ...]:
    """Apply a trade; return what is noted of it."""
    sequence: int
    trade_id: int
    maker_id: int
    taker_id: int
    price: int
    quantity: int
    _, sequence, _, trade_id, maker_id, taker_id, price, quantity, _, _ = row
    maker = book.orders[maker_id]
    if taker is None or taker.terms[3] != taker_id:
        raise KeyError(taker_id)
    maker.open = maker_open = maker.open - quantity
    taker.open = taker_open = taker.open - quantity
    taker_side: int = taker.terms[6]
    # The maker's side is the other one.
    (book.asks if taker_side == _BUY else book.bids).add(price, -quantity, 0 if maker_open else -1)
    if not maker_open:
        del book.orders[maker_id]
    book.tape.add(trade_id, price, quantity, taker_side, sequence, time_ns)
    return taker.terms, taker_open, maker.terms, maker_open


def _amend(book: BookCopy, row: EventRow) -> tuple[OpenOrder, bool]:
    """Give an order new terms; return it, and whether it keeps its place rather than leave the book."""
    _, _, _, order_id, price, quantity, open_, kept_place = row
    order = book.orders[order_id]
    *what, price_before, _ = order.terms
    side = book.bids if order.terms[6] == _BUY else book.asks
    if kept_place:
        side.add(price_before, open_ - order.open, 0)
    else:
        side.add(price_before, -order.open, -1)
        del book.orders[order_id]
    order.terms, order.open = (*what, price, quantity), open_
    return order, kept_place
