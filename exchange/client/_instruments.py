"""Instruments: the scales that turn Decimals into the integers of the wire, and the cache of them."""

import asyncio
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from exchange.client._call import Caller
from exchange.client._enums import RejectReason, Stage
from exchange.client._errors import UnknownInstrument
from exchange.client._numbers import Number, from_scaled, to_scaled
from exchange.client._rpcs import LIST_INSTRUMENTS
from exchange.v1 import market_data_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is traded. All but `stage` stays as it is for the life of the instrument."""

    symbol: str
    base_asset: str
    quote_asset: str
    price_scale: int
    """Digits after the point of a price."""
    quantity_scale: int
    quote_scale: int
    tick_size: Decimal
    """Prices are multiples of it."""
    lot_size: Decimal
    """Quantities are multiples of it."""
    min_quantity: Decimal
    max_quantity: Decimal
    band_bps: int
    """How far from the reference price an order may go, in 1/10,000; 0: as far as it likes."""
    reference_price: Decimal
    """Of the band before the first trade."""
    maker_fee_ppm: int
    """In 1/1,000,000 of the notional; negative: a rebate."""
    taker_fee_ppm: int
    max_open_orders: int
    shard: str
    stage: Stage
    """This and the next two: when the instruments were last listed."""
    next_stage_time_ns: int = 0
    """When the next stage is expected; 0: nobody knows."""
    stage_reason: str = ""
    """Why it is in this one, unless it is open."""

    @classmethod
    def from_proto(cls, message: types_pb2.Instrument) -> "Instrument":
        price_scale, quantity_scale = message.price_scale, message.quantity_scale
        return cls(
            symbol=message.symbol,
            base_asset=message.base_asset,
            quote_asset=message.quote_asset,
            price_scale=price_scale,
            quantity_scale=quantity_scale,
            quote_scale=message.quote_scale,
            tick_size=from_scaled(message.tick_size, price_scale),
            lot_size=from_scaled(message.lot_size, quantity_scale),
            min_quantity=from_scaled(message.min_quantity, quantity_scale),
            max_quantity=from_scaled(message.max_quantity, quantity_scale),
            band_bps=message.band_bps,
            reference_price=from_scaled(message.reference_price, price_scale),
            maker_fee_ppm=message.maker_fee_ppm,
            taker_fee_ppm=message.taker_fee_ppm,
            max_open_orders=message.max_open_orders,
            shard=message.shard,
            stage=Stage(message.stage),
            next_stage_time_ns=message.next_stage_time_ns,
            stage_reason=message.stage_reason,
        )

    def price(self, units: int) -> Decimal:
        """Of the wire's integer."""
        return from_scaled(units, self.price_scale)

    def quantity(self, units: int) -> Decimal:
        """Of the wire's integer."""
        return from_scaled(units, self.quantity_scale)

    def price_units(self, price: Number, name: str = "price") -> int:
        """For the wire. Raises InvalidNumber, or TypeError for a float."""
        return to_scaled(price, self.price_scale, name)

    def quantity_units(self, quantity: Number, name: str = "quantity") -> int:
        """For the wire. Raises InvalidNumber, or TypeError for a float."""
        return to_scaled(quantity, self.quantity_scale, name)

    def round_price(self, price: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
        """To a multiple of the tick; `rounding` as in `decimal`."""
        return _round(price, self.tick_size, rounding)

    def round_quantity(self, quantity: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
        """To a multiple of the lot; `rounding` as in `decimal`."""
        return _round(quantity, self.lot_size, rounding)


class InstrumentCache:
    """Fetched once, and again when one is asked for that it does not have."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._instruments: dict[str, Instrument] = {}
        self._fetches = 0
        self._fetching = asyncio.Lock()

    async def get(self, symbol: str) -> Instrument:
        """Raises UnknownInstrument if the exchange does not list it."""
        instrument = self._instruments.get(symbol)
        if instrument is not None:
            return instrument
        fetches = self._fetches
        async with self._fetching:
            # Of many that miss together one asks, and all use the answer.
            if self._fetches == fetches:
                await self.fetch()
        instrument = self._instruments.get(symbol)
        if instrument is None:
            known = ", ".join(self._instruments) or "none"
            raise UnknownInstrument(
                f"instrument: expected one of {known}, was {symbol!r}",
                reason=RejectReason.INSTRUMENT_UNKNOWN,
            )
        return instrument

    async def fetch(self, timeout: float | None = None) -> list[Instrument]:
        request = market_data_pb2.ListInstrumentsRequest()
        response = await self._caller.call(LIST_INSTRUMENTS, request, timeout=timeout)
        instruments = [Instrument.from_proto(message) for message in response.instruments]
        self._instruments.update({instrument.symbol: instrument for instrument in instruments})
        self._fetches += 1
        return instruments


def _round(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (value / step).quantize(Decimal(1), rounding=rounding) * step
