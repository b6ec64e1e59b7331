"""`failover`: how long a market takes no order when its shard's process is killed, at 1,000 orders a second.

The orders come in an open loop: each at its intended time, whatever became of those before. So an order that found
nobody counts as failed, and the time without orders is what clients see, not what the exchange says of itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from statistics import median

import grpc
import uvloop

from exchange.cli.bench import Figure
from exchange.cli.bench.live import SYMBOL, OrderFlow, Targets, bearer, command_message, make_rich, open_market, running
from exchange.client import AsyncClient, Client, Component, ComponentState, EvenkeelError
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2

TIMES = 10
ORDERS_PER_S = 1_000
ORDERS_PER_MESSAGE = 5
DEADLINE_MS = 1_000
POLL_S = 0.01
SETTLE_S = 2.0
BACK_S_MAX = 60.0
_Call = grpc.aio.StreamStreamCall[trading_pb2.TradeRequest, trading_pb2.TradeResponse]


@dataclass(frozen=True, slots=True)
class Failover:
    """One failure, in seconds from when it was made. The first two are as the status shows them."""

    suspected_s: float
    fenced_s: float
    """A new epoch."""
    first_order_s: float
    """The first order that was sent after the failure was acknowledged."""
    longest_pause_s: float
    failed: int
    """Orders that were not taken within their second."""


@dataclass(slots=True)
class _Sent:
    intended_s: float
    answered_s: float = 0.0
    is_taken: bool = False


@dataclass(slots=True)
class OpenLoop:
    """Sends orders at their intended times over one stream, and keeps what became of each."""

    flow: OrderFlow
    sent: list[_Sent] = field(default_factory=list)
    _messages: dict[int, list[_Sent | None]] = field(default_factory=dict)

    async def run(self, call: _Call) -> None:
        """Send until cancelled. A stream takes so many messages before the first is answered: the next ones wait."""
        outbox: asyncio.Queue[tuple[trading_pb2.TradeRequest, float]] = asyncio.Queue()
        helpers = [asyncio.create_task(work) for work in (self._read(call), self._write(call, outbox))]
        started_s = time.monotonic()
        try:
            for number in count(1):
                due_s = started_s + number * ORDERS_PER_MESSAGE / ORDERS_PER_S
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
                outbox.put_nowait((self._message(number, due_s), due_s + DEADLINE_MS / 1e3))
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _write(self, call: _Call, outbox: asyncio.Queue[tuple[trading_pb2.TradeRequest, float]]) -> None:
        while True:
            request, until_s = await outbox.get()
            remaining_ms = int((until_s - time.monotonic()) * 1e3)
            if remaining_ms > 0:
                request.deadline_ms = remaining_ms
                await call.write(request)

    def _message(self, number: int, due_s: float) -> trading_pb2.TradeRequest:
        """Return a message with its share of new orders, and the cancels that fall among them."""
        request = trading_pb2.TradeRequest(request_id=number)
        orders: list[_Sent | None] = []
        while sum(order is not None for order in orders) < ORDERS_PER_MESSAGE:
            plan = self.flow.command()
            request.commands.append(command_message(plan))
            orders.append(_Sent(due_s) if plan[0] == "place" else None)
        self._messages[number] = orders
        self.sent += filter(None, orders)
        return request

    async def _read(self, call: grpc.aio.StreamStreamCall[trading_pb2.TradeRequest, trading_pb2.TradeResponse]) -> None:
        async for response in call:
            now_s = time.monotonic()
            for order, result in zip(self._messages.pop(response.request_id), response.results, strict=True):
                if order is not None:
                    order.answered_s = now_s
                    order.is_taken = result.outcome == types_pb2.OUTCOME_ACKNOWLEDGED

    def first_taken_s(self, after_s: float) -> float | None:
        """Return when the first order that was due after a moment was acknowledged."""
        return min((o.answered_s for o in self.since(after_s) if o.is_taken), default=None)

    def longest_pause_s(self, from_s: float, to_s: float) -> float:
        """Return the longest time between two orders that were acknowledged, from just before the first moment on."""
        answered = sorted(o.answered_s for o in self.since(from_s - 1) if o.is_taken and o.answered_s < to_s)
        return max(later - earlier for earlier, later in pairwise(answered))

    def failed(self, from_s: float, to_s: float) -> int:
        """Return how many of the orders that were due within a time were not taken, for whatever reason."""
        return sum(not order.is_taken for order in self.since(from_s) if order.intended_s < to_s)

    def since(self, after_s: float) -> list[_Sent]:
        """Return the orders that were due after a moment."""
        return self.sent[bisect_right(self.sent, after_s, key=lambda order: order.intended_s) :]


async def kill_process(shard: Component) -> None:
    os.kill(shard.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A failure: what is done to the process of the market's shard, in words and deed, and what it may take."""

    name: str
    words: str
    inject: Callable[[Component], Awaitable[None]]
    first_order_s_max: float
    """By the median."""


