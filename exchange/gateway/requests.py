"""What must be known of a client's TradeRequest to send it on its way."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from exchange.overload.classes import WorkClass
from exchange.runtime.trade_wire import survey
from exchange.v1 import trading_pb2

_ORDERS = frozenset(("place", "amend"))


class RequestInvalid(Exception):
    """The whole request is refused; nothing of it was executed."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def read_request(data: bytes) -> Any:
    """Return a packed TradeRequest. Raises `RequestInvalid` if it is none."""
    try:
        return trading_pb2.TradeRequest.FromString(data)
    except DecodeError as error:
        raise RequestInvalid(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED", "not a TradeRequest") from error


class Needs(NamedTuple):
    """What the way of a request depends on. An instrument "" stands for commands that name none.

    `work_class` is that of its least urgent command: commands of one request stay in their order.
    """

    orders: int
    cancels: int
    deadline_ms: int
    instruments: set[str]
    is_for_others: bool
    work_class: WorkClass
    queues: bool

    @property
    def commands(self) -> int:
        return self.orders + self.cancels

    @property
    def is_mixed(self) -> bool:
        return self.orders > 0 and self.cancels > 0


def needs_of(data: bytes) -> Needs:
    """Read what must be known of a packed TradeRequest.

    Raises `RequestInvalid` if it is none.
    """
    seen = survey(data)
    if seen is not None:
        orders, cancels, deadline_ms, instruments, is_for_others, is_passive, queues = seen
        work_class = _class_of(orders, is_passive=is_passive)
        return Needs(orders, cancels, deadline_ms, instruments, is_for_others, work_class, queues)
    request = read_request(data)
    names: set[str] = set()
    count = 0
    is_for_others = queues = False
    is_passive = True
    for command in request.commands:
        kind = command.WhichOneof("command")
        if kind is None:
            names.add("")
            continue
        body = getattr(command, kind)
        names.add(body.instrument)
        is_for_others = is_for_others or command.on_behalf_of != 0
        if kind in _ORDERS:
            count += 1
            is_passive = is_passive and (body.post_only if kind == "place" else not body.price and not body.requeue)
            queues = queues or (kind == "place" and body.queue_for_ms != 0)
    work_class = _class_of(count, is_passive=is_passive)
    cancels = len(request.commands) - count
    return Needs(count, cancels, request.deadline_ms, names, is_for_others, work_class, queues)


def _class_of(orders: int, *, is_passive: bool) -> WorkClass:
    """Return the class of a request. An amend that keeps the price cannot trade, whatever the quantity."""
    if not orders:
        return WorkClass.CANCELS
    return WorkClass.PASSIVE if is_passive else WorkClass.ORDERS


def is_cancel(command: Any) -> bool:
    return command.WhichOneof("command") not in _ORDERS


class Touched:
    """The orders that the commands of a request so far have placed or amended.

    A cancel of any other order may go before them: it is the same whether they come first or not.
    """

    def __init__(self) -> None:
        self._orders: set[tuple[int, str, str | int]] = set()

    def add(self, command: Any) -> None:
        body = getattr(command, command.WhichOneof("command"))
        for name in (body.client_order_id, getattr(body, "order_id", 0)):
            if name:
                self._orders.add((command.on_behalf_of, body.instrument, name))

    def may_go_ahead(self, command: Any) -> bool:
        """Whether a cancel is of none of them."""
        kind = command.WhichOneof("command")
        if kind != "cancel":
            return not self._orders
        body = command.cancel
        names = (body.client_order_id, body.order_id)
        return not any((command.on_behalf_of, body.instrument, name) in self._orders for name in names if name)
