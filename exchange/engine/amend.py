"""Changing an open order: in its place where that is fair to those behind it, else as if it came anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.commands import AmendOrder
from exchange.engine.events import EventKind, OrderAmended, Result
from exchange.engine.matching import match
from exchange.engine.rules import STAGE_REFUSES_AMENDS, refuse_amend
from exchange.engine.words import CloseReason, RejectReason, Side, Stage

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_BUY = int(Side.BUY)


def amend(shard: Shard, command: AmendOrder) -> Result:
    """Change price or size of an open order. At its price and no larger it keeps its place, unless told to requeue."""
    if shard.stage in STAGE_REFUSES_AMENDS:
        return shard.refuse(command.client_order_id, STAGE_REFUSES_AMENDS[shard.stage])
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
    if not reason and takes and shard.stage == Stage.POST_ONLY:
        reason = RejectReason.STAGE_POST_ONLY
    if not reason and not keeps_place and shard.stage == Stage.LIMITED and not shard.rate.take(shard.time_ns):
        reason = RejectReason.STAGE_LIMITED
    if reason:
        if command.cancel_on_fail:
            shard.close(book, order, int(CloseReason.AMEND_FAILED))
        return shard.result_of(order, reject_reason=reason)

    if keeps_place:
        order.level.quantity -= order.open - open_quantity
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
            shard.close_taker(order, order.close_reason)
        elif order.open:
            shard.rest(order)
        else:
            shard.closed.append(order)
    return shard.result_of(order)
