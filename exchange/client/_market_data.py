"""Public facts of a market."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from exchange.client._enums import Side, Stage
from exchange.client._instruments import Instrument
from exchange.client._numbers import from_time_ns
from exchange.v1 import market_data_pb2


@dataclass(frozen=True, slots=True)
class Trade:
    instrument: str
    trade_id: int
    """Counts 1, 2, 3 … in the instrument."""
    price: Decimal
    quantity: Decimal
    taker_side: Side
    sequence: int
    time_ns: int

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: market_data_pb2.Trade, instrument: Instrument) -> "Trade":
        return cls(
            instrument=message.instrument,
            trade_id=message.trade_id,
            price=instrument.price(message.price),
            quantity=instrument.quantity(message.quantity),
            taker_side=Side(message.taker_side),
            sequence=message.sequence,
            time_ns=message.time_ns,
        )


@dataclass(frozen=True, slots=True)
class Ticker:
    """Of the last 24 hours. A price is None where there is none: an empty side, no trade yet."""

    instrument: str
    bid_price: Decimal | None
    bid_quantity: Decimal
    ask_price: Decimal | None
    ask_quantity: Decimal
    last_price: Decimal | None
    last_quantity: Decimal
    open_price: Decimal | None
    high_price: Decimal | None
    low_price: Decimal | None
    volume: Decimal
    """Of the base asset."""
    trades: int
    sequence: int
    time_ns: int
    stage: Stage
    next_stage_time_ns: int = 0
    """When the next stage is expected; 0: nobody knows."""
    stage_reason: str = ""
    """Why it is in this one, unless it is open."""

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: market_data_pb2.Ticker, instrument: Instrument) -> "Ticker":
        def price(units: int) -> Decimal | None:
            return instrument.price(units) if units else None

        return cls(
            instrument=message.instrument,
            bid_price=price(message.bid_price),
            bid_quantity=instrument.quantity(message.bid_quantity),
            ask_price=price(message.ask_price),
            ask_quantity=instrument.quantity(message.ask_quantity),
            last_price=price(message.last_price),
            last_quantity=instrument.quantity(message.last_quantity),
            open_price=price(message.open_price),
            high_price=price(message.high_price),
            low_price=price(message.low_price),
            volume=instrument.quantity(message.volume),
            trades=message.trades,
            sequence=message.sequence,
            time_ns=message.time_ns,
            stage=Stage(message.stage),
            next_stage_time_ns=message.next_stage_time_ns,
            stage_reason=message.stage_reason,
        )


@dataclass(frozen=True, slots=True)
class Candle:
    instrument: str
    start_time_ns: int
    open_price: Decimal
    high_price: Decimal
    low_price: Decimal
    close_price: Decimal
    volume: Decimal
    """Of the base asset."""
    trades: int

    @property
    def start_time(self) -> datetime:
        return from_time_ns(self.start_time_ns)

    @classmethod
    def from_proto(cls, message: market_data_pb2.Candle, instrument: Instrument) -> "Candle":
        return cls(
            instrument=instrument.symbol,
            start_time_ns=message.start_time_ns,
            open_price=instrument.price(message.open_price),
            high_price=instrument.price(message.high_price),
            low_price=instrument.price(message.low_price),
            close_price=instrument.price(message.close_price),
            volume=instrument.quantity(message.volume),
            trades=message.trades,
        )
