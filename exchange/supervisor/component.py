"""What the supervisor knows of each process that should run, and how it reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import Any, Protocol

from exchange.engine.control import standby_of
from exchange.runtime.host import Role
from exchange.settings import Settings

SUPERVISOR = "supervisor"
LEDGER = "ledger"
AUDITOR = "auditor"
UTILISATION_INTERVAL_S = 1.0


class ComponentState(IntEnum):
    """As in `admin.proto`."""

    STARTING = 1
    UP = 2
    SUSPECT = 3
    DOWN = 4
    STOPPING = 5
    """Maintenance ends it."""
    PARKED = 6
    """Told of one that is down until a person lets it go."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: its id in Ray, and what people call it."""

    id: str
    name: str


class Process(Protocol):
    """A running component, whatever carries it. Every call raises when it is gone or out of reach."""

    @property
    def node(self) -> str:
        """The id of its node."""
        ...

    async def ping(self, record: int, checksum: int) -> dict[str, Any]:
        """Return its vitals. A standby compares the checksum with its own after that record."""
        ...

    async def submit(self, batch: bytes) -> bytes: ...

    async def configure(self, topology: bytes) -> None: ...

    async def apply_settings(self, packed: bytes) -> None:
        """Go on with other settings; `packed` by `pack_settings`."""
        ...

    async def promote(self, begin: bool) -> None:
        """Make a standby the primary; see `Host.promote`."""
        ...

    async def hand_over(self) -> int:
        """End a primary so that its standby goes on where it stopped; returns the last record."""
        ...

    async def drain(self) -> None:
        """Have a gateway send its clients elsewhere, and close."""
        ...

    async def audit(self) -> bytes:
        """Audit now; returns an AuditResponse, serialised. Of the auditor."""
        ...

    async def stop(self) -> None: ...

    async def kill(self) -> None:
        """End it for certain, by its process id where that is known."""
        ...


class Launcher(Protocol):
    """Starts components: machines, their standbys, gateways and the auditor."""

    async def nodes(self) -> list[Node]:
        """Return the nodes that are alive, in a stable order."""
        ...

    async def start(
        self, name: str, incarnation: int, *, node: str, port: int, standby: bool, settings: Settings
    ) -> Process:
        """Return once the process runs; it may still be recovering its machine.

        `name` is that of the machine, the gateway or the auditor; `port` is where a gateway is to listen, 0: any;
        `settings` are what it begins with.
        """
        ...

    async def find(self, name: str, incarnation: int) -> Process | None:
        """Return a process that an earlier supervisor started, if it is there."""
        ...

    async def end_others(self, keep: set[tuple[str, int]]) -> None:
        """End all processes that are not these names and incarnations: nobody knows them any more."""
        ...


@dataclass(slots=True, eq=False)
class Component:
    """One process that should run. `machine` is whose primary or standby it is, "" for gateways and the auditor."""

    name: str
    machine: str = ""
    is_standby: bool = False
    state: ComponentState = ComponentState.DOWN
    incarnation: int = 0
    process: Process | None = None
    node: str = ""
    vitals: dict[str, Any] = field(default_factory=dict)
    detail: str = "not started yet"
    restarts: int = -1
    failures: int = 0
    losses: int = 0
    """How often this supervisor has lost it."""
    start_duration_ms: int = 0
    task: asyncio.Task[Any] | None = None
    since_s: float = 0.0
    next_start_s: float = -inf
    """When it is due; long ago for the first start, which gives way to nothing."""
    next_ping_s: float = 0.0
    port: int = 0
    """Where a gateway listened last."""
    topology: int = 0
    """The version that it was told last."""
    topology_task: asyncio.Task[None] | None = None
    settings_version: int = 0
    """Of the settings that it has; 0: nobody knows."""
    settings_task: asyncio.Task[None] | None = None
    is_ending: bool = False
    """Its process is being ended, and may not be gone although the next incarnation is taken."""
    held_down: bool = False
    """Not to be started now: maintenance has it."""
    parked: str = ""
    """Why it is not to be started until a person lets it go."""
    is_spare: bool = False
    """A gateway for which there is no node as long as some are drained: nobody waits for it."""
    home: str = ""
    """The node where a gateway was last, since clients know its address."""
    utilisation: float = 0.0
    """The share of a core that its process has used during the last second."""
    cpu_read: tuple[float, float] = (0.0, 0.0)
    """When it was measured, and the CPU time that the process had used by then."""
    sessions_of: tuple[int, ...] | None = None
    """Of a shard: the gateways' incarnations, when it last journaled that it cancels what all others placed."""
    sessions_task: asyncio.Task[None] | None = None
    sessions_next_s: float = 0.0

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]

    @property
    def serves(self) -> str:
        """The name of its machine, as primary or standby, else its own: settings are the same for both."""
        return self.machine or self.name

    @property
    def is_gateway(self) -> bool:
        return self.kind == "gateway"

    @property
    def is_shard(self) -> bool:
        """Whether it is the primary of a shard."""
        return self.kind == "shard" and not self.is_standby

    @property
    def gives_way(self) -> bool:
        """Whether trading does not wait for it."""
        return self.is_standby or self.name == AUDITOR

    @property
    def is_up(self) -> bool:
        return self.state in (ComponentState.UP, ComponentState.SUSPECT) and self.process is not None

    @property
    def can_take_over(self) -> bool:
        """Whether it is a standby that follows."""
        return self.is_standby and self.is_up and self.vitals.get("role") == Role.STANDBY

    @property
    def has_caught_up(self) -> bool:
        """Whether it is a standby that can take over in a moment, as it need not apply a history first."""
        return self.can_take_over and bool(self.vitals.get("has_caught_up"))

    @staticmethod
    def listens_on(vitals: Mapping[str, Any]) -> int:
        """Return the port that a gateway's vitals tell, 0 of others."""
        return int(vitals.get("address", "").rpartition(":")[2] or 0)

    def measure(self, now_s: float) -> None:
        """Read from the vitals what share of a core the process uses, once a second."""
        then_s, cpu_then_s = self.cpu_read
        cpu_s = self.vitals.get("cpu_s", 0.0)
        if now_s - then_s >= UTILISATION_INTERVAL_S:
            is_same = cpu_then_s and cpu_s >= cpu_then_s
            self.utilisation = (cpu_s - cpu_then_s) / (now_s - then_s) if is_same else 0.0
            self.cpu_read = now_s, cpu_s

    def leave(self) -> None:
        """Forget the process: another component has it now, or nobody."""
        for task in (self.task, self.topology_task, self.settings_task):
            if task is not None:
                task.cancel()
        self.task = self.topology_task = self.settings_task = self.process = None
        self.incarnation, self.node, self.vitals = 0, "", {}
        self.state, self.topology, self.settings_version = ComponentState.DOWN, 0, 0
        self.utilisation, self.cpu_read = 0.0, (0.0, 0.0)


def components_of(machines: list[str], gateways: list[str], *, standbys: bool) -> dict[str, Component]:
    """Return everything that should run, in the order in which it is started."""
    components = [Component(name, name) for name in machines]
    components += [Component(name) for name in gateways]
    if standbys:
        components += [Component(standby_of(name), name, is_standby=True) for name in machines]
    return {c.name: c for c in [*components, Component(AUDITOR)]}
