"""Starting, finding and stopping an exchange on Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Ray prints each death of a worker or a node in ten lines, `log_to_driver=False` or not; here the supervisor says it,
# and acts. This switch of Ray's keeps these lines from the terminal, and no others. Ray reads it when it is imported;
# if that was before, or if they are worded differently one day, they are printed as ever.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    "^(A worker died or was killed while executing a task|Raylet is terminated|The node with node id)",
)

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from exchange.actors import ADDRESS_FILE
from exchange.config import ExchangeConfig
from exchange.netns import LocalNetwork
from exchange.nodes import LocalNodes
from exchange.ray_calls import NAMESPACE, SUPERVISORS
from exchange.ray_settings import LOCAL_RAY_ENVIRONMENT, NODE_LABEL
from exchange.runtime.nats_servers import LOOPBACK, NatsServers
from exchange.supervisor_actor import OPERATOR_KEY_FILE, start_supervisor
from exchange.v1 import admin_pb2

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 2.0
APART_PORT = 7700
_DRIVER: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}


class StartFailed(RuntimeError):
    """The exchange did not come up; the message says which part, and why."""

    code = "START_FAILED"


class NoSupervisor(RuntimeError):
    """No supervisor is active now."""

    code = "NO_SUPERVISOR"


class StopFailed(RuntimeError):
    """Something went on running; the message says what."""

    code = "STOP_FAILED"


class ClusterUnreachable(RuntimeError):
    """There is no Ray cluster at an address, or it does not let us in."""

    code = "CLUSTER_UNREACHABLE"


class _RunningExchange:
    """An exchange on the Ray that this process is connected to."""

    def status(self) -> admin_pb2.GetStatusResponse:
        """Return what runs where."""
        return admin_pb2.GetStatusResponse.FromString(ray.get(self._active().status.remote()))

    def _start_supervisors(self, config: ExchangeConfig) -> None:
        """Start the supervisors, on nodes of their own if there are several; each stays on its node."""
        names = sorted(label for node in ray.nodes() if node["Alive"] and (label := node["Labels"].get(NODE_LABEL)))
        for number in range(1 + config.standbys):
            start_supervisor(number, config, {NODE_LABEL: names[number % len(names)]} if names else {})

    def _supervisors(self) -> list[Any]:
        """Return those that are there."""
        found = []
        for name in SUPERVISORS:
            try:
                found.append(ray.get_actor(name, namespace=NAMESPACE))
            except ValueError:
                # It was never started.
                pass
        return found

    def _active(self) -> Any:
        """Return the active supervisor. Raises `NoSupervisor`."""
        leads = []
        for supervisor in self._supervisors():
            try:
                said = ray.get(supervisor.lead.remote(), timeout=ASK_TIMEOUT_S)
            except (ray.exceptions.RayError, TimeoutError):
                continue
            if said["is_active"]:
                leads.append((said["incarnation"], supervisor))
        if not leads:
            raise NoSupervisor("expected an active supervisor, found none; there may be one in a moment")
        return max(leads, key=lambda lead: lead[0])[1]

    def wait(self, *, complete: bool = False, opened: bool = True) -> None:
        """Return when orders are taken; `complete`: and all standbys follow. Raises `StartFailed`.

        Without `opened`, when everything runs: shards that were away may still be reopening, stage by stage.
        """
        give_up_s = time.monotonic() + START_TIMEOUT_S
        detail = ""
        while time.monotonic() < give_up_s:
            try:
                active = self._active()
                if ray.get(active.is_ready.remote(complete, opened), timeout=ASK_TIMEOUT_S):
                    return
                status = self.status()
            except (ray.exceptions.RayError, NoSupervisor) as error:
                detail = str(error)
            else:
                failed = [c for c in status.components if c.detail.startswith("did not start")]
                if failed:
                    raise StartFailed("; ".join(f"{c.name} {c.detail}" for c in failed))
                detail = str(status)
            time.sleep(0.05)
        raise StartFailed(f"not ready after {START_TIMEOUT_S:.0f} s: {detail}")

    def reopening(self) -> list[admin_pb2.Component] | None:
        """Return the shards while some of them reopen, [] once all are in the stage that is wanted; None: who knows."""
        try:
            if ray.get(self._active().is_ready.remote(False, True), timeout=ASK_TIMEOUT_S):
                return []
            return [c for c in self.status().components if c.stage]
        except (ray.exceptions.RayError, NoSupervisor):
            return None

    def _stop_components(self) -> None:
        """Stop who follows before who is followed, lest it take over."""
        try:
            active = self._active()
        except NoSupervisor:
            return
        try:
            others = [s for s in self._supervisors() if s != active]
            ray.get([other.stop.remote() for other in others], timeout=ASK_TIMEOUT_S)
            ray.get(active.stop.remote(), timeout=STOP_TIMEOUT_S)
        except ray.exceptions.RayError:
            # What did not stop in time is killed with Ray; the journal has everything that was acknowledged.
            pass


class LocalExchange(_RunningExchange):
    """An exchange on a Ray of its own on this machine, of one node or several, as a context manager.

    `with LocalExchange(config) as exchange: exchange.address, exchange.operator_key`

    With `apart`, as root, each of several nodes has a network namespace and an address of its own, so that its links
    can be cut, and its gateway listens there at `config.port`. The servers of the journals stay on this machine's side
    of the bridge, as does whoever trades: like the servers of a cluster they are on no node that the exchange restarts.
    """

    def __init__(self, config: ExchangeConfig, *, apart: bool = False) -> None:
        self.config = replace(config, data_dir=Path(config.data_dir).resolve())
        self._network = LocalNetwork(config.nodes) if apart and config.nodes > 1 else None
        self.address = ""
        self.nodes: LocalNodes | None = None
        """Its Ray nodes, if `config.nodes` says several: to kill, pause and start again."""
        self.nats_servers: NatsServers | None = None
        """The servers of its journals, if they are its own."""
        self._session_dir = ""

    @property
    def operator_key(self) -> str:
        return (self.config.data_dir / OPERATOR_KEY_FILE).read_text().strip()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, opened: bool = True) -> None:
        """Start Ray and the exchange; return when it takes orders, or with `opened` false as soon as everything runs.

        Raises `StartFailed`.
        """
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        os.environ.update(LOCAL_RAY_ENVIRONMENT)
        try:
            if self._network is not None:
                self._network.make()
                self.config = replace(self.config, host="0.0.0.0", same_port=True, port=self.config.port or APART_PORT)
            elif self.config.nodes > 1 and not self.config.port:
                # A supervisor that takes over does not know where a gateway that is gone has listened.
                self.config = replace(self.config, port=_free_ports(self.config.host, self.config.gateways))
            if self.config.journal == "nats" and self.config.nats is None:
                host = self._network.host if self._network is not None else LOOPBACK
                self.nats_servers = NatsServers.start(self.config.data_dir / "nats", host=host)
                self.config = replace(self.config, nats=self.nats_servers.settings())
            self._start_ray()
            self._start_supervisors(self.config)
            self.wait(opened=opened)
            gateway = next(c for c in self.status().components if c.name.startswith("gateway"))
            self.address = gateway.address
        except BaseException:
            self.stop()
            raise

    def _start_ray(self) -> None:
        if self.config.nodes > 1:
            shared = self.config.journal == "file"
            self.nodes = LocalNodes(
                self.config.nodes, self.config.data_dir, share_directory=shared, network=self._network
            )
            self.nodes.start()
            self._connect()
            return
        # Ray puts sockets below it, whose paths may have no more than 107 bytes.
        self._session_dir = tempfile.mkdtemp(prefix="evenkeel-")
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, 2),
            object_store_memory=80 << 20,
            include_dashboard=False,
            _temp_dir=self._session_dir,
            **_DRIVER,
        )

    def _connect(self) -> None:
        assert self.nodes is not None
        first = self.nodes.nodes[0]
        with self.nodes.at(first):
            ray.init(address=self.nodes.address, _node_ip_address=first.host, **_DRIVER)

    def disconnect(self) -> None:
        """Leave the Ray of several nodes, which all goes on; else this process would end with the first node."""
        ray.shutdown()

    def stop_components(self) -> None:
        """Stop all that the exchange runs. The nodes and the servers of the journals stay."""
        if self.nodes is not None and self.nodes.nodes[0].alive and not ray.is_initialized():
            self._connect()
        if ray.is_initialized():
            self._stop_components()

    def stop(self) -> None:
        """Stop everything cleanly: gateways, shards, ledger, supervisor, Ray, the servers of the journals.

        After `disconnect` that takes the first node, and the GCS.
        """
        try:
            self.stop_components()
        finally:
            ray.shutdown()
            if self.nodes is not None:
                self.nodes.stop()
            if self.nats_servers is not None:
                self.nats_servers.stop()
            if self._network is not None:
                self._network.remove()
            shutil.rmtree(self._session_dir, ignore_errors=True)
            (self.config.data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def _free_ports(host: str, count: int) -> int:
    """Return the first of so many ports in a row that are free."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind((host, 0))
            port: int = first.getsockname()[1]
            try:
                for number in range(1, count):
                    stack.enter_context(socket.socket()).bind((host, port + number))
            except (OSError, OverflowError):
                continue
            return port


