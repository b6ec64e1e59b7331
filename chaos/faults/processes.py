"""Faults of single processes: SIGKILL, and SIGSTOP for some seconds."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.faults.fault import Fault, FaultKind, Target

PAUSE_S = (1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to processes. Whoever watches them starts them again."""

    pids: Sequence[int]
    lasts_s: float = 0.0

    @property
    def killed_pids(self) -> Sequence[int]:
        return self.pids

    def inject(self) -> None:
        for pid in self.pids:
            _send(pid, signal.SIGKILL)

    def heal(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Pause:
    """SIGSTOP, then SIGCONT. Who was taken for dead meanwhile may have been killed."""

    pids: Sequence[int]
    lasts_s: float
    killed_pids: Sequence[int] = ()

    def inject(self) -> None:
        for pid in self.pids:
            _send(pid, signal.SIGSTOP)

    def heal(self) -> None:
        for pid in self.pids:
            _send(pid, signal.SIGCONT)


class ProcessKiller:
    kind = FaultKind.KILL_PROCESS

    def targets(self, all_targets: Sequence[Target]) -> Sequence[Target]:
        return [target for target in all_targets if target.pid]

    def make(self, target: Target, chance: random.Random) -> Fault:
        return Kill([target.pid])


class ProcessPauser:
    kind = FaultKind.PAUSE_PROCESS

    def __init__(self, lasts_s: tuple[float, float] = PAUSE_S) -> None:
        self._lasts_s = lasts_s

    def targets(self, all_targets: Sequence[Target]) -> Sequence[Target]:
        return [target for target in all_targets if target.pid]

    def make(self, target: Target, chance: random.Random) -> Fault:
        return Pause([target.pid], chance.uniform(*self._lasts_s))


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended meanwhile