SCENARIOS = (Scenario("failover", "kill -9 of a shard's process", kill_process, 1.0),)


def measure() -> list[Figure]:
    """Return for each scenario the median time to the first new order; reference: what it may be."""
    with running(shards=1) as exchange:
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
            buyer, seller = (operator.create_account(name).account_id for name in ("buyer", "seller"))
            metadata = bearer(exchange.operator_key)
            make_rich(operator, exchange.address, metadata, (buyer, seller))
        at = Targets(exchange.address, "", metadata, (buyer, seller))
        return [figure_of(s, uvloop.run(_measure(at, exchange.operator_key, s))) for s in SCENARIOS]


def figure_of(scenario: Scenario, failovers: Sequence[Failover]) -> Figure:
    def both(figures: Iterable[float], digits: int = 2) -> str:
        ordered = sorted(figures)
        return f"{median(ordered):,.{digits}f} (worst {ordered[-1]:,.{digits}f})"

    value = median(f.first_order_s for f in failovers)
    detail = (
        f"{scenario.words}, {len(failovers)} times, {ORDERS_PER_S:,} orders/s, open loop; seconds from there to "
        f"suspicion {both(f.suspected_s for f in failovers)}, to the new epoch "
        f"{both(f.fenced_s for f in failovers)}, to the first new order {both(f.first_order_s for f in failovers)}; "
        f"longest pause {both(f.longest_pause_s for f in failovers)}; failed orders "
        f"{both((f.failed for f in failovers), 0)}; reference: the most that is meant to be"
    )
    limit_s = scenario.first_order_s_max
    return Figure(scenario.name, value, "s", limit_s, value / limit_s, detail)


async def _measure(at: Targets, operator_key: str, scenario: Scenario) -> list[Failover]:
    failovers = []
    async with (
        AsyncClient(at.exchange, operator_key, timeout=2.0) as operator,
        grpc.aio.insecure_channel(at.exchange) as channel,
    ):
        load = OpenLoop(OrderFlow(at.accounts, f"{scenario.name}-"))
        call = trading_pb2_grpc.TradingServiceStub(channel).Trade(metadata=at.metadata)
        running_load = asyncio.create_task(load.run(call))
        for _ in range(TIMES):
            await asyncio.sleep(SETTLE_S)
            failovers.append(await _one(load, operator, scenario))
        running_load.cancel()
        await asyncio.gather(running_load, return_exceptions=True)
    return failovers


async def _one(load: OpenLoop, operator: AsyncClient, scenario: Scenario) -> Failover:
    """Make one failure and watch until orders are taken again and everything is up."""
    before = await _shard(operator)
    assert before is not None
    failed_s = time.monotonic()
    await scenario.inject(before)
    suspected_s = fenced_s = 0.0
    while time.monotonic() - failed_s < BACK_S_MAX:
        shard = await _shard(operator)
        since_s = time.monotonic() - failed_s
        if shard is not None:
            if not suspected_s and (shard.state is not ComponentState.UP or shard.incarnation != before.incarnation):
                suspected_s = since_s
            if not fenced_s and shard.epoch > before.epoch:
                fenced_s = since_s
        if fenced_s and shard is not None and shard.state is ComponentState.UP and load.first_taken_s(failed_s):
            break
        await asyncio.sleep(POLL_S)
    first_s = load.first_taken_s(failed_s)
    if first_s is None:
        raise TimeoutError(f"no order was taken for {BACK_S_MAX:.0f} s after the failure of {before.name}")
    over_s = time.monotonic()
    # Until everything that was due by then has its outcome; a batch that was under way may have been held for it, too.
    await asyncio.sleep(2 * DEADLINE_MS / 1e3)
    pause_s = load.longest_pause_s(failed_s, over_s)
    failed = load.failed(failed_s - DEADLINE_MS / 1e3, over_s)
    return Failover(suspected_s, fenced_s, first_s - failed_s, pause_s, failed)


async def _shard(operator: AsyncClient) -> Component | None:
    """Return the market's shard as the status has it now; None if nobody can say."""
    try:
        status = await operator.status()
    except EvenkeelError:
        return None
    return next(component for component in status.components if SYMBOL in component.instruments)
