"""An order in the shard's state, open or closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.words import CloseReason, OrderStatus, RejectReason

if TYPE_CHECKING:
    from exchange.engine.book import Level
    from exchange.engine.commands import PlaceOrder
    from exchange.engine.funds import Trader


class Order:
    """One order: the request as it came, and what became of it.

    `open` is what is left of `quantity`; once closed it stays as it was then. An order that rests knows its `level`,
    its neighbours in the queue there, and its place among the open orders of its `trader`; an order that does not has
    none of them. `watched` says that a timer or a session will look for it, so that the many others need not be looked
    up there. `rested_filled` is what was filled when it first came to rest, -1 if it never did: enough to tell its
    first outcome to who asks again. An order that waits for money is `parked`, and in no book yet.
    """

    __slots__ = (
        "close_reason",
        "create_time_ns",
        "level",
        "next",
        "open",
        "order_id",
        "own_place",
        "parked",
        "previous",
        "price",
        "priority",
        "quantity",
        "reject_reason",
        "request",
        "rested_filled",
        "trader",
        "update_time_ns",
        "watched",
    )

    order_id: int
    request: PlaceOrder
    trader: Trader | None
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
    parked: bool
    level: Level | None
    previous: Order | None
    next: Order | None
    own_place: int

    @property
    def account(self) -> int:
        return self.request.account

    @property
    def filled(self) -> int:
        """Quantity traded so far."""
        return self.quantity - self.open

    @property
    def status(self) -> OrderStatus:
        if self.level is not None:
            return OrderStatus.OPEN
        if self.parked:
            return OrderStatus.PENDING_FUNDS
        if self.reject_reason:
            return OrderStatus.REJECTED
        return OrderStatus.CANCELLED if self.close_reason else OrderStatus.FILLED

    @property
    def is_named_by_id(self) -> bool:
        """Whether it is, or was, in a book: only then its id means anything."""
        return not self.reject_reason and not self.parked

    def describe(self) -> str:
        """Return a line for a message: who, what, and what became of it."""
        reason = RejectReason(self.reject_reason) if self.reject_reason else CloseReason(self.close_reason)
        return f"order {self.order_id} of account {self.account}: {self.status.name} {reason.name}"


def new_order(
    order_id: int, request: PlaceOrder, trader: Trader | None, price: int, quantity: int, time_ns: int, watched: bool
) -> Order:
    """Return an order that has done nothing yet. A function costs half of what `__init__` would."""
    order = Order()
    order.order_id = order.priority = order_id
    order.request = request
    order.trader = trader
    order.price = price
    order.quantity = order.open = quantity
    order.create_time_ns = order.update_time_ns = time_ns
    order.close_reason = order.reject_reason = 0
    order.rested_filled = -1
    order.watched = watched
    order.parked = False
    order.level = order.previous = order.next = None
    order.own_place = -1
    return order
