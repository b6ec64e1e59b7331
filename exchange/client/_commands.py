"""What a client asks of its orders, as values: sending one twice is asking once."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from exchange.client._enums import OrderType, SelfTradePrevention, Side, TimeInForce
from exchange.client._instruments import Instrument
from exchange.client._numbers import Number, to_time_ns
from exchange.v1 import trading_pb2, types_pb2

_CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")


def new_client_order_id() -> str:
    """32 hexadecimal digits, different each time."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """A new order. The object carries its client order id, so the same object is the same order."""

    instrument: str
    side: Side
    quantity: Number
    price: Number | None = None
    """A limit order needs one. A market order has none."""
    order_type: OrderType = OrderType.LIMIT
    time_in_force: TimeInForce = TimeInForce.UNSPECIFIED
    post_only: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.UNSPECIFIED
    expire_time: datetime | None = None
    """With `TimeInForce.GTD`; needs a time zone."""
    queue_for: float = 0.0
    """Seconds that the order may wait for its shard while that is away; 0: refused at once."""
    client_order_id: str = field(default_factory=new_client_order_id)

    def __post_init__(self) -> None:
        _check_client_order_id(self.client_order_id)
        if self.order_type is OrderType.LIMIT and self.price is None:
            # Never made a market order silently: that one trades at any price.
            raise ValueError("price: expected one for a limit order, was None")

    def to_proto(self, instrument: Instrument) -> trading_pb2.PlaceOrderRequest:
        return trading_pb2.PlaceOrderRequest(
            instrument=self.instrument,
            client_order_id=self.client_order_id,
            side=types_pb2.Side.ValueType(self.side),
            type=types_pb2.OrderType.ValueType(self.order_type),
            time_in_force=types_pb2.TimeInForce.ValueType(self.time_in_force),
            price=0 if self.price is None else instrument.price_units(self.price),
            quantity=instrument.quantity_units(self.quantity),
            post_only=self.post_only,
            self_trade_prevention=types_pb2.SelfTradePrevention.ValueType(self.self_trade_prevention),
            expire_time_ns=(0 if self.expire_time is None else to_time_ns(self.expire_time, "expire_time")),
            queue_for_ms=round(self.queue_for * 1000),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendOrder:
    """A new price or size for an open order; what is None stays.

    `quantity` is the total, what is filled included; `open_quantity`, instead of it, is what shall be
    open afterwards. A smaller size at the same price keeps the order's place, all else loses it.
    """

    instrument: str
    client_order_id: str = ""
    order_id: int = 0
    price: Number | None = None
    quantity: Number | None = None
    open_quantity: Number | None = None
    requeue: bool = False
    """Go to the back of the queue in any case."""
    cancel_on_fail: bool = False
    """Cancel the order if it cannot be amended."""

    def __post_init__(self) -> None:
        _check_order_name(self.client_order_id, self.order_id)

    def to_proto(self, instrument: Instrument) -> trading_pb2.AmendOrderRequest:
        return trading_pb2.AmendOrderRequest(
            instrument=self.instrument,
            client_order_id=self.client_order_id,
            order_id=self.order_id,
            price=0 if self.price is None else instrument.price_units(self.price),
            quantity=0 if self.quantity is None else instrument.quantity_units(self.quantity),
            open_quantity=(
                0 if self.open_quantity is None else instrument.quantity_units(self.open_quantity, "open_quantity")
            ),
            requeue=self.requeue,
            cancel_on_fail=self.cancel_on_fail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """Takes an open order out of the book, by either of its names.

    It goes ahead of orders that wait, so cancel an order when it is answered, or in the batch that places it.
    """

    instrument: str
    client_order_id: str = ""
    order_id: int = 0

    def __post_init__(self) -> None:
        _check_order_name(self.client_order_id, self.order_id)

    def to_proto(self) -> trading_pb2.CancelOrderRequest:
        return trading_pb2.CancelOrderRequest(
            instrument=self.instrument,
            client_order_id=self.client_order_id,
            order_id=self.order_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAllOrders:
    """Of one instrument or all, of one side or both."""

    instrument: str = ""
    side: Side = Side.UNSPECIFIED

    def to_proto(self) -> trading_pb2.CancelAllOrdersRequest:
        return trading_pb2.CancelAllOrdersRequest(instrument=self.instrument, side=types_pb2.Side.ValueType(self.side))


Command: TypeAlias = PlaceOrder | AmendOrder | CancelOrder | CancelAllOrders


def _check_client_order_id(client_order_id: str) -> None:
    if not _CLIENT_ORDER_ID.fullmatch(client_order_id):
        raise ValueError(f"client_order_id: expected 1 to 36 characters of [A-Za-z0-9_-], was {client_order_id!r}")


def _check_order_name(client_order_id: str, order_id: int) -> None:
    if bool(client_order_id) == bool(order_id):
        raise ValueError(
            "expected either client_order_id or order_id,"
            f" was client_order_id={client_order_id!r} and order_id={order_id!r}"
        )
