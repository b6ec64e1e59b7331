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
"""Take a resting order out of the book and close it for a reason."""


def match(
    book: Book, side: BookSide, taker: Order, sequence: int, events: list[Event], close: CloseOrder
) -> list[Order]:
    """Trade `taker` against `side` down to its price, best price first and first come first within a price.

    Each trade is made at the maker's price. Returns the makers that are filled: they have left their levels, and what
    else refers to them is the caller's to settle. If self-trade prevention stops the taker, it gets a `close_reason`.
    """
    account = taker.account
    limit_key = taker.price * side.sign
    symbol = book.instrument.symbol
    taker_id = taker.order_id
    trade_id = book.trade_id
    price = book.last_price
    left = taker.open
    filled: list[Order] = []
    while left:
        level = side.best
        if level is None or level.key < limit_key:
            break
        maker = level.first
        if maker.account == account:
            prevention = taker.request.self_trade_prevention or _CANCEL_MAKER
            if prevention != _CANCEL_TAKER:
                close(book, maker, _SELF_TRADE)
            if prevention != _CANCEL_MAKER:
                taker.close_reason = _SELF_TRADE
                break
            continue
        open_quantity = maker.open
        quantity = left if left < open_quantity else open_quantity  # noqa: FURB136  # min() takes four times as long
        left -= quantity
        trade_id += 1
        price = level.price
        event = (_TRADED, sequence, symbol, trade_id, maker.order_id, taker_id, price, quantity)
        events.append(_new(OrderTraded, event))
        if quantity < open_quantity:
            maker.open = open_quantity - quantity
            level.quantity -= quantity
        else:
            side.remove(maker, level)
            maker.open = 0
            filled.append(maker)
    book.trade_id, book.last_price = trade_id, price
    taker.open = left
    return filled


def can_fill(book: Book, side: BookSide, taker: Order) -> bool:
    """Whether all of `taker` would trade at once, self-trade prevention included (for fill or kill)."""
    account = taker.account
    limit_key = taker.price * side.sign
    prevention = taker.request.self_trade_prevention or _CANCEL_MAKER
    own = book.open_orders.get(account)
    needed = taker.open
    for level in side:
        if level.key < limit_key:
            return False
        if not own:
            needed -= level.quantity
        else:
            for maker in level:
                if maker.account != account:
                    needed -= maker.open
                elif prevention != _CANCEL_MAKER:
                    # The first own order that it meets stops the taker.
                    return False
                if needed <= 0:
                    return True
        if needed <= 0:
            return True
    return False
