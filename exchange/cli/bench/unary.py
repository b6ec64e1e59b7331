"""`unary`: orders per second by single calls, 64 in flight; and how long one takes alone."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import grpc
import uvloop

from exchange.cli.bench import Figure
from exchange.cli.bench.echo import SERVICE
from exchange.cli.bench.live import OrderFlow, Targets, targets
from exchange.v1 import trading_pb2, trading_pb2_grpc

IN_FLIGHT = 64
CALLS = 3_000
CALLS_ALONE = 400
ROUNDS = 5


def measure() -> Figure:
    """Return the medians of the rounds; the two take turns."""
    with targets() as at:
        rates, alone_ms = uvloop.run(_measure(at))
    value, reference = median(rate for rate, _ in rates), median(rate for _, rate in rates)
    ratio = median(ours / echo for ours, echo in rates)
    detail = f"{IN_FLIGHT} in flight; one at a time p50 {median(alone_ms):.2f} ms; reference: bare grpc.aio echo"
    return Figure("unary", value, "orders/s", reference, ratio, detail)


async def _measure(at: Targets) -> tuple[list[tuple[float, float]], list[float]]:
    rates = []
    alone_ms = []
    async with grpc.aio.insecure_channel(at.exchange) as exchange, grpc.aio.insecure_channel(at.echo) as echo:
        place = trading_pb2_grpc.TradingServiceStub(exchange).PlaceOrder
        request = trading_pb2.PlaceOrderRequest
        bare = echo.unary_unary(f"/{SERVICE}/Unary", request.SerializeToString, request.FromString)
        for number in range(ROUNDS + 1):
            flow = OrderFlow(at.accounts, f"u{number}-")
            orders = [request(**flow.place()[0]) for _ in range(CALLS)]
            ours = await _round(place, orders, at.metadata)
            theirs = await _round(bare, orders, ())
            if number:
                rates.append((ours, theirs))
        flow = OrderFlow(at.accounts, "alone-")
        for _ in range(CALLS_ALONE):
            order = request(**flow.place()[0])
            started_s = time.perf_counter()
            await place(order, metadata=at.metadata)
            alone_ms.append((time.perf_counter() - started_s) * 1_000)
    return rates, alone_ms


async def _round(call: Any, orders: list[Any], metadata: tuple[tuple[str, str], ...]) -> float:
    waiting = iter(orders)

    async def client() -> None:
        for order in waiting:
            await call(order, metadata=metadata, timeout=5.0)

    started_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
    return len(orders) / (time.perf_counter() - started_s)
