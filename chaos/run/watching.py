"""What is seen of an exchange from outside while a run goes on: its status, its stages, its processes' memory."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc

from chaos.faults.fault import Target
from chaos.run.parts import Note
from chaos.run.record import Check
from chaos.worlds.health import Health
from exchange.v1 import admin_pb2, types_pb2

LOOK_S = 0.2
UNSEEN = "?"
_STATE, _STAGE = "COMPONENT_STATE_", "STAGE_"
_STANDBY = "-standby"


Memory = Callable[[Sequence[Target]], Awaitable[float]]
"""Returns what processes have in memory together, in MB."""


class StatusWatch:
    """Asks for the status again and again, and tells of each change.

    `health` is made once the exchange serves; `memory` looks at the processes that the status names.
    """

    def __init__(self, health: Callable[[], Health], directory: Path, memory: Memory) -> None:
        self._make_health = health
        self._directory = directory
        self._memory = memory
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
        return ()

    async def run(self, note: Note) -> None:
        self._health = health = self._make_health()
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