class ClusterExchange(_RunningExchange):
    """The exchange on a Ray cluster that runs already, and outlives this process, as a context manager.

    `ray_address`: HOST:PORT of the cluster's GCS, or "auto" for the cluster of this machine. The environment must have
    been that of the cluster (`CLUSTER_RAY_ENVIRONMENT`) before Ray was imported, and the token the same. Raises
    `ClusterUnreachable`.
    """

    def __init__(self, ray_address: str) -> None:
        self._ray_address = ray_address

    def __enter__(self) -> Self:
        try:
            _expect_listener(self._ray_address)
            ray.init(address=self._ray_address, **_DRIVER)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterUnreachable(
                f"expected a Ray cluster at {self._ray_address} that lets us in, found none: {error}; on a machine of"
                " the cluster, `ray status` shows whether it runs, and RAY_AUTH_TOKEN_PATH names the file of its token"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ray.shutdown()

    @property
    def is_there(self) -> bool:
        """Whether the exchange was started on the cluster, and not stopped."""
        return bool(self._supervisors())

    def start(self, config: ExchangeConfig) -> None:
        """Start the exchange unless it is there; return when it takes orders. Raises `StartFailed`.

        Waits for `config.nodes` nodes first. If it does not come up, what did stays, so that one can see what it is.
        """
        if not self.is_there:
            self._wait_for_nodes(config.nodes)
            self._start_supervisors(config)
        self.wait()

    def _wait_for_nodes(self, count: int) -> None:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while (alive := sum(node["Alive"] for node in ray.nodes())) < count:
            if time.monotonic() > give_up_s:
                raise StartFailed(f"expected {count} Ray nodes, found {alive} after {START_TIMEOUT_S:.0f} s")
            time.sleep(0.2)

    def stop(self, *, stop_workers: bool = False) -> None:
        """Stop the exchange cleanly. The cluster stays, but, if so wanted, for Ray on the nodes other than the head.

        `ray down` ends Ray on the head alone, where the machines are given; on the others it would wait for a new head.
        """
        self._stop_components()
        for named in ray.util.list_named_actors(all_namespaces=True):
            if named["namespace"] == NAMESPACE:
                ray.kill(ray.get_actor(named["name"], namespace=NAMESPACE))
        if stop_workers:
            self._stop_workers()

    def _stop_workers(self) -> None:
        head = ray.get_runtime_context().get_node_id()
        for node in ray.nodes():
            if node["Alive"] and node["NodeID"] != head:
                strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ray.remote(_end_raylet).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote()
        give_up_s = time.monotonic() + STOP_TIMEOUT_S
        while sum(node["Alive"] for node in ray.nodes()) > 1:
            if time.monotonic() > give_up_s:
                raise StopFailed(f"Ray still runs on workers after {STOP_TIMEOUT_S:.0f} s: `ray stop` there ends it")
            time.sleep(0.2)


def _end_raylet() -> None:
    """End the Ray node that this runs on."""
    os.kill(os.getppid(), signal.SIGTERM)


def _expect_listener(address: str) -> None:
    """Raise `OSError` if nobody listens at an address; Ray would try for two minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
