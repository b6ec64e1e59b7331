"""The resting orders of one instrument, in price-time priority."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import Final

from exchange.engine.channel import base_unit, quote_terms
from exchange.engine.funds import PPM, Purse, Trader
from exchange.engine.instrument import PRICE_MAX, Instrument
from exchange.engine.ladder import Ladder
from exchange.engine.orders import Order
from exchange.engine.words import Side

_BUY: Final = int(Side.BUY)


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
        "base_unit",
        "bids",
        "hold_divisor",
        "hold_multiplier",
        "house",
        "instrument",
        "last_price",
        "limits",
        "quote_divisor",
        "quote_multiplier",
        "trade_id",
        "traders",
    )

    def __init__(self, instrument: Instrument, house: Purse) -> None:
        self.instrument = instrument
        self.house = house
        """Where fees go."""
        self.base_unit = base_unit(instrument)
        self.quote_multiplier, self.quote_divisor = quote_terms(instrument)
        fee_ppm = max(instrument.taker_fee_ppm, instrument.maker_fee_ppm, 0)
        # As an amount is exact, so is its sum with the fee on it, rounded down once.
        multiplier, divisor = self.quote_multiplier * (PPM + fee_ppm), self.quote_divisor * PPM
        common = gcd(multiplier, divisor)
        self.hold_multiplier, self.hold_divisor = multiplier // common, divisor // common
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
        self.traders: dict[int, Trader] = {}
        """By account: whoever has been here."""

    def amount(self, price: int, quantity: int) -> int:
        """Return price x quantity in units of the quote asset; exact on tick and lot."""
        return price * quantity * self.quote_multiplier // self.quote_divisor

    def cost(self, price: int, quantity: int) -> int:
        """Return what a buy holds: its amount at its price, and the highest fee on that."""
        return price * quantity * self.hold_multiplier // self.hold_divisor

    def hold_of(self, order: Order) -> int:
        """Return what an order that rests needs: of the quote asset for a buy, of the base asset for a sell."""
        if order.request.side == _BUY:
            return self.cost(order.price, order.open)
        return order.open * self.base_unit

    def band(self) -> tuple[int, int]:
        """Return the lowest price for a sell and the highest for a buy now."""
        reference = self.last_price or self.instrument.reference_price
        if reference != self._band_reference:
            self._band_reference = reference
            self._band = self.instrument.band(reference)
        return self._band

    def protection(self, side: int, quantity: int, trader: Trader) -> int:
        """Return the worst price that a market order may trade at: the edge of the band, on tick.

        Without a band it is the worst that it would meet now, own orders apart, so that it holds what it may cost.
        """
        lowest, highest = self.band()
        if side != _BUY:
            return lowest
        if highest != PRICE_MAX:
            return highest - highest % self.instrument.tick_size
        price = 0
        for level in self.asks:
            price = level.price
            if trader.open_orders:
                quantity -= sum(order.open for order in level if order.trader is not trader)
            else:
                quantity -= level.quantity
            if quantity <= 0:
                break
        return price

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
        indexed: dict[int, Order] = {}
        for trader in self.traders.values():
            own = list(trader)
            assert len(own) == trader.open_orders, f"account {trader.account}: counts {trader.open_orders} open orders"
            for place, order in enumerate(trader.orders):
                assert order.own_place == place, f"{order.describe()}: knows another place than the one where it stands"
            for order in own:
                assert order.trader is trader, f"{order.describe()}: is among the orders of account {trader.account}"
                indexed[order.order_id] = order
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
