"""Execution streams: what became of an account's orders, resumable for as far back as the gateway holds it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc

from exchange.gateway.errors import abort
from exchange.gateway.replica import Execution, ShardReplica
from exchange.v1 import trading_pb2

KEPT_PER_SHARD = 200_000
PENDING_MAX = 50_000
"""Executions that wait for a reader; one that is further behind is ended, and can resume."""
EXECUTIONS_PER_MESSAGE = 512


class _Reader:
    """One stream's queue of (shard, execution)."""

    def __init__(self) -> None:
        self.pending: deque[tuple[str, Execution]] = deque()
        self.more = asyncio.Event()
        self.is_slow = False
        self.gap = ""

    def add(self, shard: str, execution: Execution) -> None:
        if len(self.pending) >= PENDING_MAX:
            self.is_slow = True
        else:
            self.pending.append((shard, execution))
        self.more.set()


class ExecutionHub:
    """Keeps the newest executions of every shard, and hands them to the accounts that listen."""

    def __init__(self, replicas: Mapping[str, ShardReplica]) -> None:
        self._replicas = replicas
        self._kept: dict[str, deque[Execution]] = {shard: deque(maxlen=KEPT_PER_SHARD) for shard in replicas}
        self._held_after: dict[str, int] = dict.fromkeys(replicas, 0)
        self._readers: dict[int, list[_Reader]] = {}
        for shard, replica in replicas.items():
            replica.on_execution = self._keeper(shard)

    def reset(self, shard: str) -> None:
        """Forget what was kept: the shard's copy was loaded anew, and what lies between is not known."""
        self._kept[shard].clear()
        self._held_after[shard] = self._replicas[shard].sequence
        for readers in self._readers.values():
            for reader in readers:
                reader.gap = shard
                reader.more.set()

    def _keeper(self, shard: str) -> Any:
        kept = self._kept[shard]
        readers_of = self._readers.get
        held_after = self._held_after

        def keep(execution: Execution) -> None:
            if len(kept) == KEPT_PER_SHARD:
                held_after[shard] = kept[0][0]
            kept.append(execution)
            readers = readers_of(execution[1])
            if readers:
                for reader in readers:
                    reader.add(shard, execution)

        return keep

    async def stream(self, account: int, after: Mapping[str, int], context: Any) -> AsyncIterator[Any]:
        """Yield the account's executions as StreamExecutionsResponses, from `after` (shard to sequence) on."""
        for shard, sequence in after.items():
            replica = self._replicas.get(shard)
            if replica is None:
                await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "SHARD_UNKNOWN", f"no shard {shard!r}")
            if sequence < self._held_after[shard] or (sequence > replica.sequence and replica.is_loaded):
                message = f"{shard}: asked for {sequence}, held is {self._held_after[shard]} to {replica.sequence}"
                await abort(context, grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD", message)
        reader = _Reader()
        starts = {shard: after.get(shard, replica.sequence) for shard, replica in self._replicas.items()}
        for shard, sequence in after.items():
            for execution in self._kept[shard]:
                if execution[1] == account and execution[0] > sequence:
                    reader.add(shard, execution)
        self._readers.setdefault(account, []).append(reader)
        try:
            yield trading_pb2.StreamExecutionsResponse(start_sequences=starts)
            while True:
                await reader.more.wait()
                if reader.gap:
                    message = f"{reader.gap} was loaded anew: list the orders, then start again"
                    await abort(context, grpc.StatusCode.OUT_OF_RANGE, "GAP", message)
                take = min(len(reader.pending), EXECUTIONS_PER_MESSAGE)
                executions = [_encode(*reader.pending.popleft()) for _ in range(take)]
                if executions:
                    yield trading_pb2.StreamExecutionsResponse(executions=executions)
                if not reader.pending:
                    if reader.is_slow:
                        message = f"more than {PENDING_MAX} executions waited: resume from the last sequence"
                        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER", message)
                    reader.more.clear()
        finally:
            readers = self._readers[account]
            readers.remove(reader)
            if not readers:
                del self._readers[account]


def _encode(shard: str, execution: Execution) -> Any:
    (
        sequence,
        _,
        kind,
        instrument,
        client_order_id,
        order_id,
        side,
        status,
        price,
        quantity,
        filled,
        open_,
        close_reason,
        trade_id,
        trade_price,
        trade_quantity,
        liquidity,
        time_ns,
    ) = execution
    return trading_pb2.Execution(
        shard=shard,
        sequence=sequence,
        type=kind,
        instrument=instrument,
        client_order_id=client_order_id,
        order_id=order_id,
        side=side,
        status=status,
        price=price,
        quantity=quantity,
        filled_quantity=filled,
        open_quantity=open_,
        close_reason=close_reason,
        trade_id=trade_id,
        trade_price=trade_price,
        trade_quantity=trade_quantity,
        liquidity=liquidity,
        time_ns=time_ns,
    )
