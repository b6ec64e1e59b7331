"""`session`: commands per second over a `Trade` stream, 200 a message, every one of them durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import grpc
import uvloop

from exchange.cli.bench import Figure
from exchange.cli.bench.echo import SERVICE
from exchange.cli.bench.live import OrderFlow, Plan, Targets, command_message, targets
from exchange.v1 import trading_pb2, trading_pb2_grpc

COMMANDS_PER_MESSAGE = 200
MESSAGES = 400
IN_FLIGHT = 24
"""Enough that a batch lies ready while one is under way; more would only wait, until the exchange sheds it."""
ROUNDS = 5
_PASSING = 500
"""Reasons from here on say something of the moment: not executed."""
SETTLE_S = 1.5


Batch = tuple[int, list[Plan]]
"""The request id of a message, and its commands."""


def measure() -> Figure:
    """Return the medians of the rounds; the two take turns.

    The messages lie ready, and the client looks at all of each answer. How the two compare when it has to make each
    message as it sends it, as most clients do, stands in the detail.
    """
    with targets() as at:
        rounds = uvloop.run(measure_rounds(at))
    made = [rates for rates, _ in rounds]
    ready = [rates for _, rates in rounds]
    value, reference = median(rate for rate, _ in ready), median(rate for _, rate in ready)
    ratio = median(ours / echo for ours, echo in ready)
    detail = (
        f"{COMMANDS_PER_MESSAGE} commands a message, {IN_FLIGHT} in flight; reference: bare grpc.aio echo; "
        f"with messages made on the way {median(rate for rate, _ in made):,.0f} and "
        f"{median(rate for _, rate in made):,.0f} ({median(ours / echo for ours, echo in made):.2f})"
    )
    return Figure("session", value, "commands/s", reference, ratio, detail)


async def measure_rounds(at: Targets) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return for each round: ours and the echo's commands per second, with messages made on the way, and ready."""
    rounds = []
    async with grpc.aio.insecure_channel(at.exchange) as exchange, grpc.aio.insecure_channel(at.echo) as echo:
        trade = trading_pb2_grpc.TradingServiceStub(exchange).Trade
        request = trading_pb2.TradeRequest
        stream = echo.stream_stream(f"/{SERVICE}/Stream", request.SerializeToString, request.FromString)
        for number in range(ROUNDS + 1):
            batches = _batches(at, f"s{number}-")
            made = await _both(trade(metadata=at.metadata), stream, batches)
            ready_messages = [_message(batch) for batch in _batches(at, f"r{number}-")]
            ready = await _both(trade(metadata=at.metadata), stream, ready_messages)
            # The first round warms up.
            if number:
                rounds.append((made, ready))
    return rounds


async def _both(
    trade: Any, stream: Callable[[], Any], batches: Sequence[Batch | trading_pb2.TradeRequest]
) -> tuple[float, float]:
    """Return ours and the echo's commands per second, each with the machine to itself."""
    ours = await _round(trade, batches)
    # Gateways and auditor are a little behind, and would catch up at the echo's expense.
    await asyncio.sleep(SETTLE_S)
    return ours, await _round(stream(), batches)


def _batches(at: Targets, prefix: str) -> list[Batch]:
    flow = OrderFlow(at.accounts, prefix)
    return [(i + 1, [flow.command() for _ in range(COMMANDS_PER_MESSAGE)]) for i in range(MESSAGES)]


def _message(batch: Batch) -> trading_pb2.TradeRequest:
    request_id, plans = batch
    message = trading_pb2.TradeRequest(request_id=request_id, deadline_ms=5_000)
    message.commands.extend(map(command_message, plans))
    return message


async def _round(call: Any, batches: Sequence[Batch | trading_pb2.TradeRequest]) -> float:
    """Send all messages with so many in flight, read every answer; return commands per second that were executed."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def send() -> None:
        for batch in batches:
            await room.acquire()
            await call.write(batch if isinstance(batch, trading_pb2.TradeRequest) else _message(batch))
        await call.done_writing()

    started_s = time.perf_counter()
    sender = asyncio.create_task(send())
    answers = executed = 0
    async for response in call:
        room.release()
        if isinstance(response, trading_pb2.TradeResponse):
            # A command that was not executed must not count as fast.
            executed += sum(1 for result in response.results if result.outcome and result.reject_reason < _PASSING)
            answers += len(response.results)
        else:
            assert all(command.on_behalf_of and command.WhichOneof("command") for command in response.commands)
            answers += len(response.commands)
            executed += len(response.commands)
    await sender
    assert answers == len(batches) * COMMANDS_PER_MESSAGE
    return executed / (time.perf_counter() - started_s)
