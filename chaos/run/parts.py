"""What a director works with. Real ones start processes; those of the tests run under virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chaos.experiment.model import FaultStep
from chaos.run.record import Check, Event, EventKind, Sample

Note = Callable[[EventKind, str, str, str], None]
"""Writes an event down: kind, name, what, detail."""


class Fault(Protocol):
    """One fault that can be done. What `inject` has begun is taken back by `rollback`, done in full or not."""

    @property
    def target(self) -> str:
        """What it is done to, by name."""
        ...

    async def inject(self) -> None: ...

    async def proof(self) -> str:
        """Return what shows that it took effect. Raises `FaultNotInjected`."""
        ...

    async def rollback(self) -> None:
        """Raises `RollbackFailed`. Doing it twice is allowed."""
        ...


class Agent(Protocol):
    """Does faults where they are to be done: here, or on the nodes of a cluster."""

    async def make(self, number: int, step: FaultStep) -> Fault:
        """Return a fault, and choose its target by the seed. Raises `FaultNotInjected` if there is none to do it to."""
        ...


class Load(Protocol):
    """What is sent, by processes of its own."""

    @property
    def schedule_sha256(self) -> str: ...

    async def start(self) -> None:
        """Make all ready, so that it can begin."""
        ...

    async def begin(self, at_monotonic_ns: int) -> None: ...

    async def next_second(self) -> Sample | None:
        """Return the next second whose requests have all ended, without stages and memory; None once all is over.

        Raises what made the load fail.
        """
        ...

    async def finish(self) -> None:
        """Send nothing more, wait for what is under way, and end."""
        ...


class World(Protocol):
    """The exchange under test, its own or one that it is attached to."""

    async def start(self) -> None:
        """Start it, or find it, with all that the load needs."""
        ...

    async def gather(self) -> None:
        """Keep the history of its journals until cancelled."""
        ...

    async def stop_exchange(self) -> None:
        """End all that writes, if it is its own, and keep the rest of the history."""
        ...

    async def stop(self) -> None:
        """End everything that it has started."""
        ...


class Watch(Protocol):
    """What is seen of the exchange from outside."""

    @property
    def stages(self) -> dict[str, str]: ...

    @property
    def memory_mb(self) -> float: ...

    @property
    def disk_free_mb(self) -> float: ...

    async def run(self, note: Note) -> None:
        """Look until cancelled."""
        ...

    def broken(self) -> Sequence[Check]:
        """Return the rules that are seen to be broken already."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the whole of a run shows."""

    checks: Sequence[Check] = ()
    figures: dict[str, float] = field(default_factory=dict)


class Judge(Protocol):
    """Checks the whole of a run, once it is over, from what stands in its directory."""

    async def judge(self, directory: Path, samples: Sequence[Sample], events: Sequence[Event]) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class Parts:
    world: World
    load: Load
    watch: Watch
    agent: Agent
    judge: Judge
