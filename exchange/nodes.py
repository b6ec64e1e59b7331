"""Several Ray nodes on one machine: real ones, each with its raylet, its processes and its address.

They are what the nodes of a cluster are, but for the machine: each can be killed, paused and started again, and so can
the GCS, Ray's memory of what runs where, which lives beside the first one. Ray itself is asked by its command line, and
the processes are found in /proc, so nothing here depends on Ray's insides but the names of its programs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from exchange.netns import LocalNetwork
from exchange.processes import Process, descendants, read_process, send_signal
from exchange.ray_settings import LOCAL_RAY_ENVIRONMENT, NODE_LABEL

START_LIMIT_S = 90.0
END_LIMIT_S = 30.0
_POLL_S = 0.01
_STORE_BYTES = 80 << 20
_GCS = "gcs_server"
# In a namespace of its own no port is taken.
_GCS_PORT = 6379
# What runs on the first node for the whole cluster, and is not of the node: it stays when the node is killed.
_OF_THE_CLUSTER = (_GCS, "/monitor.py", "/dashboard.py")


class NodesFailed(RuntimeError):
    """A node or the GCS did not start or end; the message says which, and what it said."""

    code = "NODES_FAILED"


class LocalNode:
    """One Ray node: what runs on it, as /proc has it now."""

    def __init__(self, number: int, data_dir: Path, session_dir: Path) -> None:
        self.number = number
        self.name = f"node-{number}"
        self.data_dir = data_dir
        # Ray prefers to put another address in the place of 127.0.0.1.
        self.host = f"127.0.0.{number + 2}"
        self.session_dir = session_dir
        self.is_cut = False
        """Whether some link of its is cut."""
        self._keeper = _Keeper(self.name)

    @property
    def raylet_pid(self) -> int:
        """The process id of its raylet; 0 while it has none."""
        raylet = self._raylet()
        return raylet.pid if raylet else 0

    @property
    def ray_id(self) -> str:
        """What Ray calls it, another at each start; empty while it does not run."""
        raylet = self._raylet()
        return raylet.command.partition("--node_id=")[2].partition(" ")[0] if raylet else ""

    @property
    def worker_pids(self) -> list[int]:
        """The processes of its actors, and those that wait to become one."""
        return [p.pid for p in self.processes if p.command.startswith("ray::") and "Agent" not in p.program]

    @property
    def alive(self) -> bool:
        return self.raylet_pid != 0

    @property
    def paused(self) -> bool:
        raylet = self._raylet()
        return raylet is not None and raylet.state == "T"

    @property
    def processes(self) -> list[Process]:
        """All that runs on it: raylet, agents, workers, and what they started."""
        return [p for p in self._keeper.processes() if not any(word in p.command for word in _OF_THE_CLUSTER)]

    def _raylet(self) -> Process | None:
        return next((p for p in self.processes if p.program == "raylet" and p.state != "Z"), None)


class LocalNodes:
    """Ray nodes "node-0" to "node-N" on this machine, the first one with the GCS. As a context manager, stops them.

    Each has the label `evenkeel.node` with its name, and its processes have EVENKEEL_NODE and EVENKEEL_DATA_DIR in
    their environment: `directory` itself where they share it, else `directory/node-N`.

    On a `network` that is made already, of as many namespaces, each lives in a namespace with an address of its own,
    and its links can be cut. The GCS is in that of the first one.
    """

    def __init__(
        self,
        count: int,
        directory: Path,
        *,
        share_directory: bool = True,
        environment: Mapping[str, str] | None = None,
        network: LocalNetwork | None = None,
    ) -> None:
        self._network = network
        self._directory = Path(directory).resolve()
        self._environment = {**os.environ, **LOCAL_RAY_ENVIRONMENT, **(environment or {})}
        # Ray puts sockets below it, whose paths may have no more than 107 bytes.
        self._session_dir = Path(tempfile.mkdtemp(prefix="evenkeel-"))
        self.nodes = [
            LocalNode(
                number,
                self._directory if share_directory else self._directory / f"node-{number}",
                self._session_dir / str(number),
            )
            for number in range(count)
        ]
        if network is not None:
            for node in self.nodes:
                node.host = network.address(node.number)
                node._keeper.before = network.entering(node.number)
        first = self.nodes[0].host
        self.address = f"{first}:{_GCS_PORT if network is not None else _free_port(first)}"
        """Where the GCS is, which `ray.init(address=…)` takes."""
        self._gcs_command: dict[str, Any] = {}

    def __enter__(self) -> LocalNodes:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def node(self, name: str) -> LocalNode:
        return next(node for node in self.nodes if node.name == name)

    def start(self) -> None:
        """Start them all. Raises `NodesFailed`."""
        try:
            self._start(self.nodes[0], head=True)
            for node in self.nodes[1:]:
                self._start(node)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill all that runs on them. What is to end cleanly must have ended before."""
        for node in reversed(self.nodes):
            node._keeper.stop()
        shutil.rmtree(self._session_dir, ignore_errors=True)

    def kill(self, node: LocalNode) -> None:
        """Kill a node's raylet and workers at once, and return when they are gone. The GCS goes on."""

        def kill_all() -> bool:
            processes = node.processes
            send_signal(signal.SIGKILL, (process.pid for process in processes))
            return not processes

        # The raylet first: it is the parent of the others, and starts no new one then.
        send_signal(signal.SIGKILL, filter(None, [node.raylet_pid]))
        _wait(kill_all, END_LIMIT_S, f"{node.name} still has processes after SIGKILL")

    def pause(self, node: LocalNode) -> None:
        """Stop all processes of a node where they are (SIGSTOP), and return when they have stopped."""

        def stop_all() -> bool:
            running = [process.pid for process in node.processes if process.state not in "TZ"]
            send_signal(signal.SIGSTOP, running)
            return not running

        send_signal(signal.SIGSTOP, filter(None, [node.raylet_pid]))
        _wait(stop_all, END_LIMIT_S, f"{node.name} still runs after SIGSTOP")

    def resume(self, node: LocalNode) -> None:
        """Let a paused node go on (SIGCONT)."""
        send_signal(signal.SIGCONT, (process.pid for process in reversed(node.processes)))

    def start_again(self, node: LocalNode) -> None:
        """Start a node that was killed; it joins under its old name, as another Ray node. The GCS must run."""
        if node.processes:
            raise NodesFailed(f"{node.name} is to be started, but it runs (raylet {node.raylet_pid}); kill it first")
        self._start(node)

    def cut(self, node: LocalNode, other: LocalNode | None = None, *, one_way: bool = False) -> None:
        """Cut a node off, from all and everything or from one other; `one_way`: only what it sends to that one is lost.

        All goes on running. For `heal`, what the other one lost is a link of `node`.
        """
        network = self._cuttable(node)
        node.is_cut = True
        if other is None:
            network.cut(node.number)
            return
        network.cut_way(node.number, other.number)
        if not one_way:
            network.cut_way(other.number, node.number)

    def cut_ports(self, node: LocalNode, ports: Iterable[int]) -> None:
        """Lose what a node sends to some TCP ports of this machine, on the other side of the bridge."""
        network = self._cuttable(node)
        node.is_cut = True
        network.cut_ports(node.number, ports)

    def heal(self, node: LocalNode) -> None:
        """Put back all links of a node."""
        self._cuttable(node).heal(node.number)
        node.is_cut = False

    def _cuttable(self, node: LocalNode) -> LocalNetwork:
        if self._network is None:
            raise NodesFailed(f"{node.name} is to be cut off, but shares this machine's network: give the nodes one")
        return self._network

    def at(self, node: LocalNode) -> AbstractContextManager[None]:
        """Have this thread where a node is, so that who is to be found at the node's address listens there."""
        return self._network.inside(node.number) if self._network is not None else nullcontext()

    @property
    def gcs_pid(self) -> int:
        """The process id of the GCS; 0 while it does not run."""
        found = (p.pid for p in self.nodes[0]._keeper.processes() if p.program == _GCS and p.state != "Z")
        return next(found, 0)

    def kill_gcs(self) -> None:
        """Kill the GCS (SIGKILL), and return when it is gone."""
        pid = self.gcs_pid
        if not pid:
            raise NodesFailed("the GCS is to be killed, but does not run")
        self._gcs_command = _command_of(pid) | {"output": str(self._session_dir / "gcs.log")}
        send_signal(signal.SIGKILL, [pid])
        _wait(lambda: read_process(pid) is None, END_LIMIT_S, "the GCS still runs after SIGKILL")

    def restart_gcs(self) -> None:
        """Start the GCS again as it was started before, with its tables from disk; return when it takes calls."""
        if self.gcs_pid or not self._gcs_command:
            raise NodesFailed(f"the GCS is to be started again, but it runs ({self.gcs_pid}); kill it first")
        pid = self.nodes[0]._keeper.run(self._gcs_command)
        host, _, port = self.address.rpartition(":")

        def listens() -> bool:
            if self.nodes[0]._keeper.has_ended(pid):
                raise NodesFailed(f"the GCS ended at its start: {_tail(Path(self._gcs_command['output']))}")
            return _listens(host, int(port))

        _wait(listens, START_LIMIT_S, "the GCS does not listen")

    def _start(self, node: LocalNode, *, head: bool = False) -> None:
        node.session_dir.mkdir(exist_ok=True)
        node.data_dir.mkdir(parents=True, exist_ok=True)
        output = node.session_dir / "ray-start.log"
        part = ("--head", "--port", self.address.rpartition(":")[2], "--include-dashboard", "false")
        command = {
            "argv": [
                *(sys.executable, "-m", "ray.scripts.scripts", "start"),
                *(part if head else ("--address", self.address)),
                *("--node-ip-address", node.host),
                *("--temp-dir", str(node.session_dir)),
                *("--labels", f"{NODE_LABEL}={node.name}"),
                *("--num-cpus", str(max(os.cpu_count() or 1, 2))),
                *("--object-store-memory", str(_STORE_BYTES)),
                # Any free ports, as several nodes share those of the machine.
                *("--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0"),
                *("--include-log-monitor", "false"),
            ],
            "environment": self._environment
            | {
                "EVENKEEL_NODE": node.name,
                "EVENKEEL_DATA_DIR": str(node.data_dir),
                "RAY_gcs_storage": "rocksdb",
                "RAY_gcs_storage_path": str(self._session_dir / "gcs"),
            },
            "output": str(output),
        }
        (self._session_dir / "gcs").mkdir(exist_ok=True)
        code = node._keeper.complete(node._keeper.run(command), START_LIMIT_S)
        if code != 0 or not node.alive:
            raise NodesFailed(f"{node.name} did not start (`ray start` ended with {code}): {_tail(output)}")


