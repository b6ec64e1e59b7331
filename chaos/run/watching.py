"""What is seen of an exchange from outside while a run goes on: its status, its stages, its processes' memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import grpc

from chaos.faults.fault import Target
from chaos.invariants.findings import RULES
from chaos.invariants.live import LiveChecks, LogTail
from chaos.run.parts import Note
from chaos.run.record import LOGS, Check
from chaos.worlds.health import Health
from exchange.v1 import admin_pb2, types_pb2

LOOK_S = 0.2
READ_LOGS_S = 1.0
_STATE, _STAGE = "COMPONENT_STATE_", "STAGE_"
_STANDBY = "-standby"


Memory = Callable[[Sequence[Target]], Awaitable[float]]
"""Returns what processes have in memory together, in MB."""


class StatusWatch:
    """Asks for the status again and again, and tells of each change.

    `health` is made once the exchange serves; `memory` looks at the processes that the status names. The logs of the
    clients, which stand in the run's directory, are read as they grow, for the rules that show already; `markets` (each
    with its shard) is asked for once the exchange serves.
    """

    def __init__(
        self, health: Callable[[], Health], directory: Path, memory: Memory, markets: Callable[[], Mapping[str, str]]
    ) -> None:
        self._make_health = health
        self._directory = directory
        self._memory = memory
        self._markets = markets
        self._live: LiveChecks | None = None
        self._health: Health | None = None
        self._seen: dict[str, str] = {}
        self.stages: dict[str, str] = {}
        self.memory_mb = 0.0

    @property
    def disk_free_mb(self) -> float:
        return shutil.disk_usage(self._directory).free / 1e6

    def targets(self) -> list[Target]:
        """Return the processes that the last status named."""
        return self._health.targets() if self._health is not None else []

    def broken(self) -> Sequence[Check]:
        """Return the rules that are seen to be broken already, each with what was found first."""
        if self._live is None:
            return ()
        first = {found.rule: found for found in reversed(self._live.findings)}
        return [
            Check(
                name=rule,
                held=False,
                wanted=RULES[rule],
                found=f"seen while it ran: {found.summary}",
                looked_at=self._live.looked_at.get(rule, 0),
                evidence=(found.evidence,) if found.evidence else (),
            )
            for rule, found in sorted(first.items())
        ]

    async def run(self, note: Note) -> None:
        self._health = health = self._make_health()
        self._live = live = LiveChecks(self._markets())
        tail = LogTail(self._directory / LOGS)
        read_s = time.monotonic()
        try:
            while True:
                try:
                    components = await health.status()
                except grpc.aio.AioRpcError:
                    # The last known stages stand: nobody says that they are others.
                    components = []
                for component in components:
                    self._tell(component, note)
                if components:
                    self.memory_mb = await self._memory(health.targets())
                if components:
                    for shard, stage in self.stages.items():
                        live.status(shard, stage, time.monotonic())
                if time.monotonic() > read_s + READ_LOGS_S:
                    read_s = time.monotonic()
                    await asyncio.to_thread(tail.take, live.lines)
                    live.look(read_s)
                await asyncio.sleep(LOOK_S)
        finally:
            await health.close()

    def _tell(self, component: admin_pb2.Component, note: Note) -> None:
        """Write down what is another than before: the stage of a shard, and what became of a process."""
        name = component.name
        if component.stage and not name.endswith(_STANDBY):
            stage = types_pb2.Stage.Name(component.stage).removeprefix(_STAGE)
            if self.stages.get(name) != stage:
                self.stages[name] = stage
                note("stage", name, stage, component.stage_reason)
        state = admin_pb2.ComponentState.Name(component.state).removeprefix(_STATE)
        if self._seen.get(name, state) != state:
            note("component", name, state, component.detail)
        self._seen[name] = state


async def memory_here(targets: Sequence[Target]) -> float:
    """Return the memory of processes of this machine."""
    return sum(resident_mb(target.pid) for target in targets)


async def memory_unseen(_: Sequence[Target]) -> float:
    """Return nothing, for processes of machines that nobody looks at."""
    return 0.0


def resident_mb(pid: int) -> float:
    """Return what a process of this machine has in memory; none if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
