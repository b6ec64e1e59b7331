"""An order in the shard's state, open or closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.words import CloseReason, OrderStatus, RejectReason

if TYPE_CHECKING:
    from exchange.engine.book import Level
    from exchange.engine.commands import PlaceOrder
    from exchange.engine.events import Result


class Order:
    """One order: the request as it came, and what became of it.

    `open` is what is left of `quantity`; once closed it stays as it was then. An order that rests knows its `level`
    and its neighbours in the queue there; an order that does not has none of the three.
    """

    __slots__ = (
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
        "result",
        "update_time_ns",
    )

    order_id: int
    request: PlaceOrder
    price: int
    quantity: int
    open: int
    priority: int
    create_time_ns: int
    update_time_ns: int
    close_reason: int
    reject_reason: int
    level: Level | None
    previous: Order | None
    next: Order | None
    result: Result | None

    def __init__(self, order_id: int, request: PlaceOrder, price: int, time_ns: int) -> None:
        self.order_id = self.priority = order_id
        self.request = request
        self.price = price
        self.quantity = self.open = request.quantity
        self.create_time_ns = self.update_time_ns = time_ns
        self.close_reason = self.reject_reason = 0
        self.level = self.previous = self.next = self.result = None

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
        reason = RejectReason(self.reject_reason).name or CloseReason(self.close_reason).name
        return f"order {self.order_id} of account {self.request.account}: {self.status.name} {reason}"
