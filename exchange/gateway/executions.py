"""Execution streams: what became of an account's orders, resumable for as far back as the gateway holds it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import grpc

from exchange.engine.instrument import Instrument
from exchange.engine.money import format_amount
from exchange.gateway.draining import Draining
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS, abort
from exchange.gateway.execution_rows import OF_ORDERS, Execution, ExecutionBatch, PackedExecutions
from exchange.gateway.replica import ShardReplica
from exchange.v1 import trading_pb2

KEPT_PER_SHARD = 200_000
"""Events; a trade is one, and an execution of each side."""
PENDING_MAX = 50_000
"""Executions that wait for a reader; one that is further behind is ended, and can resume."""
EXECUTIONS_PER_MESSAGE = 512
EXECUTIONS_PER_COMMAND_MAX = 16_384
"""A message holds whole commands, so that its last sequence is a place to resume from; but no more than this."""
AHEAD_MAX = 1_000_000
"""Commands by which a reader may be ahead: it comes from a gateway whose copy is further than this one's."""
CHUNK_MIN = 4_096
SLOW_READER_RETRY_MS = 1_000
PROGRESS_S = 5.0
"""So often a stream in which nothing happens says how far it is, so that it can go on from there later."""

_SEQUENCE, _ACCOUNT, _TYPE, _INSTRUMENT = 0, 1, 2, 3

ShardRow = tuple[str, Execution]
"""The shard, and what happened there."""


class _Chunk:
    """Executions in a row, of whole commands. Complete from the moment that somebody looks an account up."""

    def __init__(self) -> None:
        self.batches: list[PackedExecutions] = []
        self.events = 0
        self._by_account: dict[int, list[Execution]] | None = None

    @property
    def is_complete(self) -> bool:
        return self._by_account is not None or self.events >= CHUNK_MIN

    def add(self, batch: PackedExecutions) -> None:
        self.batches.append(batch)
        self.events += batch.events

    def of(self, account: int) -> list[Execution]:
        """Return the account's executions. The first call sorts out all accounts: many readers may come at once."""
        if self._by_account is None:
            by_account: dict[int, list[Execution]] = {}
            for batch in self.batches:
                for row in batch.rows():
                    by_account.setdefault(row[_ACCOUNT], []).append(row)
            self._by_account = by_account
        return self._by_account.get(account, [])


class _Held:
    """The newest executions of one shard, in chunks: adding costs next to nothing, old ones go a chunk at a time."""

    def __init__(self, events_max: int) -> None:
        self.after = 0
        """Everything after this sequence is held."""
        self.chunks: deque[_Chunk] = deque()
        self._events_max = events_max
        self._events = 0

    def add(self, batch: PackedExecutions) -> None:
        if not self.chunks or self.chunks[-1].is_complete:
            self.chunks.append(_Chunk())
        self.chunks[-1].add(batch)
        self._events += batch.events
        while self._events > self._events_max and len(self.chunks) > 1:
            oldest = self.chunks.popleft()
            self._events -= oldest.events
            self.after = oldest.batches[-1].last_sequence

    def restart(self, sequence: int) -> None:
        self.chunks.clear()
        self._events = 0
        self.after = sequence


