"""Price-time matching: what an arriving order does to the other side of the book, and to the money of both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.engine.book import Book, BookSide
from exchange.engine.events import EventKind
from exchange.engine.funds import PPM, Trader, fee_of
from exchange.engine.orders import Order
from exchange.engine.words import CloseReason, SelfTradePrevention, Side

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_BUY: Final = int(Side.BUY)
_TRADED: Final = int(EventKind.TRADED)
_CANCEL_MAKER: Final = int(SelfTradePrevention.CANCEL_MAKER)
_CANCEL_TAKER: Final = int(SelfTradePrevention.CANCEL_TAKER)
_SELF_TRADE: Final = int(CloseReason.SELF_TRADE)


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
    sequence, events, symbol = shard.sequence, shard.events, side.symbol
    multiplier, divisor, base_unit = book.quote_multiplier, book.quote_divisor, book.base_unit
    maker_ppm, taker_ppm = book.instrument.maker_fee_ppm, book.instrument.taker_fee_ppm
    left, trade_id, price = taker.open, book.trade_id, book.last_price
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
            if _prevents(shard, book, maker, taker):
                break
            continue
        open_quantity = maker.open
        quantity = left if left < open_quantity else open_quantity  # noqa: FURB136  # min() takes four times as long
        left -= quantity
        trade_id += 1
        price = level.price

        amount = price * quantity * multiplier // divisor
        amounts += amount
        maker_fee = fee_of(amount, maker_ppm) if maker_ppm else 0
        taker_fee = amount * taker_ppm // PPM
        taker_fees += taker_fee
        fees += maker_fee + taker_fee
        if taker_buys:
            owner.base_held -= quantity * base_unit
            owner.quote.available += amount - maker_fee
        else:
            # What it holds less what the rest of it will need, which is rounded down, too.
            released = book.cost(price, open_quantity)
            if quantity < open_quantity:
                released -= book.cost(price, open_quantity - quantity)
            owner.quote_held -= released
            owner.quote.available += released - amount - maker_fee
            owner.base.available += quantity * base_unit
        events.append(
            (_TRADED, sequence, symbol, trade_id, maker.order_id, taker.order_id, price, quantity, maker_fee, taker_fee)
        )
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
    book.trade_id, book.last_price = trade_id, price
    shard.closed.extend(filled)
    book.house.available += fees
    _settle_taker(trader, taker_buys, amounts, taker_fees, (taker.open - left) * base_unit)
    taker.open = left


def _settle_taker(trader: Trader, buys: bool, amount: int, fee: int, quantity: int) -> None:
    """Move a taker's money for all its trades, from what is free; `quantity` in units of the base asset."""
    if buys:
        trader.quote.available -= amount + fee
        trader.base.available += quantity
    else:
        trader.quote.available += amount - fee
        trader.base.available -= quantity


def _prevents(shard: Shard, book: Book, maker: Order, taker: Order) -> bool:
    """Keep an account from trading with itself: close its maker, or stop its taker, or both; say whether it stops."""
    prevention = taker.request.self_trade_prevention or _CANCEL_MAKER
    if prevention != _CANCEL_TAKER:
        shard.close(book, maker, _SELF_TRADE)
    if prevention != _CANCEL_MAKER:
        taker.close_reason = _SELF_TRADE
    return taker.close_reason != 0


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
