"""Faults of things that are taken away for some seconds and then given back: nodes, links, NATS servers, the GCS."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos.faults.fault import Fault, FaultKind, Target

Act = Callable[[Target], None]


def _no_pids(_: Target) -> Sequence[int]:
    return ()


@dataclass(frozen=True, slots=True)
class Away:
    """One thing that is away."""

    target: Target
    take: Act
    give_back: Act
    lasts_s: float
    killed_pids: Sequence[int]

    def inject(self) -> None:
        self.take(self.target)

    def heal(self) -> None:
        self.give_back(self.target)


@dataclass(frozen=True, slots=True)
class Taker:
    """Makes faults of one kind: how it is taken away and given back, and for how long.

    `names` are the targets there are now; `pids_of` the processes that end when it is taken, which must be seen to be
    gone afterwards.
    """

    kind: FaultKind
    names: Callable[[], Sequence[Target]]
    take: Act
    give_back: Act
    lasts_s: tuple[float, float]
    pids_of: Callable[[Target], Sequence[int]] = _no_pids

    def targets(self, all_targets: Sequence[Target]) -> Sequence[Target]:
        return self.names()

    def make(self, target: Target, chance: random.Random) -> Fault:
        lasts_s = chance.uniform(*self.lasts_s)
        return Away(target, self.take, self.give_back, lasts_s, tuple(self.pids_of(target)))
