"""The resting orders of one instrument, in price-time priority."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from exchange.engine.instrument import Instrument
from exchange.engine.ladder import Ladder
from exchange.engine.orders import Order
from exchange.engine.words import Side

_BUY = int(Side.BUY)


class Level:
    """The orders at one price: a queue linked through the orders themselves, so that any of them leaves in O(1).

    `key` is the price for bids and minus the price for asks, so that the highest key is the best. Neither `first`
    nor `last` is ever None while the level is in its side's table.
    """

    __slots__ = ("first", "key", "last", "price", "quantity", "side")

    def __init__(self, side: BookSide, key: int, order: Order) -> None:
        self.side = side
        self.key = key
        self.price = order.price
        self.quantity = order.open
        self.first = self.last = order

    def __iter__(self) -> Iterator[Order]:
        order: Order | None = self.first
        while order is not None:
            yield order
            order = order.next

    @property
    def orders(self) -> int:
        """How many orders rest here; counted, as matching does not need it."""
        return sum(1 for _ in self)


class BookSide:
    """One side's levels by key."""

    __slots__ = ("best", "ladder", "levels", "sign", "symbol")

    best: Level | None

    def __init__(self, symbol: str, sign: int) -> None:
        self.symbol = symbol
        self.sign = sign
        self.levels: dict[int, Level] = {}
        self.ladder = Ladder()
        self.best = None

    def __iter__(self) -> Iterator[Level]:
        """Iterate over the levels, best first."""
        levels = self.levels
        for key in self.ladder:
            yield levels[key]

    def append(self, order: Order) -> None:
        """Put an order at the back of the queue at its price."""
        key = order.price * self.sign
        level = self.levels.get(key)
        if level is None:
            order.level = level = self.levels[key] = Level(self, key, order)
            self.ladder.add(key)
            best = self.best
            if best is None or key > best.key:
                self.best = level
            return
        last = level.last
        order.previous = last
        last.next = level.last = order
        level.quantity += order.open
        order.level = level

    def remove(self, order: Order, level: Level) -> None:
        """Take an order out of its queue, and its level with it if it was the last one there."""
        order.level = None
        before, after = order.previous, order.next
        if before is None:
            if after is None:
                self.drop(level)
                return
            level.first = after
        else:
            before.next = after
            order.previous = None
        if after is None:
            assert before is not None
            level.last = before
        else:
            after.previous = before
            order.next = None
        level.quantity -= order.open

    def drop(self, level: Level) -> None:
        """Take a level out whose last order has left."""
        levels = self.levels
        del levels[level.key]
        if level is not self.best:
            self.ladder.remove(level.key)
        else:
            self.ladder.remove_highest()
            self.best = levels[self.ladder.highest()] if levels else None


class Book:
    """Both sides of an instrument, what its accounts have open in it, and its last trade."""

    __slots__ = (
        "_band",
        "_band_reference",
        "asks",
        "bids",
        "instrument",
        "last_price",
        "limits",
        "open_orders",
        "trade_id",
    )

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.limits = (
            instrument.tick_size,
            instrument.lot_size,
            instrument.min_quantity,
            instrument.max_quantity,
            instrument.band_bps,
            instrument.max_open_orders,
        )
        """What every order is checked against."""
        self.bids = BookSide(instrument.symbol, 1)
        self.asks = BookSide(instrument.symbol, -1)
        self._band = instrument.band(0)
        self._band_reference = 0
        self.last_price = 0
        self.trade_id = 0
        self.open_orders: defaultdict[int, dict[int, Order]] = defaultdict(dict)
        """Open orders by account and order id, in the order in which they came to rest."""

    def band(self) -> tuple[int, int]:
        """Return the lowest price for a sell and the highest for a buy now."""
        reference = self.last_price or self.instrument.reference_price
        if reference != self._band_reference:
            self._band_reference = reference
            self._band = self.instrument.band(reference)
        return self._band

    def side_of(self, order: Order) -> BookSide:
        return self.bids if order.request.side == _BUY else self.asks

    def orders(self) -> Iterator[Order]:
        """Iterate over all resting orders in priority order, bids before asks."""
        for side in (self.bids, self.asks):
            for level in side:
                yield from level

    def validate(self) -> None:
        """Check what must hold between commands; AssertionError says what does not."""
        bid, ask = self.bids.best, self.asks.best
        assert bid is None or ask is None or bid.price < ask.price, f"{self.instrument.symbol}: book is crossed"
        indexed = {i: order for orders in self.open_orders.values() for i, order in orders.items()}
        resting = 0
        for side, wire_side in ((self.bids, Side.BUY), (self.asks, Side.SELL)):
            assert len(side.ladder) == len(side.levels)
            assert side.best is next(iter(side), None), "best level is not the first one"
            for level in side:
                priority = quantity = count = 0
                assert level.side is side
                assert level.key == level.price * side.sign
                before: Order | None = None
                for order in level:
                    assert order.previous is before, f"{order.describe()}: broken links"
                    assert order.level is level, f"{order.describe()}: knows another level than the one it is in"
                    assert (order.request.side, order.price) == (wire_side, level.price)
                    assert 0 < order.open <= order.quantity, f"{order.describe()}: open {order.open}"
                    assert order.priority > priority, f"{order.describe()}: out of time priority"
                    assert indexed.get(order.order_id) is order, f"{order.describe()}: rests without an index entry"
                    priority, before = order.priority, order
                    quantity += order.open
                    count += 1
                assert level.last is before
                assert count, f"level {level.price}: empty"
                assert quantity == level.quantity, f"level {level.price}: holds {quantity}, says {level.quantity}"
                resting += count
        assert resting == len(indexed), f"{len(indexed)} orders indexed, {resting} resting"
