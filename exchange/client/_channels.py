"""The connections to the gateways: one at a time, the next when it fails."""

from collections.abc import Sequence
from typing import Any, cast

import grpc

from exchange.client._errors import ClientClosed
from exchange.client._rpcs import RequestT, ResponseT, Rpc

ChannelOptions = Sequence[tuple[str, Any]]

# Answers with the whole of a deep book or a thousand orders are larger than gRPC's 4 MB.
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class Gateway:
    """One address, with its connection. gRPC connects it at the first call, and again after a loss."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None, options: ChannelOptions) -> None:
        self.address = address
        self._channel = (
            grpc.aio.insecure_channel(address, options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )
        self._callables: dict[str, Any] = {}
        self._health: Any = self._channel.unary_unary("/grpc.health.v1.Health/Check")

    def unary(self, rpc: Rpc[RequestT, ResponseT]) -> "grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]":
        return cast(
            "grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]",
            self._callable(self._channel.unary_unary, rpc),
        )

    def server_stream(self, rpc: Rpc[RequestT, ResponseT]) -> "grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT]":
        return cast(
            "grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT]",
            self._callable(self._channel.unary_stream, rpc),
        )

    def both_streams(self, rpc: Rpc[RequestT, ResponseT]) -> "grpc.aio.StreamStreamMultiCallable[RequestT, ResponseT]":
        return cast(
            "grpc.aio.StreamStreamMultiCallable[RequestT, ResponseT]",
            self._callable(self._channel.stream_stream, rpc),
        )

    def _callable(self, make: Any, rpc: Rpc[RequestT, ResponseT]) -> Any:
        callable_ = self._callables.get(rpc.path)
        if callable_ is None:
            callable_ = self._callables[rpc.path] = make(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
        return callable_

    async def is_silent(self, timeout_s: float) -> bool:
        """Whether it does not even say how it is. Whatever it says will do, also that it knows no health checks."""
        try:
            await self._health(b"", timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        return False

    async def close(self) -> None:
        await self._channel.close()


class Channels:
    """Which of several addresses is used: always the same one, until it fails."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None,
        keepalive: float | None,
        options: ChannelOptions,
    ) -> None:
        self._addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        if not self._addresses:
            raise ValueError("addresses: expected at least one, such as 'localhost:50051', was none")
        self._credentials = credentials
        base: list[tuple[str, Any]] = [
            ("grpc.enable_retries", 0),  # one layer retries, and it is not this one
            ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
            # After a loss gRPC waits up to two minutes by default before it connects again; and it
            # gives a connection 20 s to come about (that is what the minimum means).
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 2000),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if keepalive is not None:
            base += [
                ("grpc.keepalive_time_ms", int(keepalive * 1000)),
                ("grpc.keepalive_timeout_ms", int(keepalive * 1000)),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        self._options = [*base, *options]
        self._gateways: dict[int, Gateway] = {}
        self._index = 0
        self.closed = False

    @property
    def address(self) -> str:
        return self._addresses[self._index]

    @property
    def others(self) -> int:
        """How many addresses there are beside the one that is used."""
        return len(self._addresses) - 1

    @property
    def current(self) -> Gateway:
        """Made at the first call, because a gRPC channel belongs to the event loop it is made in."""
        if self.closed:
            raise ClientClosed("expected an open client, was closed")
        gateway = self._gateways.get(self._index)
        if gateway is None:
            gateway = self._gateways[self._index] = Gateway(
                self._addresses[self._index], self._credentials, self._options
            )
        return gateway

    def move_on(self, failed: object) -> bool:
        """Turns to the next address, and says whether it did.

        Of many calls that fail together only the first one turns: the others find it done.
        """
        if len(self._addresses) == 1 or self._gateways.get(self._index) is not failed:
            return False
        self._index = (self._index + 1) % len(self._addresses)
        return True

    async def close(self) -> None:
        self.closed = True
        for gateway in self._gateways.values():
            await gateway.close()
