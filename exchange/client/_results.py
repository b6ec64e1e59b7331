"""What became of an account's orders."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from exchange.client._enums import (
    CloseReason,
    ExecutionType,
    Liquidity,
    OrderStatus,
    OrderType,
    Outcome,
    RejectReason,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from exchange.client._errors import OrderRejected
from exchange.client._instruments import Instrument
from exchange.client._numbers import from_amount, from_scaled, from_time_ns
from exchange.v1 import trading_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class OrderResult:
    """What became of one command."""

    outcome: Outcome
    instrument: str
    client_order_id: str
    order_id: int
    status: OrderStatus
    filled_quantity: Decimal
    open_quantity: Decimal
    reject_reason: RejectReason
    close_reason: CloseReason
    sequence: int
    """Position of the command in its shard's history; 0 where it was asked for afterwards."""
    duplicate: bool
    """The first outcome of this client order id: the order had been executed already."""
    cancelled_orders: int
    """Of a cancel all."""
    retry_after: float | None
    """Seconds; of a rejection that passes. None: nothing says that coming back would help."""

    @property
    def accepted(self) -> bool:
        return self.outcome is Outcome.ACKNOWLEDGED

    @property
    def rejected(self) -> bool:
        return self.outcome is Outcome.REJECTED

    @property
    def pending(self) -> bool:
        """The order was taken, but its money could not be found in time: it may still open, trade, or be rejected.

        Executions and `get_order` tell; to send it again under its client order id does, too.
        """
        return self.accepted and self.status is OrderStatus.PENDING_FUNDS

    @property
    def unknown(self) -> bool:
        """Only in a batch or a session: `place_order` and its like raise OutcomeUnknown."""
        return self.outcome is Outcome.UNKNOWN

    def raise_for_reject(self) -> "OrderResult":
        """Itself, if it is no rejection.

        Raises:
            OrderRejected: it is one.
        """
        if self.rejected:
            raise OrderRejected(self)
        return self

    @classmethod
    def from_proto(cls, message: trading_pb2.OrderResult, instrument: str, quantity_scale: int) -> "OrderResult":
        return cls(
            outcome=Outcome(message.outcome),
            instrument=instrument,
            client_order_id=message.client_order_id,
            order_id=message.order_id,
            status=OrderStatus(message.status),
            filled_quantity=from_scaled(message.filled_quantity, quantity_scale),
            open_quantity=from_scaled(message.open_quantity, quantity_scale),
            reject_reason=RejectReason(message.reject_reason),
            close_reason=CloseReason(message.close_reason),
            sequence=message.sequence,
            duplicate=message.duplicate,
            cancelled_orders=message.cancelled_orders,
            retry_after=message.retry_after_ms / 1000 if message.retry_after_ms > 0 else None,
        )


@dataclass(frozen=True, slots=True)
class Order:
    """An order as its account sees it."""

    instrument: str
    client_order_id: str
    order_id: int
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    price: Decimal | None
    """None for a market order."""
    quantity: Decimal
    """Total size, filled part included."""
    filled_quantity: Decimal
    open_quantity: Decimal
    post_only: bool
    self_trade_prevention: SelfTradePrevention
    status: OrderStatus
    close_reason: CloseReason
    reject_reason: RejectReason
    create_time_ns: int
    update_time_ns: int
    expire_time_ns: int
    priority: int
    """Orders of one price level trade in the order of this number."""

    @property
    def create_time(self) -> datetime:
        return from_time_ns(self.create_time_ns)

    @property
    def update_time(self) -> datetime:
        return from_time_ns(self.update_time_ns)

    @property
    def expire_time(self) -> datetime | None:
        return from_time_ns(self.expire_time_ns) if self.expire_time_ns else None

    @classmethod
    def from_proto(cls, message: types_pb2.Order, instrument: Instrument) -> "Order":
        return cls(
            instrument=message.instrument,
            client_order_id=message.client_order_id,
            order_id=message.order_id,
            side=Side(message.side),
            order_type=OrderType(message.type),
            time_in_force=TimeInForce(message.time_in_force),
            price=instrument.price(message.price) if message.price else None,
            quantity=instrument.quantity(message.quantity),
            filled_quantity=instrument.quantity(message.filled_quantity),
            open_quantity=instrument.quantity(message.open_quantity),
            post_only=message.post_only,
            self_trade_prevention=SelfTradePrevention(message.self_trade_prevention),
            status=OrderStatus(message.status),
            close_reason=CloseReason(message.close_reason),
            reject_reason=RejectReason(message.reject_reason),
            create_time_ns=message.create_time_ns,
            update_time_ns=message.update_time_ns,
            expire_time_ns=message.expire_time_ns,
            priority=message.priority,
        )


@dataclass(frozen=True, slots=True)
class Execution:
    """One thing that happened to one of the account's orders, by anyone's doing."""

    shard: str
    sequence: int
    """Position in the shard's history; all executions of one command have the same."""
    type: ExecutionType
    instrument: str
    client_order_id: str
    order_id: int
    side: Side
    status: OrderStatus
    price: Decimal | None
    """None for a market order."""
    quantity: Decimal
    filled_quantity: Decimal
    open_quantity: Decimal
    close_reason: CloseReason
    trade_id: int
    """This and the next three, and the fee: of a trade."""
    trade_price: Decimal | None
    trade_quantity: Decimal
    liquidity: Liquidity
    time_ns: int
    fee: Decimal = Decimal(0)
    """Of a trade: what it cost; negative: it was paid to the account."""
    fee_asset: str = ""

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: trading_pb2.Execution, instrument: Instrument) -> "Execution":
        return cls(
            shard=message.shard,
            sequence=message.sequence,
            type=ExecutionType(message.type),
            instrument=message.instrument,
            client_order_id=message.client_order_id,
            order_id=message.order_id,
            side=Side(message.side),
            status=OrderStatus(message.status),
            price=instrument.price(message.price) if message.price else None,
            quantity=instrument.quantity(message.quantity),
            filled_quantity=instrument.quantity(message.filled_quantity),
            open_quantity=instrument.quantity(message.open_quantity),
            close_reason=CloseReason(message.close_reason),
            trade_id=message.trade_id,
            trade_price=instrument.price(message.trade_price) if message.trade_id else None,
            trade_quantity=instrument.quantity(message.trade_quantity),
            liquidity=Liquidity(message.liquidity),
            time_ns=message.time_ns,
            fee=from_amount(message.fee),
            fee_asset=message.fee_asset,
        )


@dataclass(frozen=True, slots=True)
class CancelAllResult:
    cancelled_orders: int
    unavailable_shards: tuple[str, ...]
    """Could not be asked: their orders may still be open."""


@dataclass(frozen=True, slots=True)
class DeadMansSwitch:
    trigger_time_ns: int
    """0: disarmed."""
    unavailable_shards: tuple[str, ...]
    """Could not be asked: their switches are as they were."""

    @property
    def trigger_time(self) -> datetime | None:
        return from_time_ns(self.trigger_time_ns) if self.trigger_time_ns else None
