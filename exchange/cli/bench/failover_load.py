"""The client of `failover`: orders in an open loop through the SDK, and what became of each."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import count, pairwise

from exchange.cli.bench.live import OrderFlow, command_message
from exchange.client import AsyncClient
from exchange.v1 import trading_pb2, types_pb2

ORDERS_PER_S = 1_000
ORDERS_PER_MESSAGE = 5
DEADLINE_S = 1.0
IN_FLIGHT_MAX = 2_000
"""Messages; so that those that are held while nobody takes them do not keep the next ones from their times."""


@dataclass(slots=True)
class Order:
    """One order. Times are the monotonic clock's, in seconds."""

    intended_s: float
    answered_s: float = 0.0
    is_taken: bool = False


@dataclass(slots=True)
class OpenLoop:
    """Sends each order at its intended time, whatever became of those before; the SDK finds a gateway that takes it."""

    flow: OrderFlow
    orders: list[Order] = field(default_factory=list)

    async def run(self, client: AsyncClient) -> None:
        """Send until cancelled."""
        started_s = time.monotonic()
        sending: set[asyncio.Task[None]] = set()
        async with client.trade(timeout=DEADLINE_S, in_flight_max=IN_FLIGHT_MAX) as session:

            async def send(commands: list[trading_pb2.Command], orders: list[Order | None]) -> None:
                results = await session.outcomes(commands)
                now_s = time.monotonic()
                for order, result in zip(orders, results, strict=True):
                    if order is not None:
                        order.answered_s = now_s
                        order.is_taken = result.outcome == types_pb2.OUTCOME_ACKNOWLEDGED

            for number in count(1):
                due_s = started_s + number * ORDERS_PER_MESSAGE / ORDERS_PER_S
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
                task = asyncio.create_task(send(*self._message(due_s)))
                sending.add(task)
                task.add_done_callback(sending.discard)

    def _message(self, due_s: float) -> tuple[list[trading_pb2.Command], list[Order | None]]:
        """Return a message with its share of new orders, and the cancels that fall among them (None)."""
        commands: list[trading_pb2.Command] = []
        orders: list[Order | None] = []
        while sum(order is not None for order in orders) < ORDERS_PER_MESSAGE:
            plan = self.flow.command()
            commands.append(command_message(plan))
            orders.append(Order(due_s) if plan[0] == "place" else None)
        self.orders += filter(None, orders)
        return commands, orders

    def taken_s(self, from_s: float, to_s: float) -> list[float]:
        """Return when orders were acknowledged within a time, in order."""
        since = self._due_after(from_s - 2 * DEADLINE_S)
        return sorted(o.answered_s for o in since if o.is_taken and from_s <= o.answered_s <= to_s)

    def longest_pause(self, from_s: float, to_s: float) -> tuple[float, float]:
        """Return the longest time between two orders that were acknowledged, as its begin and end.

        It may have begun before the time, and ends within it.
        """
        pauses = (pause for pause in pairwise(self.taken_s(from_s - DEADLINE_S, to_s)) if pause[1] > from_s)
        return max(pauses, key=lambda pause: pause[1] - pause[0])

    def failed(self, from_s: float, to_s: float) -> int:
        """Return how many of the orders that were due within a time were not taken, for whatever reason."""
        return sum(not order.is_taken for order in self._due_after(from_s) if order.intended_s < to_s)

    def takes_orders(self, due_after_s: float) -> bool:
        """Whether an order that was due after a moment was acknowledged."""
        return any(order.is_taken for order in self._due_after(due_after_s))

    def _due_after(self, moment_s: float) -> list[Order]:
        return self.orders[bisect_right(self.orders, moment_s, key=lambda order: order.intended_s) :]
