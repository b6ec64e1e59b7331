"""A machine that has other things to do."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from chaos.faults.injection import FaultNotInjected, RollbackFailed, Wish
from chaos.worlds.lab import Lab

EFFECT_S_MAX = 15.0
END_S_MAX = 10.0
POLL_S = 0.02
SEEN_TICKS = 10
"""Of the kernel's clock (100 a second)."""
# It ends with the lab, however that ends.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(1_000_000): pass"


class BusyArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    processes: Annotated[int, Meta(ge=1, le=16)] = 2
    """That do nothing but compute: no more than there are cores."""


class BusyMachine:
    """Other processes want the cores, too, as many as are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[Process] = []
        self.target = "machine"

    async def inject(self) -> None:
        cores = os.cpu_count() or 1
        if self._count > cores:
            raise FaultNotInjected(
                f"expected no more processes than this machine has cores ({cores}), was {self._count}"
            )
        for _ in range(self._count):
            self._processes.append(await asyncio.create_subprocess_exec(sys.executable, "-c", _BUSY, stdin=DEVNULL))

    async def proof(self) -> str:
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while min(used := [_ticks(process.pid) for process in self._processes]) < SEEN_TICKS:
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(f"expected {self._count} busy processes, they got no time of a core") from error
        seconds = sum(used) / os.sysconf("SC_CLK_TCK")
        return f"{self._count} processes have taken {seconds:.1f} s of the cores so far"

    async def rollback(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        try:
            async with asyncio.timeout(END_S_MAX):
                for process in self._processes:
                    await process.wait()
        except TimeoutError as error:
            pids = " ".join(str(process.pid) for process in self._processes)
            raise RollbackFailed(f"expected the busy processes to end: `kill -9 {pids}`") from error
        self._processes.clear()


def _ticks(pid: int) -> int:
    """Return how much time of a core a process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return int(fields[11]) + int(fields[12])


def busy_machine(lab: Lab, wish: Wish, arguments: BusyArguments) -> BusyMachine:
    return BusyMachine(arguments.processes)
