"""`session`: commands per second over a `Trade` stream, 200 a message, every one of them durable."""

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

COMMANDS_PER_MESSAGE = 200
MESSAGES = 400
IN_FLIGHT = 64
ROUNDS = 5


def measure() -> Figure:
    """Return the medians of the rounds; the two take turns."""
    with targets() as at:
        rates = uvloop.run(_measure(at))
    value, reference = median(rate for rate, _ in rates), median(rate for _, rate in rates)
    ratio = median(ours / echo for ours, echo in rates)
    detail = f"{COMMANDS_PER_MESSAGE} commands a message, {IN_FLIGHT} in flight; reference: bare grpc.aio echo"
    return Figure("session", value, "commands/s", reference, ratio, detail)


async def _measure(at: Targets) -> list[tuple[float, float]]:
    rates = []
    async with grpc.aio.insecure_channel(at.exchange) as exchange, grpc.aio.insecure_channel(at.echo) as echo:
        trade = trading_pb2_grpc.TradingServiceStub(exchange).Trade
        request, response = trading_pb2.TradeRequest, trading_pb2.TradeResponse
        stream = echo.stream_stream(f"/{SERVICE}/Stream", request.SerializeToString, request.FromString)
        for number in range(ROUNDS + 1):
            flow = OrderFlow(at.accounts, f"s{number}-")
            messages = [
                request(
                    request_id=i + 1, commands=[flow.command() for _ in range(COMMANDS_PER_MESSAGE)], deadline_ms=5_000
                )
                for i in range(MESSAGES)
            ]
            ours = await _round(trade(metadata=at.metadata), messages, response)
            theirs = await _round(stream(), messages, request)
            # The first round warms up.
            if number:
                rates.append((ours, theirs))
    return rates


async def _round(call: Any, messages: list[Any], response_type: Any) -> float:
    """Send all messages with so many in flight, read every answer; return commands per second."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def send() -> None:
        for message in messages:
            await room.acquire()
            await call.write(message)
        await call.done_writing()

    started_s = time.perf_counter()
    sender = asyncio.create_task(send())
    answers = 0
    async for response in call:
        room.release()
        if response_type is trading_pb2.TradeResponse:
            # A command that was not executed must not count as fast.
            assert all(result.outcome and result.reject_reason < 500 for result in response.results)
            answers += len(response.results)
        else:
            answers += len(response.commands)
    await sender
    assert answers == len(messages) * COMMANDS_PER_MESSAGE
    return answers / (time.perf_counter() - started_s)
