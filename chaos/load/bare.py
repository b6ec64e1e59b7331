"""Clients without the SDK: one call each over the bare protocol, from one gateway to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import grpc

from chaos.load.attempts import CHANNEL_OPTIONS, AttemptLog, Command, Told, bearer, kind_of
from chaos.load.client_log import REJECTED, UNKNOWN, fields_of_result
from chaos.load.plan import Group
from chaos.load.retries import WHY_CHARACTERS_MAX, Failure, failure_of, insist, reason_name
from exchange.v1 import trading_pb2


class BareSender:
    """Sends to one gateway until that fails, then to the next. Every attempt has the whole deadline."""

    def __init__(self, addresses: Sequence[str], key: str, group: Group, log: AttemptLog, random: Random) -> None:
        self.attempts = 0
        self._addresses = addresses
        self._metadata = bearer(key)
        self._timeout_s = group.deadline_ms / 1_000
        self._retry = group.retry
        self._log = log
        self._random = random.random
        self._at = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._connect()

    def _connect(self) -> None:
        self._address = self._addresses[self._at % len(self._addresses)]
        self._channel = channel = grpc.aio.insecure_channel(self._address, CHANNEL_OPTIONS)

        def call(name: str, response: Any) -> Callable[..., Awaitable[Any]]:
            # Requests are serialized once, however often they are sent.
            return channel.unary_unary(
                f"/exchange.v1.TradingService/{name}", request_serializer=None, response_deserializer=response
            )

        self._methods = {
            "place": call("PlaceOrder", trading_pb2.PlaceOrderResponse.FromString),
            "cancel": call("CancelOrder", trading_pb2.CancelOrderResponse.FromString),
            "amend": call("AmendOrder", trading_pb2.AmendOrderResponse.FromString),
        }

    async def send(self, command: Command, due_ns: int) -> Told:
        kind = kind_of(command)
        request = getattr(command, kind).SerializeToString()
        return await insist(self._retry, lambda: self._attempt(kind, request, command, due_ns), self._random)

    async def _attempt(self, kind: str, request: bytes, command: Command, due_ns: int) -> tuple[Told, Failure | None]:
        self.attempts += 1
        address, channel = self._address, self._channel
        attempt = self._log.begin(command, due_ns, self._timeout_s, address)
        failure = None
        try:
            response = await self._methods[kind](request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            outcome = UNKNOWN if failure.is_open else REJECTED
            why = f"{error.code().name}: {error.details()}"[:WHY_CHARACTERS_MAX]
            told = Told(outcome, {"o": outcome, "why": why}, failure.reason)
            if error.code() is grpc.StatusCode.UNAVAILABLE and channel is self._channel:
                self._turn()
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            if isinstance(error, asyncio.CancelledError) and channel is self._channel:
                raise
            # The connection was dropped under it.
            failure = Failure("CANCELLED", is_open=True, is_final=False, retry_after_s=None)
            told = Told(UNKNOWN, {"o": UNKNOWN, "why": "the connection was dropped"}, "CANCELLED")
        else:
            line = fields_of_result(response.result)
            told = Told(line["o"], line, reason_name(line["rej"]))
        self._log.end(attempt, told, address)
        return told, failure

    def _turn(self) -> None:
        """Go on with the next gateway, if there is one. What is under way at this one keeps its connection."""
        if len(self._addresses) > 1:
            self._drop(grace_s=self._timeout_s)

    async def reconnect(self) -> None:
        """Drop the connection, with all that is under way on it, and make one to the next gateway."""
        self._drop(grace_s=None)
        await self._closed()

    def _drop(self, grace_s: float | None) -> None:
        task = asyncio.create_task(self._channel.close(grace_s))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._at += 1
        self._connect()

    async def _closed(self) -> None:
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def close(self) -> None:
        await self._channel.close()
        await self._closed()
