"""The service: everything that watches, keeps and tells, in one process on one event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import structlog
import uvicorn

from exchange.client import AsyncClient
from status.announce.announcer import Announcer, make_channel
from status.grpc_service import GrpcServer, PortTaken, StatusServicer
from status.history.store import Store
from status.operators import HASHES_FILE, Operators, remember
from status.publisher import Publisher
from status.settings import Settings, SettingsInvalid
from status.watch.lateness import Lateness
from status.watch.prober import CHANNEL_OPTIONS, GatewayProber
from status.watch.supervisor import SupervisorFeed
from status.web.server import server
from status.web.snapshot import Snapshot

_log = structlog.get_logger()

_REFRESH_S = 0.2
_FLUSH_S = 1.0
_TRIM_S = 3_600.0
_SNAPSHOT_AGAIN_S = 10.0
_BACKLOG = 4_096
HISTORY_FILE = "history.db"


def read_key(path: Path) -> str:
    """Return the key in a file. Raises `SettingsInvalid` where there is none."""
    try:
        key = path.read_text("utf-8").strip()
    except OSError as error:
        raise SettingsInvalid(
            f"expected a key in {path}, found none; `evenkeel-status prepare` writes that of the probes"
        ) from error
    if not key:
        raise SettingsInvalid(f"expected a key in {path}, found an empty file")
    return key


def read_secret(path: Path) -> str:
    """Return a token or password from its file. Raises `SettingsInvalid` where there is none."""
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise SettingsInvalid(f"expected a secret of a subscriber in {path}, found none: {error}") from error


class StatusService:
    """`async with StatusService(settings) as service`, and it watches until it is left."""

    def __init__(self, settings: Settings, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.settings = settings
        self._clock_ns = clock_ns
        self.store = Store(settings.data_path / HISTORY_FILE)
        self.publisher = Publisher(settings, self.store, clock_ns)
        self.announcer = self._announcer() if settings.subscribers else None
        self._operators_file = settings.data_path / HASHES_FILE
        operators = Operators(settings.exchange.addresses, self._operators_file)
        servicer = StatusServicer(self.publisher, self.announcer, operators)
        self.grpc = GrpcServer(servicer, settings.serving.grpc_host, settings.serving.grpc_port)
        self._lateness = Lateness(clock_ns)
        self._running: list[asyncio.Task[None]] = []
        self._web: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.http_port = 0

    async def __aenter__(self) -> StatusService:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for error in await self._stop():
            raise error

    async def _start(self) -> None:
        settings = self.settings
        key = read_key(settings.key_path(settings.exchange.probe_key_file))
        operator_file = settings.exchange.operator_key_file
        operator_key = read_key(settings.key_path(operator_file)) if operator_file else ""
        if operator_key:
            remember(self._operators_file, operator_key)
        self.store.open()
        self.publisher.restore()
        await self.grpc.start()
        self._listen()
        self._run(self._lateness.run())
        for number, address in enumerate(settings.exchange.addresses):
            self._run(self._prober(number, address, key).run())
        if operator_key:
            client = self._client(settings.exchange.addresses, operator_key, "budget")
            interval_s = settings.probing.interval_ms / 1_000
            self._run(SupervisorFeed(client, interval_s, self._clock_ns, self.publisher.hear).run())
        self._run(self._refresh())
        self._run(self._flush())
        if self.announcer is not None:
            self._run(self.announcer.run())

    async def _stop(self) -> list[Exception]:
        """Return with what parts of it failed."""
        await self.grpc.stop()
        if self._web is not None and self._serving is not None:
            self._web.should_exit = True
            await asyncio.wait([self._serving])
        for task in self._running:
            task.cancel()
        ended = await asyncio.gather(*self._running, return_exceptions=True)
        if self.announcer is not None:
            await self.announcer.close()
        await self.store.close()
        return [error for error in ended if isinstance(error, Exception)]

    def _announcer(self) -> Announcer:
        settings = self.settings
        channels = {
            subscriber.name: make_channel(subscriber, lambda name: read_secret(settings.key_path(name)))
            for subscriber in settings.subscribers
        }
        return Announcer(settings.subscribers, channels, self.store, self.publisher, self._clock_ns)

    async def wait(self) -> None:
        """Return when a part has failed, which only a bug can bring about; leaving the service then raises why."""
        await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def _listen(self) -> None:
        """Serve the public. The socket is opened here, so that a port that is taken is an error with a code."""
        where = self.settings.serving
        try:
            listening = socket.create_server((where.http_host, where.http_port), backlog=_BACKLOG)
        except OSError as error:
            address = f"{where.http_host}:{where.http_port}"
            raise PortTaken(f"expected to listen on {address}, found: {error}; serving.http_port sets it") from error
        self.http_port = listening.getsockname()[1]
        self._web = server(self.publisher, where.http_host, self.http_port)
        self._serving = self._run(self._web.serve(sockets=[listening]))
        if where.snapshot_dir:
            self._run(self._write_snapshots(self.settings.key_path(where.snapshot_dir)))

    async def _write_snapshots(self, folder: Path) -> None:
        while True:
            try:
                await Snapshot(folder, self._clock_ns).follow(self.publisher)
            except* OSError as errors:
                found = str(errors.exceptions[0])
                _log.error("status.snapshot_not_written", code="SNAPSHOT_NOT_WRITTEN", folder=str(folder), error=found)
            await asyncio.sleep(_SNAPSHOT_AGAIN_S)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.append(task)
        return task

    def _client(self, addresses: tuple[str, ...], key: str, retry: Literal["none", "budget"]) -> AsyncClient:
        return AsyncClient(
            addresses,
            key,
            timeout=self.settings.probing.timeout_ms / 1_000,
            retry=retry,
            settle_timeout=0.2,
            reconnect_timeout=0.0,
            channel_options=CHANNEL_OPTIONS,
        )

    def _prober(self, number: int, address: str, key: str) -> GatewayProber:
        return GatewayProber(
            number=number,
            # What a client would hide by trying again is what shall be seen.
            client=self._client((address,), key, "none"),
            settings=self.settings.probing,
            stale_ms=self.settings.levels.stale_ms,
            lateness=self._lateness,
            clock_ns=self._clock_ns,
            on_look=self.publisher.see,
            on_stage=self.publisher.hear_stage,
            on_instruments=self.publisher.hear_instruments,
        )

    async def _refresh(self) -> None:
        while True:
            await self.publisher.refresh()
            await asyncio.sleep(_REFRESH_S)

    async def _flush(self) -> None:
        """Write what is to be kept, and forget what is too old. The public is told before, and whether it succeeds."""
        trimmed_s = -_TRIM_S
        while True:
            if time.monotonic() - trimmed_s >= _TRIM_S:
                trimmed_s = time.monotonic()
                self.store.trim(self._clock_ns(), self.settings.history)
            await self.store.flush()
            await asyncio.sleep(_FLUSH_S)


async def serve(settings: Settings, ready: Callable[[StatusService], None] = lambda _: None) -> None:
    """Watch and tell until SIGTERM or SIGINT."""
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    async with StatusService(settings) as service:
        ready(service)
        ended = asyncio.create_task(end.wait())
        failed = asyncio.create_task(service.wait())
        await asyncio.wait([ended, failed], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        failed.cancel()
    _log.info("status.stopped")
