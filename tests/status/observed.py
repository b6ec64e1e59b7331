"""What tests let the status service see."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import count

from exchange.client import Event, Instrument, Stage
from status.causes import Plan
from status.model import Component, ComponentStatus, TradingMode
from status.watch.looks import Kind, Look, Result

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
PLAN = Plan({"shard-0": ("BTC-USDT",), "shard-1": ("ETH-USDT",)}, {"gateway-0": 0, "gateway-1": 1})


def look(
    kind: Kind,
    at_s: float,
    result: Result = Result.OK,
    *,
    gateway: int = 0,
    instrument: str = "",
    took_ms: float = 5.0,
) -> Look:
    ended_ns = START + int(at_s * SECOND)
    return Look(kind, gateway, instrument, ended_ns - int(took_ms * 1e6), ended_ns, result)


def instrument(symbol: str, shard: str) -> Instrument:
    return Instrument(
        symbol=symbol,
        base_asset=symbol.partition("-")[0],
        quote_asset=symbol.partition("-")[2],
        price_scale=2,
        quantity_scale=4,
        quote_scale=6,
        tick_size=Decimal("0.01"),
        lot_size=Decimal("0.0001"),
        min_quantity=Decimal("0.0001"),
        max_quantity=Decimal(1000),
        band_bps=0,
        reference_price=Decimal(0),
        maker_fee_ppm=0,
        taker_fee_ppm=0,
        max_open_orders=0,
        shard=shard,
        stage=Stage.OPEN,
    )


def component(
    name: str,
    status: ComponentStatus = ComponentStatus.OPERATIONAL,
    *,
    mode: TradingMode | None = None,
    symbol: str = "",
    position: int = 0,
) -> Component:
    return Component(
        id=name,
        name=name.replace("-", " "),
        group="Trading" if symbol else "API",
        position=position,
        status=status,
        since_ns=START,
        reason="" if status is ComponentStatus.OPERATIONAL else "It does not work.",
        instrument=symbol,
        trading_mode=mode,
    )


def event(at_s: float, kind: str, name: str, detail: str = "") -> Event:
    return Event(int(at_s * 10), START + int(at_s * SECOND), kind, name, 1, 1, "node-7", detail)


def ids() -> Iterator[str]:
    return (f"id-{number}" for number in count(1))
