"""Does faults on this machine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from chaos.experiment.model import FaultStep
from chaos.faults.fault import Fault as Kill
from chaos.faults.fault import Target
from chaos.faults.processes import ProcessKiller
from exchange.processes import read_process

_POLL_S = 0.01


class FaultNotInjected(RuntimeError):
    """A fault did not take effect, so whatever was seen says nothing of it."""

    code = "FAULT_NOT_INJECTED"


class KilledProcess:
    def __init__(self, target: Target, kill: Kill) -> None:
        self._pid = target.pid
        self._kill = kill
        self.target = target.name

    async def inject(self) -> None:
        self._kill.inject()

    async def proof(self) -> str:
        while (process := read_process(self._pid)) and process.state != "Z":
            await asyncio.sleep(_POLL_S)
        return f"process {self._pid} is gone"

    async def rollback(self) -> None:
        """Whoever watches it has started it again."""


class LocalAgent:
    def __init__(self, targets: Callable[[], Sequence[Target]], seed: int) -> None:
        self._targets = targets
        self._seed = seed

    async def make(self, number: int, step: FaultStep) -> KilledProcess:
        if step.fault != "kill-process":
            raise FaultNotInjected(f"expected a fault that can be done here, was {step.fault}")
        found = [target for target in self._targets() if step.target in {target.name, target.role}]
        if not found:
            raise FaultNotInjected(f"expected something to do it to, found no {step.target}")
        chance = random.Random(f"{self._seed}-{number}")
        target = chance.choice(found)
        return KilledProcess(target, ProcessKiller().make(target, chance))
