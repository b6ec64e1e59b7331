"""Serves `/metrics` over HTTP, from the gateway's own event loop: what is shown belongs to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from prometheus_client import CONTENT_TYPE_LATEST

from exchange.gateway.admin import Supervisor
from exchange.gateway.metrics import Seen, ShardSeen, render
from exchange.runtime.peers import PeerUnavailable
from exchange.v1 import admin_pb2

PORTS_ABOVE = 100
"""Above the gateway's own port, if that one is free; else any is taken."""
REQUEST_TIMEOUT_S = 5.0
STATUS_TIMEOUT_S = 0.5
"""A scrape does not wait for a supervisor that hangs: what it told last is shown."""

_log = structlog.get_logger()


class MetricsServer:
    """`load` and `shards` are read at each scrape."""

    def __init__(
        self,
        gateway: str,
        supervisor: Supervisor,
        load: Callable[[], admin_pb2.GatewayLoad],
        shards: Callable[[], Mapping[str, ShardSeen]],
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._supervisor = supervisor
        self._load = load
        self._shards = shards
        self._monotonic_s = monotonic_s
        self._status = admin_pb2.GetStatusResponse()
        self._told_s = monotonic_s()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, gateway_port: int) -> None:
        """Listen above the gateway's port, or on any other."""
        wanted = gateway_port + PORTS_ABOVE
        try:
            self._server = await asyncio.start_server(self._serve, host, wanted if wanted < 1 << 16 else 0)
        except OSError as error:
            _log.warning("metrics.port_taken", port=wanted, error=str(error))
            self._server = await asyncio.start_server(self._serve, host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def scrape(self) -> bytes:
        """Return the metrics of this moment."""
        is_up = True
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                self._status = admin_pb2.GetStatusResponse.FromString(await self._supervisor.status())
            self._told_s = self._monotonic_s()
        except (PeerUnavailable, TimeoutError):
            is_up = False
        age_s = self._monotonic_s() - self._told_s
        return render(Seen(self._gateway, self._load(), self._shards(), self._status, age_s, is_up))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = await self._answer(head)
                kind = CONTENT_TYPE_LATEST if status == "200 OK" else "text/plain"
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks so comes again
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> tuple[str, bytes]:
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return "404 Not Found", b"expected /metrics\n"
        if method != b"GET":
            return "405 Method Not Allowed", b"expected GET\n"
        return "200 OK", await self.scrape()
