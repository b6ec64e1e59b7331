"""Price-time matching: what an arriving order does to the other side of the book, and to the money of both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.book import Book, BookSide
from exchange.engine.events import EventKind
from exchange.engine.funds import Trader, fee_of
from exchange.engine.orders import Order
from exchange.engine.words import CloseReason, SelfTradePrevention, Side

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_BUY = int(Side.BUY)
_TRADED = int(EventKind.TRADED)
_CANCEL_MAKER = int(SelfTradePrevention.CANCEL_MAKER)
_CANCEL_TAKER = int(SelfTradePrevention.CANCEL_TAKER)
_SELF_TRADE = int(CloseReason.SELF_TRADE)


def match(shard: Shard, book: Book, side: BookSide, taker: Order) -> None:
    """Trade `taker` against `side` down to its price, best price first and first come first within a price.

    Each trade is made and settled at the maker's price, and makers that are filled are closed. What the taker spends
    comes from its free money, of which the caller has seen that there is enough. If self-trade prevention stops the
    taker, it gets a `close_reason`; to close it is the caller's part, as is to let it rest.
    """
    trader = taker.trader
    assert trader is not None
    taker_buys = taker.request.side == _BUY
    limit_key = taker.price * side.sign
    sequence, events = shard.sequence, shard.events
    instrument = book.instrument
    left = taker.open
    amounts = taker_fees = fees = 0
    filled: list[Order] = []
    while left:
        level = side.best
        if level is None or level.key < limit_key:
            break
        maker = level.first
        owner = maker.trader
        assert owner is not None
        if owner is trader:
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
        book.trade_id += 1
        book.last_price = price = level.price

        amount = book.amount(price, quantity)
        maker_fee = fee_of(amount, instrument.maker_fee_ppm)
        taker_fee = fee_of(amount, instrument.taker_fee_ppm)
        amounts += amount
        taker_fees += taker_fee
        fees += maker_fee + taker_fee
        _pay_maker(book, owner, taker_buys, price, open_quantity, quantity, amount, maker_fee)
        ids = book.trade_id, maker.order_id, taker.order_id
        events.append((_TRADED, sequence, instrument.symbol, *ids, price, quantity, maker_fee, taker_fee))
        if quantity < open_quantity:
            maker.open = open_quantity - quantity
            level.quantity -= quantity
        else:
            side.remove(maker, level)
            maker.open = 0
            maker.update_time_ns = shard.time_ns
            owner.remove(maker)
            filled.append(maker)
            if maker.watched:
                shard.unwatch(maker)
    traded = (taker.open - left) * book.base_unit
    taker.open = left
    if taker_buys:
        trader.quote.available -= amounts + taker_fees
        trader.base.available += traded
    else:
        trader.quote.available += amounts - taker_fees
        trader.base.available -= traded
    book.house.available += fees
    shard.closed.extend(filled)


def _pay_maker(
    book: Book, owner: Trader, taker_buys: bool, price: int, open_quantity: int, quantity: int, amount: int, fee: int
) -> None:
    """Move a maker's money for one trade, from what its order holds."""
    if taker_buys:
        owner.base_held -= quantity * book.base_unit
        owner.quote.available += amount - fee
    else:
        released = book.cost(price, open_quantity) - book.cost(price, open_quantity - quantity)
        owner.quote_held -= released
        owner.quote.available += released - amount - fee
        owner.base.available += quantity * book.base_unit


def can_fill(book: Book, side: BookSide, taker: Order) -> bool:
    """Whether all of `taker` would trade at once, self-trade prevention included (for fill or kill)."""
    trader = taker.trader
    assert trader is not None
    limit_key = taker.price * side.sign
    prevention = taker.request.self_trade_prevention or _CANCEL_MAKER
    needed = taker.open
    for level in side:
        if level.key < limit_key:
            return False
        if not trader.open_orders:
            needed -= level.quantity
        else:
            for maker in level:
                if maker.trader is not trader:
                    needed -= maker.open
                elif prevention != _CANCEL_MAKER:
                    # The first own order that it meets stops the taker.
                    return False
                if needed <= 0:
                    return True
        if needed <= 0:
            return True
    return False
