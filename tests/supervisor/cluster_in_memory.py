"""A cluster for the reconciler without Ray, sockets or real time: hosts on journals in memory, gateways of thin air."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from exchange.config import ExchangeConfig
from exchange.runtime.codec import ShardType
from exchange.runtime.host import Host
from exchange.runtime.journal import MemoryJournal
from exchange.runtime.machine import MachineType
from exchange.runtime.messages import unpack, unpack_batch, unpack_record
from exchange.runtime.rows import ControlType, LedgerType
from exchange.runtime.snapshot import SnapshotStore
from exchange.supervisor.reconciler import AUDITOR, Reconciler

STEPS_PER_TICK = 50
"""Of the event loop: more than anything here takes in a row, so that what can happen in a tick does."""


class Gone(Exception):
    """The process does not answer any more."""


class AtOnce(Executor):
    """Runs what it is given where it stands, so that no thread's pace matters."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class HostProcess:
    """A shard or the ledger. `deaf`: pings are answered, commands fail."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.alive = True
        self.deaf = False
        self.batches = 0

    def _check(self) -> None:
        if not self.alive:
            raise Gone

    async def ping(self) -> dict[str, Any]:
        self._check()
        hashed = self.host.at.hashed
        return {
            "pid": id(self),
            "epoch": self.host.epoch,
            "sequence": self.host.machine.sequence,
            "state_hash": hashed.digest.hex(),
            "state_hash_sequence": hashed.sequence,
        }

    async def submit(self, batch: bytes) -> bytes:
        self._check()
        self.batches += 1
        if self.deaf:
            raise Gone
        return await self.host.submit(unpack_batch(unpack(batch)))

    async def configure(self, topology: bytes) -> None:
        """A shard has no carrier here, so it needs not know where the ledger is."""

    async def audit(self) -> bytes:
        raise AssertionError("a host audits nothing")

    async def stop(self) -> None:
        await self.host.stop()

    async def kill(self) -> None:
        self.alive = False


class GatewayProcess:
    def __init__(self, incarnation: int, port: int) -> None:
        self.incarnation = incarnation
        self.port = port
        self.alive = True

    async def ping(self) -> dict[str, Any]:
        if not self.alive:
            raise Gone
        return {"pid": id(self), "address": f"127.0.0.1:{self.port}"}

    async def submit(self, batch: bytes) -> bytes:
        raise AssertionError("a gateway has no machine")

    async def configure(self, topology: bytes) -> None:
        if not self.alive:
            raise Gone

    async def audit(self) -> bytes:
        raise AssertionError("a gateway audits nothing")

    async def stop(self) -> None:
        self.alive = False

    async def kill(self) -> None:
        self.alive = False


class AuditorProcess:
    """An auditor that has found what a test puts into `breaks`."""

    def __init__(self) -> None:
        self.breaks: list[dict[str, Any]] = []
        self.alive = True

    def _check(self) -> None:
        if not self.alive:
            raise Gone

    async def ping(self) -> dict[str, Any]:
        self._check()
        detail = self.breaks[-1]["summary"] if self.breaks else ""
        return {"pid": id(self), "breaks": self.breaks, "failure": detail}

    async def submit(self, batch: bytes) -> bytes:
        raise AssertionError("the auditor has no machine")

    async def configure(self, topology: bytes) -> None:
        self._check()

    async def audit(self) -> bytes:
        self._check()
        return b"audited"

    async def stop(self) -> None:
        self.alive = False

    async def kill(self) -> None:
        self.alive = False


class ClusterInMemory:
    """Launches components, and keeps the journals of the machines through their restarts.

    `refused`: names that do not start for now; `taken`: ports that somebody else holds.
    """

    def __init__(self, directory: Path, config: ExchangeConfig) -> None:
        self.config = config
        self.processes: dict[str, Any] = {}
        self.ports_asked: list[int] = []
        self.refused: set[str] = set()
        self.taken: set[int] = set()
        self.now_s = 1_000.0
        self._directory = directory
        self._journals: dict[str, MemoryJournal] = {}
        self._port_free = 40_000
        self.control = self._host("supervisor", ControlType())
        self.reconciler = self._new_reconciler()

    def _host(self, name: str, kind: MachineType) -> Host:
        journal = self._journals.setdefault(name, MemoryJournal(name))
        snapshots = SnapshotStore(self._directory / name)
        return Host(kind, journal, snapshots, monotonic_s=lambda: self.now_s, writer=AtOnce())

    def _new_reconciler(self) -> Reconciler:
        return Reconciler(self.config, self.control, self, monotonic_s=lambda: self.now_s)

    async def start(self, name: str, incarnation: int, port: int) -> Any:
        if name in self.refused:
            raise RuntimeError(f"{name} is refused")
        process: HostProcess | GatewayProcess | AuditorProcess
        if name.startswith("gateway"):
            self.ports_asked.append(port)
            if port in self.taken:
                raise RuntimeError(f"port {port} is taken")
            if not port:
                self._port_free += 1
                port = self._port_free
            process = GatewayProcess(incarnation, port)
        elif name == AUDITOR:
            process = AuditorProcess()
        else:
            process = HostProcess(self._host(name, ShardType() if name.startswith("shard") else LedgerType()))
            await process.host.start()
        self.processes[name] = process
        return process

    def journaled(self, name: str) -> list[Any]:
        """Return all commands in the journal of a shard, or of the supervisor."""
        kind = ControlType() if name == "supervisor" else ShardType()
        payloads = [unpack_record(record.payload) for record in self._journals[name].read(1)]
        segments = [segment for payload in payloads for batch in payload.batches for segment in batch.segments]
        return [command for segment in segments for command in kind.decode(segment)]

    async def begin(self) -> None:
        """Start the supervisor and wait until everything is up."""
        await self.control.start()
        await self.reconciler.start()
        await self.until(lambda: self.reconciler.is_ready)

    async def until(self, seen: Callable[[], bool]) -> None:
        """Let virtual time pass, a tick of 50 ms each, until it is so."""
        while not seen():
            self.now_s += 0.05
            self.reconciler.tick()
            for _ in range(STEPS_PER_TICK):
                await asyncio.sleep(0)

    async def restart_supervisor(self) -> None:
        """Replace the supervisor, which then replaces everything else."""
        components = self.reconciler.components.values()
        tasks = [task for c in components for task in (c.task, c.sessions_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.control.stop()
        for process in self.processes.values():
            await process.kill()
        self.control = self._host("supervisor", ControlType())
        self.reconciler = self._new_reconciler()
        await self.control.start()
        await self.reconciler.start()

    async def lose(self, name: str) -> None:
        """Let a process die, and wait until the supervisor has seen it."""
        incarnation = self.reconciler.components[name].incarnation
        self.processes[name].alive = False
        await self.until(lambda: self.reconciler.components[name].state.name in ("DOWN", "STARTING"))
        assert self.reconciler.components[name].incarnation == incarnation

    async def end(self) -> None:
        await self.reconciler.stop()
