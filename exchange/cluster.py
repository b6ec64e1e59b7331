"""Starting, finding and stopping an exchange on Ray."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

# Ray prints each death of a worker in ten lines, `log_to_driver=False` or not; here the supervisor says it, and acts.
# This switch of Ray's keeps these lines from the terminal, and no others. Ray reads it when it is imported; if that was
# before, or if they are worded differently one day, they are printed as ever.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^A worker died or was killed while executing a task")

import ray

from exchange.actors import ADDRESS_FILE, NAMESPACE, OPERATOR_KEY_FILE, SupervisorActor
from exchange.config import ExchangeConfig
from exchange.nodes import LocalNodes
from exchange.ray_settings import LOCAL_RAY_ENVIRONMENT
from exchange.supervisor.reconciler import SUPERVISOR
from exchange.v1 import admin_pb2

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0


class StartFailed(RuntimeError):
    """The exchange did not come up; the message says which part, and why."""

    code = "START_FAILED"


class LocalExchange:
    """An exchange on a Ray of its own on this machine, of one node or several, as a context manager.

    `with LocalExchange(config) as exchange: exchange.address, exchange.operator_key`
    """

    nodes: LocalNodes | None = None
    """Its Ray nodes, if `config.nodes` says several: to kill, pause and start again."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = replace(config, data_dir=Path(config.data_dir).resolve())
        self.address = ""
        self._supervisor: Any = None
        self._session_dir = ""

    @property
    def operator_key(self) -> str:
        return (self.config.data_dir / OPERATOR_KEY_FILE).read_text().strip()

    def __enter__(self) -> LocalExchange:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start Ray and the exchange; return when it takes orders. Raises `StartFailed`."""
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        os.environ.update(LOCAL_RAY_ENVIRONMENT)
        try:
            self._start_ray()
            actor = ray.remote(SupervisorActor).options(
                name=SUPERVISOR,
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=1_000,
            )
            self._supervisor = actor.remote(self.config)
            self._wait()
            gateway = next(c for c in self.status().components if c.name.startswith("gateway"))
            self.address = gateway.address
        except BaseException:
            self.stop()
            raise

    def _start_ray(self) -> None:
        driver = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
        if self.config.nodes > 1:
            self.nodes = LocalNodes(self.config.nodes, self.config.data_dir)
            self.nodes.start()
            ray.init(address=self.nodes.address, _node_ip_address=self.nodes.nodes[0].host, **driver)
            return
        # Ray puts sockets below it, whose paths may have no more than 107 bytes.
        self._session_dir = tempfile.mkdtemp(prefix="evenkeel-")
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, 2),
            object_store_memory=80 << 20,
            include_dashboard=False,
            _temp_dir=self._session_dir,
            **driver,
        )

    def _wait(self) -> None:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if ray.get(self._supervisor.is_ready.remote(), timeout=START_TIMEOUT_S):
                    return
            except ray.exceptions.RayError as error:
                raise StartFailed(f"supervisor: {error}") from error
            failed = [c for c in self.status().components if c.detail.startswith("did not start")]
            if failed:
                raise StartFailed("; ".join(f"{c.name} {c.detail}" for c in failed))
            if time.monotonic() > give_up_s:
                raise StartFailed(f"not ready after {START_TIMEOUT_S:.0f} s: {self.status()}")
            time.sleep(0.05)

    def status(self) -> admin_pb2.GetStatusResponse:
        """Return what runs where."""
        return admin_pb2.GetStatusResponse.FromString(ray.get(self._supervisor.status.remote()))

    def stop(self) -> None:
        """Stop everything cleanly: gateways, shards, ledger, supervisor, Ray."""
        try:
            if self._supervisor is not None:
                ray.get(self._supervisor.stop.remote(), timeout=STOP_TIMEOUT_S)
        except ray.exceptions.RayError:
            # What did not stop in time is killed with Ray; the journal has everything that was acknowledged.
            pass
        finally:
            ray.shutdown()
            if self.nodes is not None:
                self.nodes.stop()
            shutil.rmtree(self._session_dir, ignore_errors=True)
            (self.config.data_dir / ADDRESS_FILE).unlink(missing_ok=True)
