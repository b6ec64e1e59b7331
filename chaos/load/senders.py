"""Who sends: the SDK as it is, or clients as careless as those of an incident."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc

from chaos.load.record import Ending
from exchange.client import AsyncClient, EvenkeelError, Instrument, NotExecuted, Outcome, PlaceOrder
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2

NAIVE_ATTEMPTS_MAX = 8

Verdict = tuple[Ending, str]


class Sender(Protocol):
    """Sends for one account."""

    @property
    def attempts(self) -> int:
        """Made so far."""
        ...

    async def place(self, order: PlaceOrder) -> Verdict: ...

    async def cancel(self, client_order_id: str) -> Verdict: ...

    async def close(self) -> None: ...


class SdkSender:
    """Obeys pushback, and retries within a budget."""

    def __init__(self, addresses: Sequence[str], key: str, instrument: Instrument, deadline_s: float) -> None:
        self._symbol = instrument.symbol
        self._client = AsyncClient(addresses, key, timeout=deadline_s)

    @property
    def attempts(self) -> int:
        return self._client.statistics.attempts

    async def place(self, order: PlaceOrder) -> Verdict:
        fields = {field.name: getattr(order, field.name) for field in dataclasses.fields(order)}
        return await self._verdict(self._client.place_order(**fields))

    async def cancel(self, client_order_id: str) -> Verdict:
        return await self._verdict(self._client.cancel_order(self._symbol, client_order_id))

    async def _verdict(self, call: Awaitable[Any]) -> Verdict:
        try:
            result = await call
        except NotExecuted as error:
            return Ending.REFUSED, error.reason_name
        except EvenkeelError as error:
            return Ending.UNKNOWN, type(error).__name__
        if result.outcome is Outcome.ACKNOWLEDGED:
            return Ending.ACKNOWLEDGED, ""
        return Ending.REJECTED, result.reject_reason.name

    async def close(self) -> None:
        await self._client.aclose()


class NaiveSender:
    """Waits for its deadline, then sends the same again at once, whatever it was told and however often that failed."""

    def __init__(self, addresses: Sequence[str], key: str, instrument: Instrument, deadline_s: float) -> None:
        self.attempts = 0
        self._instrument = instrument
        self._channel = grpc.aio.insecure_channel(addresses[0], (("grpc.enable_retries", 0),))
        self._stub = trading_pb2_grpc.TradingServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._deadline_s = deadline_s

    async def place(self, order: PlaceOrder) -> Verdict:
        return await self._insist(self._stub.PlaceOrder, order.to_proto(self._instrument))

    async def cancel(self, client_order_id: str) -> Verdict:
        request = trading_pb2.CancelOrderRequest(instrument=self._instrument.symbol, client_order_id=client_order_id)
        return await self._insist(self._stub.CancelOrder, request)

    async def _insist(self, method: Callable[..., Awaitable[Any]], request: Any) -> Verdict:
        verdict = Ending.UNKNOWN, ""
        for _ in range(NAIVE_ATTEMPTS_MAX):
            self.attempts += 1
            try:
                response = await method(request, timeout=self._deadline_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                verdict = Ending.UNKNOWN, error.code().name
                continue
            if response.result.outcome == types_pb2.OUTCOME_ACKNOWLEDGED:
                return Ending.ACKNOWLEDGED, ""
            return Ending.REJECTED, types_pb2.RejectReason.Name(response.result.reject_reason)
        return verdict

    async def close(self) -> None:
        await self._channel.close()


SENDERS: dict[str, type[SdkSender] | type[NaiveSender]] = {"sdk": SdkSender, "naive": NaiveSender}
