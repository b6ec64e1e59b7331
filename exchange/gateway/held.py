"""Orders that wait by `queue_for` until their shard takes orders again: in the order in which they came, and paced.

A shard that comes back lets orders in at a rate that rises. What has waited enters at that rate; what the shard's stage
refuses all the same waits on, in its place, for as long as it may.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, NamedTuple

from exchange.engine.words import RejectReason, Stage
from exchange.overload.token_bucket import TokenBucket
from exchange.v1 import trading_pb2, types_pb2

HELD_MAX = 10_000
"""As many as come in `queue_for` at most, at 1,000 a second and one order each."""
STEP_S = 0.01
"""How often it is looked whether the shard takes more."""
BOUNCE_S = 0.05
"""The shard's stage was another one than this gateway knew: it will know soon."""
BURST_S = 0.05
"""How much of the rate may come at once."""
_BOUNCED = frozenset(
    {
        RejectReason.STAGE_REPLAYING,
        RejectReason.STAGE_CANCEL_ONLY,
        RejectReason.STAGE_POST_ONLY,
        RejectReason.STAGE_LIMITED,
        RejectReason.RATE_LIMITED,
        RejectReason.QUEUE_FULL,
        RejectReason.SHARD_UNAVAILABLE,
        RejectReason.JOURNAL_UNAVAILABLE,
    }
)


class Pace(NamedTuple):
    """What a shard lets in: nothing, so many orders a second, or everything (None)."""

    orders_per_s: float | None


class HeldOrders:
    """Those for one shard. `pace` tells what it lets in now, `has_room` whether its link takes so many more,
    `retry_after_ms` when those shall come back that have waited in vain.
    """

    def __init__(
        self,
        pace: Callable[[], Pace],
        has_room: Callable[[int], bool],
        retry_after_ms: Callable[[], int],
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = pace
        self._has_room = has_room
        self._retry_after_ms = retry_after_ms
        self._monotonic_s = monotonic_s
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []
        """(ticket, orders, whose turn it becomes)"""
        self._tickets = count()
        self._bucket = TokenBucket(0.0, 0.0, monotonic_s())
        self._paused_until_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._line)

    def enter(
        self, data: bytes, wait_s: float, send: Callable[[bytes, int], Awaitable[bytes]]
    ) -> asyncio.Future[bytes]:
        """Return what becomes the TradeResponse to a packed TradeRequest, sent when its turn comes: maybe now.

        `send` has what is to be sent, and the milliseconds that remain. What is not taken in time is refused as the
        shard refused it last, or as unavailable.
        """
        request = trading_pb2.TradeRequest.FromString(data)
        sent = None
        if not self._line and self._lets_in(len(request.commands)):
            sent = send(data, int(wait_s * 1_000))
        return asyncio.ensure_future(self._follow(request, self._monotonic_s() + wait_s, send, sent))

    async def _follow(
        self,
        request: Any,
        deadline_s: float,
        send: Callable[[bytes, int], Awaitable[bytes]],
        sent: Awaitable[bytes] | None,
    ) -> bytes:
        response = trading_pb2.TradeResponse(request_id=request.request_id)
        for command in request.commands:
            response.results.append(_refusal(command, RejectReason.SHARD_UNAVAILABLE, self._retry_after_ms()))
        waiting = list(range(len(request.commands)))
        ticket = next(self._tickets)
        while waiting:
            if sent is None:
                remaining_s = deadline_s - self._monotonic_s()
                if remaining_s <= 0 or not await self._turn(ticket, len(waiting), remaining_s):
                    break
                part = trading_pb2.TradeRequest(commands=[request.commands[index] for index in waiting])
                remaining_ms = max(int((deadline_s - self._monotonic_s()) * 1_000), 1)
                sent = send(part.SerializeToString(), remaining_ms)
            results = trading_pb2.TradeResponse.FromString(await sent).results
            sent = None
            for index, result in zip(waiting, results, strict=True):
                response.results[index].CopyFrom(result)
            waiting = [index for index in waiting if int(response.results[index].reject_reason) in _BOUNCED]
            if waiting:
                self._paused_until_s = self._monotonic_s() + BOUNCE_S
        packed: bytes = response.SerializeToString()
        return packed

    async def _turn(self, ticket: int, orders: int, wait_s: float) -> bool:
        """Wait in line; return whether it is its turn, rather than too late or too many."""
        if len(self._line) >= HELD_MAX:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._line, (ticket, orders, turn))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        """Let in who is first in line, as the pace allows, until nobody waits."""
        while self._line:
            _, orders, turn = self._line[0]
            if turn.done():
                heapq.heappop(self._line)
            elif self._lets_in(orders):
                heapq.heappop(self._line)
                turn.set_result(None)
                # So that the link has it before the next one is looked at.
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(STEP_S)

    def _lets_in(self, orders: int) -> bool:
        now_s = self._monotonic_s()
        rate = self._pace().orders_per_s
        if now_s < self._paused_until_s or rate == 0 or not self._has_room(orders):
            return False
        if rate is None:
            return True
        bucket = self._bucket
        if bucket.rate_per_s != rate:
            burst = max(rate * BURST_S, 1.0)
            self._bucket = bucket = TokenBucket(rate, burst, now_s)
        # A message of more than comes at once goes when the bucket is full, and the next one waits for longer.
        return bucket.take(min(orders, bucket.burst), now_s)


def pace_of(stage: int, orders_per_s: int, share: float) -> Pace:
    """Return what a stage lets in through one of several gateways, which has that share of it."""
    if stage == Stage.OPEN:
        return Pace(None)
    return Pace(orders_per_s * share if stage == Stage.LIMITED else 0.0)


def _refusal(command: Any, reason: RejectReason, retry_after_ms: int) -> Any:
    kind = command.WhichOneof("command")
    return trading_pb2.OrderResult(
        outcome=types_pb2.OUTCOME_REJECTED,
        client_order_id=getattr(getattr(command, kind), "client_order_id", "") if kind else "",
        status=types_pb2.ORDER_STATUS_REJECTED,
        reject_reason=int(reason),  # type: ignore[arg-type]  # the numbers are the same
        retry_after_ms=retry_after_ms,
    )
