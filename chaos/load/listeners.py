"""Clients that only listen, to executions and to books, from one gateway after the other, and write down all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import grpc

from chaos.load.attempts import CHANNEL_OPTIONS, bearer
from chaos.load.client_log import ClientLog, fields_of_execution, fields_of_update
from exchange.v1 import market_data_pb2, market_data_pb2_grpc, trading_pb2, trading_pb2_grpc

RECONNECT_S = 0.1


class Listener:
    """Reads one stream for as long as it lasts, then the same from the next gateway."""

    def __init__(self, addresses: Sequence[str], first: int, log: ClientLog) -> None:
        self._addresses = addresses
        self._at = first
        self._log = log

    async def run(self) -> None:
        while True:
            address = self._addresses[self._at % len(self._addresses)]
            async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
                try:
                    await self._listen(channel, address)
                except grpc.aio.AioRpcError as error:
                    self._on_error(error)
            self._at += 1
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, channel: grpc.aio.Channel, address: str) -> None:
        raise NotImplementedError

    def _on_error(self, error: grpc.aio.AioRpcError) -> None:
        self._log.write("broken", why=f"{error.code().name}: {error.details()}"[:200])


class ExecutionListener(Listener):
    """Resumes after what it has; begins anew where a gateway no longer holds that."""

    def __init__(self, addresses: Sequence[str], key: str, first: int, log: ClientLog, last_ids: Sequence[str]) -> None:
        super().__init__(addresses, first, log)
        self._metadata = bearer(key)
        self._after: dict[str, int] | None = None
        self._waits_for = set(last_ids)
        self.heard_all = asyncio.Event()
        """Set once it was told of the last orders, which are closed as soon as they come."""

    def has_heard(self, sequences: Mapping[str, int]) -> bool:
        """Whether it was told of commands up to these, by shard; True where it could never listen."""
        after = self._after
        return after is None or all(after.get(shard, 0) >= sequence for shard, sequence in sequences.items())

    async def _listen(self, channel: grpc.aio.Channel, address: str) -> None:
        resumed = self._after
        request = trading_pb2.StreamExecutionsRequest(after_sequences=resumed or {})
        stub = trading_pb2_grpc.TradingServiceStub(channel)
        async for response in stub.StreamExecutions(request, metadata=self._metadata):
            if response.start_sequences:
                starts = dict(response.start_sequences)
                self._log.write("start" if resumed is None else "resume", seqs=starts, gw=address)
                self._after = starts
            assert self._after is not None, "executions before the first message, which says from where they start"
            for execution in response.executions:
                self._log.write("exec", **fields_of_execution(execution), gw=address)
                self._after[execution.shard] = execution.sequence
                if execution.type == trading_pb2.EXECUTION_TYPE_CLOSED:
                    self._waits_for.discard(execution.client_order_id)
            if not self._waits_for:
                self.heard_all.set()

    def _on_error(self, error: grpc.aio.AioRpcError) -> None:
        super()._on_error(error)
        if error.code() == grpc.StatusCode.OUT_OF_RANGE:
            self._after = None


class BookListener(Listener):
    """Reads all levels of one market."""

    def __init__(self, addresses: Sequence[str], market: str, first: int, log: ClientLog) -> None:
        super().__init__(addresses, first, log)
        self._market = market

    async def _listen(self, channel: grpc.aio.Channel, address: str) -> None:
        request = market_data_pb2.StreamOrderBookRequest(instrument=self._market)
        async for response in market_data_pb2_grpc.MarketDataServiceStub(channel).StreamOrderBook(request):
            for update in response.updates:
                self._log.write("book", **fields_of_update(update), gw=address)
