"""Changing an open order: in its place where that is fair to those behind it, else as if it came anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.engine.book import Book
from exchange.engine.commands import AmendOrder
from exchange.engine.events import EventKind, OrderAmended, Result
from exchange.engine.matching import match
from exchange.engine.orders import Order
from exchange.engine.parking import Parked, amend_later
from exchange.engine.rules import refuse_amend
from exchange.engine.words import CloseReason, OrderStatus, RejectReason, Side

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_BUY: Final = int(Side.BUY)
_PENDING: Final = int(OrderStatus.PENDING_FUNDS)
_WAITS: Final = -1


def amend(shard: Shard, command: AmendOrder, parked: Parked | None) -> Result:
    """Change price or size of an open order. At its price and no larger it keeps its place, unless told to requeue.

    An amend that needs more money than there is waits for it, the order staying as it is meanwhile; `parked`: it has.
    """
    stages = shard.stages
    refused = 0 if stages.is_open else stages.refuses_amend(command.instrument)
    if refused:
        return shard.refuse(command.client_order_id, refused)
    order = shard.find(command.account, command.instrument, command.client_order_id, command.order_id)
    if order is None or order.level is None:
        return shard.refuse_closed(command, order)
    book = shard.books[command.instrument]
    price = command.price or order.price
    if command.quantity:
        open_quantity = command.quantity - order.filled
    else:
        open_quantity = command.open_quantity or order.open
    keeps_place = price == order.price and open_quantity <= order.open and not command.requeue
    opposite = book.asks if order.request.side == _BUY else book.bids
    takes = opposite.best is not None and opposite.best.key >= price * opposite.sign

    reason = refuse_amend(command, order, price, open_quantity, book)
    if not reason and takes and order.request.post_only:
        reason = RejectReason.WOULD_TAKE
    if not reason and not stages.is_open:
        reason = stages.refuses_change(command.instrument, takes, keeps_place, shard.time_ns)
    if not reason and (reason := _needs_more(shard, command, book, order, price, open_quantity, parked)) == _WAITS:
        name = order.request.client_order_id
        return Result(shard.sequence, name, order.order_id, _PENDING, order.filled, order.open)
    if reason:
        if command.cancel_on_fail:
            shard.close(book, order, int(CloseReason.AMEND_FAILED))
        return shard.result_of(order, reject_reason=reason)

    if keeps_place:
        order.level.quantity -= order.open - open_quantity
        trader = order.trader
        assert trader is not None
        is_buy = order.request.side == _BUY
        if is_buy:
            released = book.cost(price, order.open) - book.cost(price, open_quantity)
        else:
            released = (order.open - open_quantity) * book.base_unit
        trader.bind(is_buy, -released)
    else:
        shard.unrest(book, order)
        order.priority = shard.sequence
    order.price = price
    order.quantity += open_quantity - order.open
    order.open = open_quantity
    order.update_time_ns = shard.time_ns
    shard.events.append(
        OrderAmended(
            int(EventKind.AMENDED),
            shard.sequence,
            command.instrument,
            order.order_id,
            price,
            order.quantity,
            open_quantity,
            keeps_place,
        )
    )
    if not keeps_place:
        if takes:
            match(shard, book, opposite, order)
        if order.close_reason:
            shard.close_taker(order, command.instrument, order.close_reason)
        elif order.open:
            shard.rest(book, order)
        else:
            shard.closed.append(order)
    return shard.result_of(order)


def _needs_more(
    shard: Shard,
    command: AmendOrder,
    book: Book,
    order: Order,
    price: int,
    open_quantity: int,
    parked: Parked | None,
) -> int:
    """Return 0 if the account can cover the order as it shall be, `_WAITS` if the amend waits, else a RejectReason."""
    trader = order.trader
    assert trader is not None
    if order.request.side == _BUY:
        more = book.cost(price, open_quantity) - book.cost(order.price, order.open)
        available = trader.quote.available
    else:
        more = (open_quantity - order.open) * book.base_unit
        available = trader.base.available
    if more <= available:
        return 0
    return amend_later(shard, command, order, more, parked) or _WAITS
