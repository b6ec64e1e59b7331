"""A status service beside a private exchange, and all that it tells the public while an experiment runs.

    public/board.jsonl          a `Published` a line: the board, whenever it tells something else
    public/announcements.jsonl  an `Announced` a line: what came to a subscriber's webhook, and when
    public/post-mortem-ID.md    the draft of each incident
    public/site/                the page, the API and the feed as they were at the end
    public/service.log          of its process

It is a process as it runs elsewhere, and is started again if it ends.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc
import msgspec

from chaos.faults.fault import Target
from chaos.load.attempts import CHANNEL_OPTIONS, bearer
from chaos.run.record import LineWriter
from exchange.v1 import status_pb2, status_pb2_grpc

PUBLIC, PRIVATE = "public", "status-data"
BOARD_FILE, ANNOUNCEMENTS_FILE, SITE, SERVICE_LOG = "board.jsonl", "announcements.jsonl", "site", "service.log"
NAME = "status"
RESOLVE_S = 10
"""Quicker than for the public, so that a run need not last much longer than what it shows."""
START_S_MAX, SETTLE_S_MAX, STOP_S_MAX, CALL_S_MAX = 60.0, 30.0, 20.0, 5.0
AGAIN_S = 0.2
OPERATIONAL = "operational"


class StatusNotStarted(RuntimeError):
    """The status service did not come up; the message has what it said."""

    code = "STATUS_NOT_STARTED"


class ToldIncident(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as the board has it. Times in ns since the epoch, 0: not yet."""

    id: str
    name: str
    status: str
    start_time_ns: int
    resolve_time_ns: int
    updates: tuple[tuple[int, str, str], ...]
    """(time, status, words), newest first."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A board, at `monotonic_ns`, which was `time_ns` since the epoch."""

    monotonic_ns: int
    time_ns: int
    components: dict[str, tuple[str, str, str]]
    """By id: (status, trading mode, instrument)."""
    incidents: tuple[ToldIncident, ...]

    @property
    def is_well(self) -> bool:
        return bool(self.components) and all(status == OPERATIONAL for status, _, _ in self.components.values())


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber was sent."""

    monotonic_ns: int
    delivery: str
    subject: str
    title: str
    status: str
    latest: str


class PublicStatus:
    """`start` it, and once the load is over `settle`, `keep` and `stop`."""

    def __init__(self, directory: Path) -> None:
        # The service takes a relative path for one from its settings.
        self._kept, self._private = directory / PUBLIC, (directory / PRIVATE).absolute()
        self._addresses: Sequence[str] = ()
        self._operator_key = ""
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hook: _Hook | None = None
        self._newest: Published | None = None
        self._writer: LineWriter | None = None

    @property
    def targets(self) -> list[Target]:
        """Its process, for faults."""
        return [] if self._process is None else [Target(NAME, NAME, self._process.pid)]

    async def start(self, addresses: Sequence[str], operator_key: str) -> None:
        """Prepare the exchange for it, start it, and wait until it says that all is well. Raises `StatusNotStarted`."""
        self._addresses, self._operator_key = addresses, operator_key
        self._kept.mkdir()
        self._private.mkdir(mode=0o700)
        self._writer = LineWriter(self._kept / BOARD_FILE)
        self._hook = _Hook(self._kept / ANNOUNCEMENTS_FILE)
        for name, secret in (("operator.key", operator_key), ("hook.key", secrets.token_hex())):
            (self._private / name).write_text(secret, encoding="utf-8")
        settings = self._private / "status.toml"
        settings.write_bytes(msgspec.toml.encode(self._settings()))
        prepared = await self._run("prepare", "--operator-key", str(self._private / "operator.key"))
        if await prepared.wait():
            raise StatusNotStarted(f"could not be prepared: {self._said()}")
        self._process = await self._run("serve")
        self._tasks = [asyncio.create_task(self._restart()), asyncio.create_task(self._follow(self._writer))]
        give_up_s = time.monotonic() + START_S_MAX
        while self._newest is None or not self._newest.is_well:
            if time.monotonic() > give_up_s:
                raise StatusNotStarted(f"the board did not say that all is well in {START_S_MAX:g} s: {self._said()}")
            await asyncio.sleep(AGAIN_S)

    async def _follow(self, writer: LineWriter) -> None:
        """Write down each board that says something else."""
        while True:
            try:
                async with self._channel() as channel:
                    call = status_pb2_grpc.StatusServiceStub(channel).WatchStatus(status_pb2.WatchStatusRequest())
                    async for response in call:
                        self._take(response.board, writer)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(AGAIN_S)  # it starts, or was killed

    async def settle(self) -> None:
        """Where all is well again, wait until the incidents are resolved; what is not well stays as it is."""
        give_up_s = time.monotonic() + SETTLE_S_MAX
        while time.monotonic() < give_up_s:
            newest = self._newest
            if newest is None or not newest.is_well or all(told.resolve_time_ns for told in newest.incidents):
                return
            await asyncio.sleep(AGAIN_S)

    async def keep(self) -> None:
        """Keep the drafts of its post-mortems and the site."""
        async with self._channel() as channel:
            stub = status_pb2_grpc.StatusServiceStub(channel)
            for told in self._newest.incidents if self._newest is not None else ():
                request = status_pb2.GetPostmortemDraftRequest(incident_id=told.id)
                draft = await stub.GetPostmortemDraft(
                    request, metadata=bearer(self._operator_key), timeout=CALL_S_MAX, wait_for_ready=True
                )
                (self._kept / f"post-mortem-{told.id}.md").write_text(draft.text, encoding="utf-8")
        site = self._private / SITE / "current"
        give_up_s = time.monotonic() + CALL_S_MAX
        while not self._is_newest(site) and time.monotonic() < give_up_s:
            await asyncio.sleep(AGAIN_S)
        if site.exists():
            await asyncio.to_thread(shutil.copytree, site, self._kept / SITE)

    def _is_newest(self, site: Path) -> bool:
        """Whether the site has the incidents of the newest board as they are; it is written a moment later."""
        try:
            on_site = msgspec.json.decode((site / "api/v2/incidents.json").read_bytes())["incidents"]
        except FileNotFoundError:
            return False
        told = self._newest.incidents if self._newest is not None else ()
        return {(one["id"], one["status"]) for one in on_site} >= {(one.id, one.status) for one in told}

    async def stop(self) -> None:
        """End what was started. Doing it twice is allowed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S_MAX)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._hook is not None:
            await asyncio.to_thread(self._hook.close)
            self._hook = None
        if self._writer is not None:
            self._writer.close()
        shutil.rmtree(self._private, ignore_errors=True)

    # ---------------------------------------------------------------- its process

    def _settings(self) -> dict[str, object]:
        assert self._hook is not None
        self._port = _free_port()
        hook = {"channel": "webhook", "name": "run", "url": self._hook.url, "secret_file": "hook.key"}
        return {
            "data_dir": str(self._private),
            "exchange": {"addresses": list(self._addresses), "operator_key_file": "operator.key"},
            "incidents": {"resolve_ms": RESOLVE_S * 1_000},
            "serving": {"http_port": 0, "grpc_port": self._port, "snapshot_dir": SITE},
            "subscribers": [hook],
        }

    async def _run(self, command: str, *arguments: str) -> asyncio.subprocess.Process:
        settings = ("--settings", str(self._private / "status.toml"))
        with (self._kept / SERVICE_LOG).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "status.cli", command, *settings, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for who runs the experiment
            )

    async def _restart(self) -> None:
        """Start the service again whenever it has ended."""
        while True:
            assert self._process is not None
            await self._process.wait()
            await asyncio.sleep(AGAIN_S)
            self._process = await self._run("serve")

    def _said(self) -> str:
        lines = (self._kept / SERVICE_LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        return " ".join(lines[-3:])

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", CHANNEL_OPTIONS)

    def _take(self, board: status_pb2.Board, writer: LineWriter) -> None:
        published = Published(
            monotonic_ns=time.monotonic_ns(),
            time_ns=time.time_ns(),
            components={c.id: (c.status, c.trading_mode, c.instrument) for c in board.components},
            incidents=tuple(
                ToldIncident(
                    id=told.id,
                    name=told.name,
                    status=told.status,
                    start_time_ns=told.start_time_ns,
                    resolve_time_ns=told.resolve_time_ns,
                    updates=tuple((update.time_ns, update.status, update.body) for update in told.updates),
                )
                for told in board.incidents
            ),
        )
        known = self._newest
        if known is None or (known.components, known.incidents) != (published.components, published.incidents):
            writer.write(published)
            self._newest = published


class _Hook:
    """A subscriber's webhook, which takes everything."""

    def __init__(self, path: Path) -> None:
        self._writer = writer = LineWriter(path)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # as the library names it
                message = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
                told = {name: message[name] for name in ("delivery", "subject", "title", "status", "latest")}
                writer.write(Announced(monotonic_ns=time.monotonic_ns(), **told))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