class ExecutionReader:
    """One stream: what waits for it, and per shard the sequence up to which it has everything already.

    `types`: of executions that it is told. `backlog`: the chunks of each shard that is resumed.
    """

    def __init__(self, account: int, after: Mapping[str, int], types: frozenset[int]) -> None:
        self.account = account
        self.pending: deque[ShardRow] = deque()
        self.more = asyncio.Event()
        self.is_slow = False
        self.gap = ""
        self.backlog: list[tuple[str, list[_Chunk]]] = []
        self._after = dict(after)
        self._types = types

    def add(self, shard: str, execution: Execution, pending_max: int) -> None:
        if self.is_slow or execution[_SEQUENCE] <= self._after.get(shard, 0) or execution[_TYPE] not in self._types:
            return
        if len(self.pending) >= pending_max:
            # It resumes after what it was sent, so all that waits can go.
            self.is_slow = True
            self.pending.clear()
        else:
            self.pending.append((shard, execution))
        self.more.set()

    def skip(self, after: Mapping[str, int]) -> None:
        """Leave out what is known up to these sequences, of what waits and of what comes."""
        self._after.update(after)
        known = self._after
        self.pending = deque(row for row in self.pending if row[1][_SEQUENCE] > known.get(row[0], 0))

    def held(self) -> Iterator[list[ShardRow]]:
        """Yield what is resumed, by messages."""
        for shard, chunks in self.backlog:
            while chunks:
                rows = chunks.pop(0).of(self.account)
                after = self._after[shard]
                wanted = (row for row in rows if row[_SEQUENCE] > after and row[_TYPE] in self._types)
                yield from _whole_commands(shard, wanted)

    async def wait(self, timeout_s: float) -> None:
        """Wait for something to tell, but not for ever."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.more.wait()
        except TimeoutError:
            pass

    def take(self) -> list[ShardRow]:
        """Return what waits, up to a message, whole commands if possible."""
        pending = self.pending
        taken: list[ShardRow] = []
        while pending and len(taken) < EXECUTIONS_PER_COMMAND_MAX:
            if len(taken) >= EXECUTIONS_PER_MESSAGE and _command(pending[0]) != _command(taken[-1]):
                break
            taken.append(pending.popleft())
        if not pending:
            self.more.clear()
        return taken


class ExecutionHub:
    """Keeps the newest executions of every shard, and hands them to the accounts that listen."""

    def __init__(
        self,
        replicas: Mapping[str, ShardReplica],
        *,
        kept_per_shard: int = KEPT_PER_SHARD,
        pending_max: int = PENDING_MAX,
        progress_s: float = PROGRESS_S,
        draining: Draining | None = None,
    ) -> None:
        self._replicas = replicas
        self._progress_s = progress_s
        self._draining = draining or Draining()
        self._pending_max = pending_max
        self._held = {shard: _Held(kept_per_shard) for shard in replicas}
        self._readers: dict[int, list[ExecutionReader]] = {}
        for shard, replica in replicas.items():
            replica.on_executions = partial(self._on_executions, shard)

    def reset(self, shard: str) -> None:
        """Forget what was kept: the shard's copy was loaded anew, and what lies between is not known."""
        self._held[shard].restart(self._replicas[shard].sequence)
        for readers in self._readers.values():
            for reader in readers:
                reader.gap = shard
                reader.more.set()

    def _on_executions(self, shard: str, executions: ExecutionBatch) -> None:
        self._held[shard].add(executions.packed())
        if not self._readers:
            return
        readers_of = self._readers.get
        for execution in executions.rows():
            readers = readers_of(execution[_ACCOUNT])
            if readers:
                for reader in readers:
                    reader.add(shard, execution, self._pending_max)

    async def stream(
        self, account: int, after: Mapping[str, int], context: Any
    ) -> AsyncIterator[trading_pb2.StreamExecutionsResponse]:
        """Yield the account's executions, from `after` (shard to sequence) on; shards not named, from now on.

        Ends when the gateway drains, having told all, and up to where that is.

        Ends the call with OUT_OF_RANGE if what follows on `after` is not held (any longer), with RESOURCE_EXHAUSTED
        if the reader is too slow, and with UNAVAILABLE if `after` names a shard of which there is no copy yet.
        """
        for shard, sequence in after.items():
            await self.check(shard, sequence, context)
        starts = self.sequences() | dict(after)
        told = starts
        with self.reading(account, after, OF_ORDERS) as reader, self._draining.watching(reader.more.set):
            yield trading_pb2.StreamExecutionsResponse(start_sequences=starts)
            for rows in reader.held():
                await self.check_reader(reader, context)
                yield self._response(rows)
            while not self._draining.is_on or reader.pending:
                await reader.wait(self._progress_s)
                await self.check_reader(reader, context)
                if taken := reader.take():
                    yield self._response(taken)
                    continue
                reached = {shard: max(n, after.get(shard, 0)) for shard, n in self.sequences().items()}
                if reached != told:
                    told = reached
                    yield trading_pb2.StreamExecutionsResponse(sequences=reached)

    def sequences(self) -> dict[str, int]:
        """Return up to where each shard is known here; those of which there is no copy yet are left out."""
        return {shard: replica.sequence for shard, replica in self._replicas.items() if replica.is_loaded}

    def held_after(self, shard: str) -> int:
        """Return the sequence after which everything of a shard is held."""
        return self._held[shard].after

    @contextmanager
    def reading(self, account: int, after: Mapping[str, int], types: frozenset[int]) -> Iterator[ExecutionReader]:
        """Give a reader that what happens from now on comes to; what is held after `after` is its backlog."""
        reader = ExecutionReader(account, after, types)
        for shard in after:
            chunks = list(self._held[shard].chunks)
            if chunks:
                chunks[-1].of(account)  # completes it: what comes from now on goes to the reader
            reader.backlog.append((shard, chunks))
        readers = self._readers.setdefault(account, [])
        readers.append(reader)
        try:
            yield reader
        finally:
            readers.remove(reader)
            if not readers:
                del self._readers[account]

    async def check(self, shard: str, sequence: int, context: Any) -> None:
        """End the call unless everything of a shard after `sequence` is held."""
        replica = self._replicas.get(shard)
        if replica is None:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "SHARD_UNKNOWN", f"no shard {shard!r}")
        if not replica.is_loaded:
            message = f"{shard}: not known here yet"
            await abort(context, grpc.StatusCode.UNAVAILABLE, "SHARD_UNAVAILABLE", message, UNAVAILABLE_RETRY_MS)
        held_after = self._held[shard].after
        if not held_after <= sequence <= replica.sequence + AHEAD_MAX:
            message = f"{shard}: asked for what follows {sequence}, held is what follows {held_after}"
            await abort(context, grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD", message)

    async def check_reader(self, reader: ExecutionReader, context: Any) -> None:
        """End the call of a reader that missed something."""
        if reader.gap:
            message = f"{reader.gap} was loaded anew: list the orders, then start again"
            await abort(context, grpc.StatusCode.OUT_OF_RANGE, "GAP", message)
        if reader.is_slow:
            message = f"more than {self._pending_max} executions waited: resume from the last sequence"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await abort(context, code, "SLOW_READER", message, SLOW_READER_RETRY_MS)

    def instrument(self, shard: str, symbol: str) -> Instrument:
        """Return an instrument of which something was told."""
        return self._replicas[shard].books[symbol].instrument

    def _response(self, rows: Iterable[ShardRow]) -> trading_pb2.StreamExecutionsResponse:
        executions = [_encode(shard, row, self.instrument(shard, row[_INSTRUMENT])) for shard, row in rows]
        return trading_pb2.StreamExecutionsResponse(executions=executions)


def _command(waiting: ShardRow) -> tuple[str, int]:
    return waiting[0], waiting[1][_SEQUENCE]


def _whole_commands(shard: str, rows: Iterable[Execution]) -> Iterator[list[ShardRow]]:
    """Split the executions of a shard into messages, as `ExecutionReader.take` does."""
    taken: list[ShardRow] = []
    for _, command in groupby(rows, itemgetter(_SEQUENCE)):
        for row in command:
            taken.append((shard, row))
            if len(taken) == EXECUTIONS_PER_COMMAND_MAX:
                yield taken
                taken = []
        if len(taken) >= EXECUTIONS_PER_MESSAGE:
            yield taken
            taken = []
    if taken:
        yield taken


def _encode(shard: str, execution: Execution, instrument: Instrument) -> trading_pb2.Execution:
    (
        sequence,
        _,
        kind,
        symbol,
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
        fee,
    ) = execution
    return trading_pb2.Execution(
        shard=shard,
        sequence=sequence,
        type=kind,
        instrument=symbol,
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
        fee=format_amount(fee, instrument.quote_scale) if trade_id else "",
        fee_asset=instrument.quote_asset if trade_id else "",
    )
