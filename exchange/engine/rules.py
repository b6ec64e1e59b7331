"""The checks that an order must pass before it may touch a book: pure functions of the command and the instrument."""

from __future__ import annotations

import re
from typing import Final

from exchange.engine.book import Book
from exchange.engine.commands import AmendOrder, PlaceOrder
from exchange.engine.instrument import PRICE_MAX, QUANTITY_MAX
from exchange.engine.orders import Order
from exchange.engine.words import OrderType, RejectReason, SelfTradePrevention, Side, Stage, TimeInForce

_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_LIMIT: Final = int(OrderType.LIMIT)
_MARKET: Final = int(OrderType.MARKET)
_DEFAULT: Final = int(TimeInForce.DEFAULT)
_GTC: Final = int(TimeInForce.GTC)
_IOC: Final = int(TimeInForce.IOC)
_GTD: Final = int(TimeInForce.GTD)
_GTD_MAX: Final = int(max(TimeInForce))
_PREVENTION_MAX: Final = int(max(SelfTradePrevention))
_CLIENT_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
_CLIENT_ORDER_ID_LENGTH_MAX: Final = 36


STAGE_REFUSES: Final = {
    int(stage): int(getattr(RejectReason, f"STAGE_{stage.name}")) for stage in Stage if stage != Stage.OPEN
}
"""What a stage says to what it does not let through."""
STAGE_REFUSES_CANCELS: Final = {int(stage): STAGE_REFUSES[stage] for stage in (Stage.REPLAYING, Stage.HALTED)}
STAGE_REFUSES_AMENDS: Final = STAGE_REFUSES_CANCELS | {int(Stage.CANCEL_ONLY): STAGE_REFUSES[Stage.CANCEL_ONLY]}


def is_client_order_id(text: str) -> bool:
    """Whether `text` is 1 to 36 characters of [A-Za-z0-9_-]."""
    # The first test decides on those without - and _, and takes a third of the time of the second.
    return (text.isalnum() and text.isascii() and len(text) <= _CLIENT_ORDER_ID_LENGTH_MAX) or (
        _CLIENT_ORDER_ID.fullmatch(text) is not None
    )


def refuse_place(request: PlaceOrder, book: Book, time_ns: int, open_orders: int) -> int:
    """Return the `RejectReason` of an order that breaks a rule of its instrument, 0 if it breaks none.

    `open_orders`: how many its account has in the instrument.
    """
    side, kind, time_in_force = request.side, request.type, request.time_in_force
    price, quantity, post_only = request.price, request.quantity, request.post_only
    expire_time_ns = request.expire_time_ns
    instrument = book.instrument
    if not is_client_order_id(request.client_order_id):
        return RejectReason.CLIENT_ORDER_ID_INVALID
    if side != _BUY and side != _SELL:  # noqa: PLR1714
        return RejectReason.SIDE_INVALID
    if not 0 <= time_in_force <= _GTD_MAX:
        return RejectReason.TIME_IN_FORCE_INVALID
    if kind == _LIMIT:
        if not 0 < price <= PRICE_MAX:
            return RejectReason.PRICE_INVALID
        if price % instrument.tick_size:
            return RejectReason.PRICE_NOT_ON_TICK
        if instrument.band_bps and outside_band(book, side, price):
            return RejectReason.PRICE_OUTSIDE_BAND
        if post_only and time_in_force not in (_DEFAULT, _GTC, _GTD):
            return RejectReason.POST_ONLY_INVALID
    elif kind == _MARKET:
        if price:
            return RejectReason.PRICE_INVALID
        if time_in_force in (_GTC, _GTD):
            return RejectReason.TIME_IN_FORCE_INVALID
        if post_only:
            return RejectReason.POST_ONLY_INVALID
    else:
        return RejectReason.ORDER_TYPE_INVALID
    reason = _refuse_quantity(quantity, book)
    if reason:
        return reason
    if expire_time_ns if time_in_force != _GTD else expire_time_ns <= time_ns:
        return RejectReason.EXPIRE_TIME_INVALID
    if not 0 <= request.self_trade_prevention <= _PREVENTION_MAX:
        return RejectReason.SELF_TRADE_PREVENTION_INVALID
    if open_orders >= instrument.max_open_orders:
        return RejectReason.TOO_MANY_OPEN_ORDERS
    return 0


def refuse_amend(amend: AmendOrder, order: Order, price: int, open_quantity: int, book: Book) -> int:
    """Return the `RejectReason` of an amend of `order` to this price and open quantity, 0 if it may go on."""
    instrument = book.instrument
    if not amend.price and not amend.quantity and not amend.open_quantity and not amend.requeue:
        return RejectReason.NOTHING_TO_AMEND
    if amend.price < 0 or price > PRICE_MAX:
        return RejectReason.PRICE_INVALID
    if amend.quantity < 0 or amend.open_quantity < 0 or (amend.quantity and amend.open_quantity):
        return RejectReason.QUANTITY_INVALID
    if price % instrument.tick_size:
        return RejectReason.PRICE_NOT_ON_TICK
    if price != order.price and instrument.band_bps and outside_band(book, order.request.side, price):
        return RejectReason.PRICE_OUTSIDE_BAND
    if open_quantity <= 0:
        return RejectReason.QUANTITY_BELOW_FILLED
    return _refuse_quantity(order.filled + open_quantity, book)


def outside_band(book: Book, side: int, price: int) -> bool:
    """Whether a price is outside the band that its instrument has around the last trade."""
    # One-sided, as its purpose is to stop a fat finger from trading: an order far on its own side of the book is safe.
    lowest, highest = book.band()
    return price > highest if side == _BUY else price < lowest


def _refuse_quantity(quantity: int, book: Book) -> int:
    instrument = book.instrument
    if not 0 < quantity <= QUANTITY_MAX:
        return RejectReason.QUANTITY_INVALID
    if quantity % instrument.lot_size:
        return RejectReason.QUANTITY_NOT_ON_LOT
    if quantity < instrument.min_quantity:
        return RejectReason.QUANTITY_TOO_SMALL
    if quantity > instrument.max_quantity:
        return RejectReason.QUANTITY_TOO_LARGE
    return 0
