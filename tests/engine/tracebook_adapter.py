"""The shard machine as a candidate of tracebook's conformance campaigns; speaks its protocol on stdin and stdout.

Tracebook's orders may trade with others of their owner, ours may not: buys and sells are entered under two accounts,
and the adapter remembers the owners. With `--fault` a reduced order loses its place, which a campaign must find.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from itertools import product

from tracebook.conformance.model import (
    BookSnapshot,
    BookState,
    ConformanceConfig,
    EngineMetadata,
    Observation,
    Outcome,
    RestingOrder,
    TradeFill,
    canonical_decimal,
)
from tracebook.conformance.protocol import serve_stdio
from tracebook.core.order import OrderSide, OrderType
from tracebook.events import MarketEvent

from exchange.engine.commands import AddInstrument, AmendOrder, CancelAll, CancelOrder, PlaceOrder, SetStage
from exchange.engine.events import EventKind, OrderTraded, Result
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import RejectReason, Stage

PRICE_SCALE, QUANTITY_SCALE = 2, 12
RICH = 10**60
_TIMES_IN_FORCE = {OrderType.LIMIT: 1, OrderType.MARKET: 0, OrderType.IOC: 2, OrderType.FOK: 3}
_REASONS = {
    RejectReason.ORDER_UNKNOWN: "ORDER_NOT_ACTIVE",
    RejectReason.ORDER_CLOSED: "ORDER_NOT_ACTIVE",
    RejectReason.INSTRUMENT_UNKNOWN: "ORDER_NOT_ACTIVE",
    RejectReason.CLIENT_ORDER_ID_REUSED: "DUPLICATE_ORDER_ID",
}


class ShardAdapter:
    """One shard; an instrument is opened when an order first names it."""

    def __init__(self, config: ConformanceConfig) -> None:
        self.metadata = EngineMetadata("evenkeel", "shard", "Python")
        self._shard = Shard()
        self._shard.apply(1, [SetStage(int(Stage.OPEN))])
        for account, asset in product((1, 2), ("BASE", "QUOTE")):
            self._shard.funds.endow(account, asset, RICH)
        self._names: dict[tuple[str, int], str] = {}
        self._orders: dict[tuple[str, int], tuple[int, int, int]] = {}
        """By symbol and our order id: tracebook's id, side, owner."""
        self._active: dict[tuple[str, int], int] = {}
        """By symbol and tracebook's id: our order id."""
        self._count = 0

    def apply(self, event: MarketEvent, index: int) -> Observation:
        symbol = event.symbol
        # As in the reference, a book begins with the first order, not with a question about one.
        if symbol not in self._shard.books and event.op in ("new", "clear"):
            instrument = Instrument(symbol, "BASE", "QUOTE", PRICE_SCALE, QUANTITY_SCALE, PRICE_SCALE + QUANTITY_SCALE)
            self._shard.apply(1, [AddInstrument(instrument)])
        outcome, trades = self._enter(event, index)
        state = self.snapshot()
        return Observation(index, outcome, trades, state.digest(), state.order_count)

    def _enter(self, event: MarketEvent, index: int) -> tuple[Outcome, tuple[TradeFill, ...]]:
        symbol = event.symbol
        if event.op == "clear":
            self._shard.apply(index + 1, [CancelAll(account, symbol) for account in (1, 2)])
            self._active = {key: order for key, order in self._active.items() if key[0] != symbol}
            return Outcome("applied"), ()
        assert event.order_id is not None
        source = event.order_id
        key = symbol, source
        ours = self._active.get(key, 0)
        if event.op == "new":
            if ours:
                return Outcome("rejected", "DUPLICATE_ORDER_ID"), ()
            assert event.side is not None
            side = 1 if event.side == OrderSide.BUY else 2
            self._count += 1
            kind = OrderType(event.order_type)
            price = 0 if kind == OrderType.MARKET else _scaled(event.price, PRICE_SCALE)
            command: PlaceOrder | CancelOrder | AmendOrder = PlaceOrder(
                side,
                f"o{self._count}",
                symbol,
                side,
                2 if kind == OrderType.MARKET else 1,
                _TIMES_IN_FORCE[kind],
                price,
                _scaled(event.quantity, QUANTITY_SCALE),
            )
            owner = event.owner
            self._orders[symbol, self._shard.sequence + 1] = source, side, owner
        else:
            side = self._orders[symbol, ours][1] if ours else 1
            if event.op == "cancel":
                command = CancelOrder(side, symbol, "", ours)
            elif event.op == "reduce":
                order = self._shard.find(side, symbol, "", ours)
                left = order.open - _scaled(event.quantity, QUANTITY_SCALE) if order is not None else 0
                if order is not None and left <= 0:
                    command = CancelOrder(side, symbol, "", ours)
                else:
                    command = AmendOrder(side, symbol, "", ours, 0, 0, open_quantity=left)
            else:
                price = 0 if event.price is None else _scaled(event.price, PRICE_SCALE)
                quantity = 0 if event.quantity is None else _scaled(event.quantity, QUANTITY_SCALE)
                command = AmendOrder(side, symbol, "", ours, price, 0, open_quantity=quantity, requeue=True)
        (result,), events = self._shard.apply(index + 1, [command])
        if result.reject_reason:
            return Outcome("rejected", _reason(result, event.op)), ()
        trades = []
        for row in events:
            if row[0] == EventKind.TRADED:
                trade = OrderTraded(*row)
                taker, maker = self._orders[symbol, trade.taker_order_id], self._orders[symbol, trade.maker_order_id]
                buyer, seller = (taker, maker) if taker[1] == 1 else (maker, taker)
                trades.append(
                    TradeFill(
                        symbol,
                        buyer[0],
                        seller[0],
                        _unscaled(trade.price, PRICE_SCALE),
                        _unscaled(trade.quantity, QUANTITY_SCALE),
                    )
                )
        book = self._shard.books[symbol]
        self._active = {k: order for k, order in self._active.items() if k[0] != symbol}
        for resting in book.orders():
            self._active[symbol, self._orders[symbol, resting.order_id][0]] = resting.order_id
        return Outcome("applied"), tuple(trades)

    def snapshot(self) -> BookState:
        books = []
        for symbol in sorted(self._shard.books):
            book = self._shard.books[symbol]
            sides: list[list[RestingOrder]] = [[], []]
            for order in book.orders():
                source, side, owner = self._orders[symbol, order.order_id]
                resting = RestingOrder(
                    source, _unscaled(order.price, PRICE_SCALE), _unscaled(order.open, QUANTITY_SCALE), owner
                )
                sides[side - 1].append(resting)
            books.append(BookSnapshot(symbol, tuple(sides[0]), tuple(sides[1])))
        return BookState(tuple(books))

    def close(self) -> None:
        """Nothing to let go of."""


