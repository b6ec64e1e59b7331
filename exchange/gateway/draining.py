"""A gateway that is about to stop: nothing new is taken, what was taken is finished, and clients are sent elsewhere.

All of it ends with UNAVAILABLE and the reason GATEWAY_DRAINING, which says of a call that it was surely not executed,
and of a stream that everything it took was answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc

from exchange.gateway.errors import abort

REASON = "GATEWAY_DRAINING"
_END_BY_THEMSELVES = {
    "/exchange.v1.TradingService/StreamExecutions",
    "/exchange.v1.AccountService/StreamBalances",
}
"""Streams that have something to finish, or to tell, before they end."""


class Draining:
    """Whether the gateway is about to stop, and how many calls are under way."""

    def __init__(self) -> None:
        self.is_on = False
        self._calls = 0
        self._arrivals = 0
        self._watchers: list[Callable[[], None]] = []
        self._ended = asyncio.Event()

    def begin(self) -> None:
        """Take nothing any more; streams end."""
        self.is_on = True
        for on_drain in list(self._watchers):
            on_drain()

    async def finish(self) -> None:
        """Wait until no call is under way."""
        while self._calls:
            self._ended.clear()
            await self._ended.wait()

    async def fall_silent(self, quiet_s: float, limit_s: float) -> None:
        """Wait until no call has come for `quiet_s`, but not much longer than `limit_s`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        arrivals = -1
        while arrivals != self._arrivals and loop.time() < end_s:
            arrivals = self._arrivals
            await asyncio.sleep(quiet_s)

    def note_arrival(self) -> None:
        """Take note of a call, also of one that will be refused."""
        self._arrivals += 1

    def begin_call(self) -> None:
        """Count a call that is under way, until `end_call`."""
        self._calls += 1

    def end_call(self) -> None:
        self._calls -= 1
        self._ended.set()

    @contextmanager
    def watching(self, on_drain: Callable[[], None]) -> Iterator[None]:
        """Call a function once when draining begins."""
        self._watchers.append(on_drain)
        try:
            yield
        finally:
            self._watchers.remove(on_drain)


async def send_elsewhere(context: Any) -> NoReturn:
    """End a call that a draining gateway does not take, or goes no further with."""
    await abort(context, grpc.StatusCode.UNAVAILABLE, REASON, "this gateway is about to stop: use another one", 0)


class _StreamContext:
    """A stream's context that knows when a status cannot be sent: while a message or another status is on its way."""

    def __init__(self, context: Any, draining: Draining) -> None:
        self._context = context
        self._draining = draining
        self.is_writing = False
        self.is_sent_elsewhere = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        self.is_writing = True
        try:
            await self._context.write(message)
        finally:
            self.is_writing = False
        if self._draining.is_on:
            self.is_sent_elsewhere = True
            raise asyncio.CancelledError

    async def abort(self, *how: Any) -> None:
        self.is_writing = True
        await self._context.abort(*how)


class DrainedServer:
    """A server as generated code sees it while it registers services, whose calls are counted, and kept out of a
    gateway that drains.

    Streams that have nothing to finish are ended where they are. What is not registered here, as health and reflection,
    is left alone.
    """

    def __init__(self, server: Any, draining: Draining) -> None:
        self._server = server
        self._draining = draining

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Not used: the same methods come registered."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        wrapped = {name: self._wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(self, method: str, handler: Any) -> Any:
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._counted(handler.stream_stream), **codecs)
        if handler.response_streaming:
            serve = handler.unary_stream if method in _END_BY_THEMSELVES else self._ended(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(self._counted(serve), **codecs)
        return grpc.unary_unary_rpc_method_handler(self._counted(handler.unary_unary), **codecs)

    def _counted(self, serve: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def counted(request: Any, context: Any) -> Any:
            draining = self._draining
            draining.note_arrival()
            if draining.is_on:
                await send_elsewhere(context)
            draining.begin_call()
            try:
                return await serve(request, context)
            finally:
                draining.end_call()

        return counted

    def _ended(self, serve: Callable[[Any, Any], Awaitable[None]]) -> Callable[[Any, Any], Awaitable[None]]:
        async def ended(request: Any, context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            stream = _StreamContext(context, self._draining)

            def end() -> None:
                if not stream.is_writing:
                    stream.is_sent_elsewhere = True
                    task.cancel()

            with self._draining.watching(end):
                try:
                    await serve(request, stream)
                except asyncio.CancelledError:
                    if not stream.is_sent_elsewhere:
                        raise
                    task.uncancel()
                    await send_elsewhere(context)

        return ended
