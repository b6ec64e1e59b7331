"""Faults of processes and nodes of a cluster, done by the agents there."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos.cluster.agents import POLL_S, Agents
from chaos.cluster.hands import GONE, NodeAway
from chaos.experiment.model import Experiment, FaultStep
from chaos.faults.fault import Target
from chaos.faults.injection import FaultNotInjected
from chaos.run.parts import Agent, Fault

BY_AGENTS = ("kill-process", "pause-process", "kill-node")
BY_HAND = (
    "planned-restart",
    "hold-stage",
    "bad-configuration",
    "slow-machine",
    "mass-cancel",
    "reconnect-storm",
    "slow-reader",
)
"""As an operator or a client does it, from anywhere."""
_STOPPED = "T"
_SUPERVISOR = "supervisor"


@dataclass(slots=True)
class KilledProcess:
    """SIGKILL. Whoever watches it starts it again, so there is nothing to take back."""

    process: Target
    agents: Agents

    @property
    def target(self) -> str:
        return self.process.name

    async def inject(self) -> None:
        await self.agents.on(self.process.node).signal(self.process.pid, signal.SIGKILL)

    async def proof(self) -> str:
        hands = self.agents.on(self.process.node)
        while await hands.state(self.process.pid) != GONE:
            await asyncio.sleep(POLL_S)
        return f"process {self.process.pid} on {self.process.node} is gone"

    async def rollback(self) -> None:
        pass


@dataclass(slots=True)
class PausedProcess:
    """SIGSTOP, then SIGCONT. Who was taken for dead meanwhile may have been killed."""

    process: Target
    agents: Agents

    @property
    def target(self) -> str:
        return self.process.name

    async def inject(self) -> None:
        await self.agents.on(self.process.node).signal(self.process.pid, signal.SIGSTOP)

    async def proof(self) -> str:
        hands = self.agents.on(self.process.node)
        while (state := await hands.state(self.process.pid)) != _STOPPED:
            if state == GONE:
                raise FaultNotInjected(f"expected {self.process} to stand still, found it gone")
            await asyncio.sleep(POLL_S)
        return f"process {self.process.pid} on {self.process.node} stands still"

    async def rollback(self) -> None:
        try:
            await self.agents.on(self.process.node).signal(self.process.pid, signal.SIGCONT)
        except NodeAway:
            # The process is gone with its node.
            pass


@dataclass(slots=True)
class KilledNode:
    """All of a node's processes. It is back when its machine has started Ray again, which is waited for."""

    name: str
    agents: Agents
    director: str
    """The node that must not be killed."""
    _id: str = ""

    @property
    def target(self) -> str:
        return self.name

    async def inject(self) -> None:
        if self.name == self.director:
            raise FaultNotInjected(f"expected a node other than the director's own, was {self.name}")
        self._id = self.agents.id_of(self.name)
        try:
            await self.agents.on(self.name).end_node()
        except NodeAway:
            if not self._id:
                raise

    async def proof(self) -> str:
        await self.agents.wait_until(self.name, is_there=False)
        return f"Ray has lost {self.name} ({self._id[:8]})"

    async def rollback(self) -> None:
        if self._id:
            await self.agents.wait_until(self.name, is_there=True, other_than=self._id)


def check_faults(experiment: Experiment) -> None:
    """Raises `FaultNotInjected` if a fault needs what an exchange on a cluster was not started with."""
    for step in (step for phase in experiment.phases for step in phase.faults):
        if step.fault not in {*BY_AGENTS, *BY_HAND}:
            known = ", ".join((*BY_AGENTS, *BY_HAND))
            raise FaultNotInjected(f"expected a fault that can be done on a cluster ({known}), was {step.fault}")


class ClusterAgent:
    """Chooses targets from what the exchange's status names, and has the agents do it, or does it `by_hand`."""

    def __init__(
        self, agents: Agents, by_hand: Agent, targets: Callable[[], Sequence[Target]], seed: int, director: str
    ) -> None:
        self._agents = agents
        self._by_hand = by_hand
        self._targets = targets
        self._seed = seed
        self._director = director

    async def make(self, number: int, step: FaultStep) -> Fault:
        match step.fault:
            case "kill-node":
                return KilledNode(step.target, self._agents, self._director)
            case "kill-process":
                return KilledProcess(await self._process(number, step), self._agents)
            case "pause-process":
                return PausedProcess(await self._process(number, step), self._agents)
            case _:
                return await self._by_hand.make(number, step)

    async def _process(self, number: int, step: FaultStep) -> Target:
        found = [target for target in self._targets() if step.target in {target.name, target.role}]
        if step.target == _SUPERVISOR:
            for node in self._agents.names:
                pids = await self._agents.on(node).supervisors()
                found += [Target(_SUPERVISOR, _SUPERVISOR, pid, node) for pid in pids]
        if not found:
            raise FaultNotInjected(f"expected something to do it to, found no {step.target}")
        return random.Random(f"{self._seed}-{number}").choice(found)