class _Keeper:
    """The process that keeps a node's processes (`exchange.keeper`)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.before: Sequence[str] = ()
        """What its own command line begins with."""
        self._process: subprocess.Popen[str] | None = None
        self._said = threading.Condition()
        self._started: list[int] = []
        self._ended: dict[int, int] = {}

    def processes(self) -> list[Process]:
        return descendants(self._process.pid) if self._process else []

    def run(self, command: dict[str, Any]) -> int:
        """Start a command; return its process id."""
        if self._process is None:
            keeper = [*self.before, sys.executable, "-m", "exchange.keeper"]
            self._process = subprocess.Popen(keeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        assert self._process.stdin is not None
        with self._said:
            before = len(self._started)
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            if not self._said.wait_for(lambda: len(self._started) > before, START_LIMIT_S):
                raise NodesFailed(f"{self._name}: could not run {command['argv'][:5]}")
            return self._started[-1]

    def has_ended(self, pid: int) -> bool:
        return pid in self._ended

    def complete(self, pid: int, limit_s: float) -> int:
        """Wait for a command's end; return its exit code."""
        with self._said:
            if not self._said.wait_for(lambda: pid in self._ended, limit_s):
                raise NodesFailed(f"{self._name}: process {pid} did not end within {limit_s:.0f} s")
            return self._ended[pid]

    def stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(END_LIMIT_S)
            self._process = None

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            with self._said:
                if "started" in said:
                    self._ended.pop(said["started"], None)  # ids are used again
                    self._started.append(said["started"])
                else:
                    self._ended[said["ended"]] = said["code"]
                self._said.notify_all()


def _command_of(pid: int) -> dict[str, Any]:
    """Return how a process was started."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    argv = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return {"argv": argv, "environment": dict(entry.split("=", 1) for entry in entries if "=" in entry)}


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2_000:].strip() if path.exists() else "it said nothing"


def _wait(condition: Callable[[], bool], limit_s: float, otherwise: str) -> None:
    give_up_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise NodesFailed(f"{otherwise}, waited {limit_s:.0f} s")
        time.sleep(_POLL_S)
