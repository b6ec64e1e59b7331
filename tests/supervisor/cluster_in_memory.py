"""A cluster for the reconciler without Ray, sockets or real time. Tests that use it run on `tests.virtual_time`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from exchange.config import ExchangeConfig
from exchange.engine.control import standby_of
from exchange.engine.words import Stage
from exchange.runtime.codec import ShardType
from exchange.runtime.host import Host
from exchange.runtime.journal import MemoryJournal
from exchange.runtime.machine import MachineType
from exchange.runtime.messages import unpack_record
from exchange.runtime.rows import ControlType, LedgerType
from exchange.runtime.snapshot import SnapshotStore
from exchange.settings import Settings, opening_at_once
from exchange.supervisor.component import AUDITOR, SUPERVISOR, Component, Node
from exchange.supervisor.reconciler import TICK_S, Reconciler
from exchange.supervisor.stages_by_hand import Action
from exchange.v1 import admin_pb2
from tests.supervisor.processes_in_memory import AuditorProcess, GatewayProcess, HostProcess, ProcessInMemory
from tests.virtual_time import AtOnce, now_s

LIMIT_S = 1_000.0
START_NS = 1_700_000_000 * 1_000_000_000


def clock_ns() -> int:
    """The wall clock of all that runs in virtual time."""
    return START_NS + round(now_s() * 1e9)


class ClusterInMemory:
    """Launches components, and keeps the journals of the machines through their restarts.

    `refused`: names that do not start for now; `taken`: ports that somebody else holds. With default settings shards
    open at once.
    """

    def __init__(self, directory: Path, config: ExchangeConfig, *, nodes: int = 1) -> None:
        self.config = config
        if config.settings == Settings():
            self.config = config = replace(config, settings=opening_at_once())
        self.living = [Node(f"id-{number}", f"node-{number}") for number in range(nodes)]
        self.launched: dict[tuple[str, int], Any] = {}
        self.ports_asked: list[int] = []
        self.refused: set[str] = set()
        self.taken: set[int] = set()
        self.history_is_long = False
        """Standbys that start have much to apply, and do not get to the end of it."""
        self._directory = directory
        self._journals: dict[str, MemoryJournal] = {}
        self._port_free = 40_000
        self.random = Random(1)
        self.control = self._host(SUPERVISOR, ControlType())
        self.reconciler = self._new_reconciler()

    @property
    def now_s(self) -> float:
        return now_s()

    @property
    def components(self) -> dict[str, Component]:
        return self.reconciler.components

    @property
    def processes(self) -> dict[str, Any]:
        """By the component's name what runs, else what ran last."""
        newest: dict[str, Any] = {process.name: process for process in self.launched.values()}
        return {**newest, **{c.name: c.process for c in self.components.values() if c.process is not None}}

    def journal(self, name: str) -> MemoryJournal:
        return self._journals.setdefault(name, MemoryJournal(name))

    def _host(self, name: str, kind: MachineType) -> Host:
        snapshots = SnapshotStore(self._directory / name)
        return Host(kind, self.journal(name), snapshots, monotonic_s=now_s, clock_ns=clock_ns, writer=AtOnce())

    def _new_reconciler(self) -> Reconciler:
        return Reconciler(self.config, self.control, self, monotonic_s=now_s, clock_ns=clock_ns, random=self.random)

    # ---------------------------------------------------------------- as a launcher

    async def nodes(self) -> list[Node]:
        return list(self.living)

    async def start(
        self, name: str, incarnation: int, *, node: str, port: int, standby: bool, settings: Settings
    ) -> ProcessInMemory:
        called = standby_of(name) if standby else name
        if called in self.refused:
            raise RuntimeError(f"{called} is refused")
        if node not in [other.id for other in self.living]:
            # As Ray has it: the node may come back.
            await asyncio.Event().wait()
        process: ProcessInMemory
        if name.startswith("gateway"):
            self.ports_asked.append(port)
            if port in self.taken:
                raise RuntimeError(f"port {port} is taken")
            if not port:
                self._port_free += 1
                port = self._port_free
            process = GatewayProcess(called, incarnation, node, port)
        elif name == AUDITOR:
            process = AuditorProcess(called, incarnation, node)
        else:
            host = self._host(name, ShardType() if name.startswith("shard") else LedgerType())
            await (host.follow() if standby else host.start())
            process = HostProcess(called, incarnation, node, host, lambda: self.history_is_long)
        process.settings = settings
        self.launched[name, incarnation] = process
        return process

    async def find(self, name: str, incarnation: int) -> ProcessInMemory | None:
        process: ProcessInMemory | None = self.launched.get((name, incarnation))
        return process if process is not None and process.alive else None

    async def end_others(self, keep: set[tuple[str, int]]) -> None:
        for key, process in self.launched.items():
            if key not in keep and process.alive:
                await process.kill()

    # ---------------------------------------------------------------- what tests do

    def journaled(self, name: str) -> list[Any]:
        """Return all commands in the journal of a shard, or of the supervisor."""
        kind = ControlType() if name == SUPERVISOR else ShardType()
        payloads = [unpack_record(record.payload) for record in self.journal(name).read(1)]
        segments = [segment for payload in payloads for batch in payload.batches for segment in batch.segments]
        return [command for segment in segments for command in kind.decode(segment)]

    async def begin(self) -> None:
        """Start the supervisor and wait until everything is up, the standbys too if there are any."""
        await self.control.start()
        await self.reconciler.start()
        await self.until(lambda: self.reconciler.is_complete)

    async def until(self, seen: Callable[[], bool]) -> None:
        """Let virtual time pass, a tick of 50 ms each, until it is so."""
        give_up_s = self.now_s + LIMIT_S
        while not seen():
            assert self.now_s < give_up_s, f"not so after {LIMIT_S:g} s"
            self.reconciler.tick()
            await asyncio.sleep(TICK_S)

    async def by_hand(self, action: Action, stage: Stage | int = 0, **more: Any) -> tuple[str, list[str]]:
        """Ask for a stage as an operator does; return the reason of the refusal, and what it was done to."""
        fields: dict[str, Any] = {"reason": "test", **more}
        request = admin_pb2.SetStageRequest(action=int(action), stage=int(stage), **fields)  # type: ignore[arg-type]
        reason, _, names = await self.reconciler.stages_by_hand.set_stage(request.SerializeToString())
        return reason, names

    async def pass_time(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        await self.until(lambda: self.now_s >= end_s)

    async def replace_supervisor(self) -> None:
        """Have another supervisor take the journal, as after the first one's death: it finds what that has left."""
        components = self.components.values()
        tasks = [
            t for c in components for t in (c.task, c.sessions_task, c.topology_task, c.settings_task) if t is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.reconciler.configuration.stop()
        self.control = self._host(SUPERVISOR, ControlType())
        self.reconciler = self._new_reconciler()
        await self.control.start()
        await self.reconciler.start()

    async def fence_supervisor(self) -> None:
        """Have another supervisor take the journal, while ours goes on as if nothing had happened."""
        await self._host(SUPERVISOR, ControlType()).start()

    async def lose(self, name: str) -> None:
        """Let a process die, and wait until the supervisor has seen it."""
        self.processes[name].die()
        await self.until(lambda: self.components[name].state.name in ("DOWN", "STARTING"))

    async def lose_node(self, node: str) -> None:
        """Let all processes of a node die, and the node be gone."""
        self.living = [other for other in self.living if other.id != node]
        for process in self.launched.values():
            if process.node == node:
                process.die()

    async def end(self) -> None:
        await self.reconciler.stop()
        for process in self.launched.values():
            process.die()
