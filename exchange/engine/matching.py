"""Price-time matching: what an arriving order does to the other side of the book."""

from __future__ import annotations

from collections.abc import Callable

from exchange.engine.book import Book, BookSide
from exchange.engine.events import Event, EventKind, OrderTraded
from exchange.engine.orders import Order
from exchange.engine.words import CloseReason, SelfTradePrevention

_TRADED = int(EventKind.TRADED)
_CANCEL_MAKER = int(SelfTradePrevention.CANCEL_MAKER)
_CANCEL_TAKER = int(SelfTradePrevention.CANCEL_TAKER)
_SELF_TRADE = int(CloseReason.SELF_TRADE)
# Makes a named tuple from a tuple of its fields at a third of the cost of calling its class.
_new = tuple.__new__

CloseOrder = Callable[[Book, Order, int], None]
"""Take a maker out of the book and close it for a reason (0: it is filled)."""


def match(book: Book, side: BookSide, taker: Order, sequence: int, close: CloseOrder, events: list[Event]) -> int:
    """Trade `taker` against `side` down to its price, best price first and first come first within a price.

    Each trade is made at the maker's price. Returns the reason to close the taker for, if self-trade prevention
    stopped it, else 0; its `open` is what is left.
    """
    request = taker.request
    account = request.account
    limit_key = taker.price * side.sign
    prevention = request.self_trade_prevention or _CANCEL_MAKER
    symbol = book.instrument.symbol
    taker_id = taker.order_id
    left = taker.open
    while left:
        level = side.best
        if level is None or level.price * side.sign < limit_key:
            break
        maker = level.first
        assert maker is not None
        if maker.request.account == account:
            if prevention != _CANCEL_TAKER:
                close(book, maker, _SELF_TRADE)
            if prevention != _CANCEL_MAKER:
                taker.open = left
                return _SELF_TRADE
            continue
        open_quantity = maker.open
        quantity = min(open_quantity, left)
        left -= quantity
        book.trade_id = trade_id = book.trade_id + 1
        book.last_price = price = level.price
        events.append(
            _new(OrderTraded, (_TRADED, sequence, symbol, trade_id, maker.order_id, taker_id, price, quantity))
        )
        if quantity == open_quantity:
            close(book, maker, 0)
        else:
            maker.open = open_quantity - quantity
            level.quantity -= quantity
    taker.open = left
    return 0


def can_fill(book: Book, side: BookSide, taker: Order) -> bool:
    """Whether all of `taker` would trade at once, self-trade prevention included (for fill or kill)."""
    request = taker.request
    limit_key = taker.price * side.sign
    prevention = request.self_trade_prevention or _CANCEL_MAKER
    own = book.open_orders.get(request.account)
    needed = taker.open
    for level in side:
        if level.price * side.sign < limit_key:
            return False
        if not own:
            needed -= level.quantity
        else:
            for maker in level:
                if maker.request.account != request.account:
                    needed -= maker.open
                elif prevention != _CANCEL_MAKER:
                    # The first own order that it meets stops the taker.
                    return False
                if needed <= 0:
                    return True
        if needed <= 0:
            return True
    return False
