"""An order in the shard's state, open or closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.words import CloseReason, OrderStatus, RejectReason

if TYPE_CHECKING:
    from exchange.engine.book import Level
    from exchange.engine.commands import PlaceOrder


class Order:
    """One order: the request as it came, and what became of it.

    `open` is what is left of `quantity`; once closed it stays as it was then. An order that rests knows its `level`
    and its neighbours in the queue there; an order that does not has none of the three. `watched` says that a timer
    or a session will look for it, so that the many others need not be looked up there. `rested_filled` is what was
    filled when it first came to rest, -1 if it never did: enough to tell its first outcome to who asks again.
    """

    __slots__ = (
        "account",
        "close_reason",
        "create_time_ns",
        "level",
        "next",
        "open",
        "order_id",
        "previous",
        "price",
        "priority",
        "quantity",
        "reject_reason",
        "request",
        "rested_filled",
        "update_time_ns",
        "watched",
    )

    order_id: int
    request: PlaceOrder
    account: int
    price: int
    quantity: int
    open: int
    priority: int
    create_time_ns: int
    update_time_ns: int
    close_reason: int
    reject_reason: int
    rested_filled: int
    watched: bool
    level: Level | None
    previous: Order | None
    next: Order | None

    @property
    def filled(self) -> int:
        """Quantity traded so far."""
        return self.quantity - self.open

    @property
    def status(self) -> OrderStatus:
        if self.level is not None:
            return OrderStatus.OPEN
        if self.reject_reason:
            return OrderStatus.REJECTED
        return OrderStatus.CANCELLED if self.close_reason else OrderStatus.FILLED

    def describe(self) -> str:
        """Return a line for a message: who, what, and what became of it."""
        reason = RejectReason(self.reject_reason) if self.reject_reason else CloseReason(self.close_reason)
        return f"order {self.order_id} of account {self.account}: {self.status.name} {reason.name}"


def new_order(
    order_id: int, request: PlaceOrder, account: int, price: int, quantity: int, time_ns: int, watched: bool
) -> Order:
    """Return an order that has done nothing yet. A function costs half of what `__init__` would."""
    order = Order()
    order.order_id = order.priority = order_id
    order.request = request
    order.account = account
    order.price = price
    order.quantity = order.open = quantity
    order.create_time_ns = order.update_time_ns = time_ns
    order.close_reason = order.reject_reason = 0
    order.rested_filled = -1
    order.watched = watched
    order.level = order.previous = order.next = None
    return order
