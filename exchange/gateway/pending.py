"""Answers that wait: what became of commands that a shard has parked until money came from the ledger.

The shard answers such a command at once with PENDING_FUNDS, so that its link goes on; the client's answer is held here
until the feed says what became of it, which takes a few milliseconds as a rule and a second at most.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from exchange.engine.events import ParkedResolved
from exchange.engine.parking import PARKED_NS_MAX
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS
from exchange.v1 import trading_pb2, types_pb2

WAIT_S_MAX = PARKED_NS_MAX / 1e9 + 0.5
"""Then the answer goes out as it is: executions, or a repeat of the command, will tell."""
KEPT_MAX = 10_000
"""Outcomes, the newest ones: answers that they belong to may still be under way, each repeat's too."""
_PENDING = types_pb2.ORDER_STATUS_PENDING_FUNDS
_PASSING = 500
"""Reasons from here on say something of the moment (see `RejectReason.is_passing`)."""


class PendingCommands:
    """Those of one shard, by the sequence of the command."""

    def __init__(self, *, wait_s_max: float = WAIT_S_MAX, kept_max: int = KEPT_MAX) -> None:
        self._wait_s_max = wait_s_max
        self._kept_max = kept_max
        self._resolved: dict[int, ParkedResolved] = {}
        # What no answer waits for any more is gone from it.
        self._waiting: WeakValueDictionary[int, asyncio.Future[ParkedResolved]] = WeakValueDictionary()

    def on_resolved(self, resolved: ParkedResolved) -> None:
        """Take what the feed says."""
        waiting = self._waiting.pop(resolved.parked_sequence, None)
        if waiting is not None:
            waiting.set_result(resolved)
        self._resolved[resolved.parked_sequence] = resolved
        if len(self._resolved) > self._kept_max:
            del self._resolved[next(iter(self._resolved))]

    async def complete(self, data: bytes) -> bytes:
        """Return a packed TradeResponse with what became of the commands in it that wait."""
        response = trading_pb2.TradeResponse.FromString(data)
        results = [result for result in response.results if result.status == _PENDING]
        outcomes = [self._outcome(result.sequence) for result in results]
        await asyncio.wait(outcomes, timeout=self._wait_s_max)
        for result, outcome in zip(results, outcomes, strict=True):
            if outcome.done():
                _put(result, outcome.result())
        return response.SerializeToString()

    def _outcome(self, sequence: int) -> asyncio.Future[ParkedResolved]:
        """Return what becomes of a command, the same to all answers that wait for it."""
        outcome = self._waiting.get(sequence)
        if outcome is None:
            outcome = asyncio.get_running_loop().create_future()
            if (resolved := self._resolved.get(sequence)) is not None:
                outcome.set_result(resolved)
            else:
                self._waiting[sequence] = outcome
        return outcome


def _put(result: Any, resolved: ParkedResolved) -> None:
    reason = resolved.reject_reason
    result.outcome = types_pb2.OUTCOME_REJECTED if reason else types_pb2.OUTCOME_ACKNOWLEDGED
    result.order_id = resolved.order_id
    result.status = resolved.status
    result.filled_quantity = resolved.filled
    result.open_quantity = resolved.open
    result.reject_reason = reason
    result.close_reason = resolved.close_reason
    if reason >= _PASSING:
        result.retry_after_ms = UNAVAILABLE_RETRY_MS
