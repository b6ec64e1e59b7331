"""The resting orders of one instrument, in price-time priority."""

from __future__ import annotations

from collections.abc import Iterator

from exchange.engine.instrument import Instrument
from exchange.engine.ladder import Ladder
from exchange.engine.orders import Order
from exchange.engine.words import Side

_BUY = int(Side.BUY)


class Level:
    """The orders at one price: a queue linked through the orders themselves, so that any of them leaves in O(1)."""

    __slots__ = ("first", "last", "orders", "price", "quantity")

    first: Order | None
    last: Order | None

    def __init__(self, price: int) -> None:
        self.price = price
        self.quantity = 0
        self.orders = 0
        self.first = self.last = None

    def __iter__(self) -> Iterator[Order]:
        order = self.first
        while order is not None:
            yield order
            order = order.next


class BookSide:
    """One side's levels by key: the price for bids, minus the price for asks, so that the highest key is the best."""

    __slots__ = ("best", "ladder", "levels", "sign")

    best: Level | None

    def __init__(self, sign: int) -> None:
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
            level = self.levels[key] = Level(order.price)
            self.ladder.add(key)
            best = self.best
            if best is None or key > best.price * self.sign:
                self.best = level
            level.first = order
        else:
            last = level.last
            order.previous = last
            last.next = order  # type: ignore[union-attr]  # a level in the table is never empty
        level.last = order
        level.quantity += order.open
        level.orders += 1
        order.level = level

    def remove(self, order: Order) -> None:
        """Take an order out of its queue, and its level with it if it was the last one there."""
        level = order.level
        assert level is not None
        order.level = None
        if level.orders == 1:
            level.first = level.last = None
            self._drop(level)
            return
        level.orders -= 1
        level.quantity -= order.open
        before, after = order.previous, order.next
        if before is None:
            level.first = after
        else:
            before.next = after
            order.previous = None
        if after is None:
            level.last = before
        else:
            after.previous = before
            order.next = None

    def _drop(self, level: Level) -> None:
        key = level.price * self.sign
        del self.levels[key]
        self.ladder.remove(key)
        if level is self.best:
            self.best = self.levels[self.ladder.highest()] if self.ladder else None


class Book:
    """Both sides of an instrument, what its accounts have open in it, and its last trade."""

    __slots__ = ("_band", "_band_reference", "asks", "bids", "instrument", "last_price", "open_orders", "trade_id")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.bids = BookSide(1)
        self.asks = BookSide(-1)
        self._band = instrument.band(0)
        self._band_reference = 0
        self.last_price = 0
        self.trade_id = 0
        self.open_orders: dict[int, dict[int, Order]] = {}
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
                before: Order | None = None
                for order in level:
                    assert order.previous is before and order.level is level, f"{order.describe()}: broken links"
                    assert order.request.side == wire_side and order.price == level.price
                    assert 0 < order.open <= order.quantity, f"{order.describe()}: open {order.open}"
                    assert order.priority > priority, f"{order.describe()}: out of time priority"
                    assert indexed.get(order.order_id) is order, f"{order.describe()}: rests without an index entry"
                    priority, before = order.priority, order
                    quantity += order.open
                    count += 1
                assert level.last is before
                assert (quantity, count) == (level.quantity, level.orders) and count, f"level {level.price}: totals"
                resting += count
        assert resting == len(indexed), f"{len(indexed)} orders indexed, {resting} resting"
