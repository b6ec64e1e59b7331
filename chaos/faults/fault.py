"""What can go wrong, and a seeded plan of it. Each fault is done to a target that the exchange's status names."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class FaultKind(StrEnum):
    KILL_PROCESS = "kill process"
    PAUSE_PROCESS = "pause process"
    KILL_NODE = "kill node"
    PAUSE_NODE = "pause node"
    CUT_LINK = "cut link"
    """Of a node, from everything."""
    CUT_PEERS = "cut from peers"
    """Of a node, from the other nodes alone."""
    CUT_WAY = "cut one way"
    """What a node sends to the other nodes is lost; what they send arrives."""
    CUT_NATS = "cut from NATS"
    """What a node sends to the servers of the journals is lost; all else arrives."""
    KILL_NATS = "kill NATS server"
    KILL_GCS = "kill GCS"


@dataclass(frozen=True, slots=True)
class Target:
    """A process, or a node by its name, that a fault is done to. `role`: "shard", "standby", "gateway" and so on."""

    name: str
    role: str
    pid: int = 0
    node: str = ""

    def __str__(self) -> str:
        node = f" on {self.node}" if self.node else ""
        return f"{self.name}{node}" + (f" ({self.pid})" if self.pid else "")


class Fault(Protocol):
    """One fault. `inject` does it, `heal` takes back what does not heal by itself; each returns at once."""

    @property
    def lasts_s(self) -> float:
        """How long until it is to be healed; 0: there is nothing to heal."""
        ...

    @property
    def killed_pids(self) -> Sequence[int]:
        """Processes that are gone for good by then: nobody may believe in them any more."""
        ...

    def inject(self) -> None: ...

    def heal(self) -> None: ...


class Injector(Protocol):
    """Makes faults of one kind."""

    @property
    def kind(self) -> FaultKind: ...

    def targets(self, all_targets: Sequence[Target]) -> Sequence[Target]:
        """Return those that this kind can be done to now."""
        ...

    def make(self, target: Target, chance: random.Random) -> Fault: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: of which kind, done to which of the targets there are then, and after how long.

    `role` narrows the targets to a role, if there are any of it; so that the ten gateways of an exchange do not get
    all faults.
    """

    kind: FaultKind
    role: str
    pick: float
    pause_s: float
    seed: int


def plan_faults(
    seed: int, count: int, roles: Mapping[FaultKind, Sequence[str]], pause_s_max: float, doubles: float
) -> list[list[Planned]]:
    """Return a seeded plan: faults that come by themselves, after the exchange has recovered from the ones before.

    Each kind of fault and each of its roles comes once before any comes again. A share of `doubles` are two that come
    together, the second one within a second of the first.
    """
    chance = random.Random(seed)
    kinds = _in_turn(chance, list(roles))
    in_turn = {kind: _in_turn(chance, list(of_kind)) for kind, of_kind in roles.items()}
    plan: list[list[Planned]] = []
    for number in range(count):
        kind = kinds()
        is_second = number > 0 and len(plan[-1]) == 1 and chance.random() < doubles
        pause_s = chance.uniform(0.0, 1.0) if is_second else chance.uniform(0.1, pause_s_max)
        planned = Planned(kind, in_turn[kind](), chance.random(), pause_s, chance.getrandbits(32))
        if is_second:
            plan[-1].append(planned)
        else:
            plan.append([planned])
    return plan


def _in_turn(chance: random.Random, items: list[T]) -> Callable[[], T]:
    """Return a function that gives the items in random order, all of them before any comes again."""
    left: list[T] = []

    def take() -> T:
        if not left:
            left.extend(chance.sample(items, len(items)))
        return left.pop()

    return take


def choose(planned: Planned, targets: Sequence[Target]) -> Target | None:
    """Return the target of a planned fault among those there are; None if there is none."""
    of_role = [target for target in targets if target.role == planned.role] or list(targets)
    return of_role[int(planned.pick * len(of_role))] if of_role else None