class FaultyAdapter(ShardAdapter):
    """A fault planted: an order that is reduced goes to the back of the queue."""

    def _enter(self, event: MarketEvent, index: int) -> tuple[Outcome, tuple[TradeFill, ...]]:
        outcome, trades = super()._enter(event, index)
        ours = self._active.get((event.symbol, event.order_id or 0), 0)
        if event.op == "reduce" and ours:
            side = self._orders[event.symbol, ours][1]
            order = self._shard.find(side, event.symbol, "", ours)
            assert order is not None
            requeue = AmendOrder(side, event.symbol, "", ours, 0, 0, open_quantity=order.open, requeue=True)
            self._shard.apply(index + 1, [requeue])
        return outcome, trades


def _scaled(value: float | None, scale: int) -> int:
    return int(Decimal(str(value)).scaleb(scale))


def _unscaled(value: int, scale: int) -> str:
    return canonical_decimal(Decimal(value).scaleb(-scale))


def _reason(result: Result, op: str) -> str:
    fallback = {"replace": "INVALID_REPLACEMENT", "cancel": "INVALID_CANCEL"}.get(op, "INVALID_ORDER")
    return _REASONS.get(RejectReason(result.reject_reason), fallback)


if __name__ == "__main__":
    sys.exit(serve_stdio(FaultyAdapter if "--fault" in sys.argv else ShardAdapter))
