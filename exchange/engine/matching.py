"""Price-time matching: what an arriving order does to the other side of the book."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.book import Book, BookSide
from exchange.engine.events import EventKind
from exchange.engine.orders import Order
from exchange.engine.words import CloseReason, SelfTradePrevention

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_TRADED = int(EventKind.TRADED)
_CANCEL_MAKER = int(SelfTradePrevention.CANCEL_MAKER)
_CANCEL_TAKER = int(SelfTradePrevention.CANCEL_TAKER)
_SELF_TRADE = int(CloseReason.SELF_TRADE)


def match(shard: Shard, book: Book, side: BookSide, taker: Order) -> None:
    """Trade `taker` against `side` down to its price, best price first and first come first within a price.

    Each trade is made at the maker's price, and makers that are filled are closed. If self-trade prevention stops the
    taker, it gets a `close_reason`; to close it is the caller's part, as is to let it rest.
    """
    account = taker.account
    limit_key = taker.price * side.sign
    sequence, events = shard.sequence, shard.events
    symbol = book.instrument.symbol
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
                shard.close(book, maker, _SELF_TRADE)
            if prevention != _CANCEL_MAKER:
                taker.close_reason = _SELF_TRADE
                break
            continue
        open_quantity = maker.open
        quantity = left if left < open_quantity else open_quantity  # noqa: FURB136  # min() takes four times as long
        left -= quantity
        maker_id = maker.order_id
        book.trade_id += 1
        book.last_price = price = level.price
        events.append((_TRADED, sequence, symbol, book.trade_id, maker_id, taker.order_id, price, quantity))
        if quantity < open_quantity:
            maker.open = open_quantity - quantity
            level.quantity -= quantity
        else:
            side.remove(maker, level)
            maker.open = 0
            maker.update_time_ns = shard.time_ns
            del book.open_orders[maker.account][maker_id]
            filled.append(maker)
            if maker.watched:
                shard.unwatch(maker)
    taker.open = left
    shard.closed.extend(filled)


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
