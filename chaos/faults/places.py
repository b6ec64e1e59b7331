"""Whole nodes, links between them, NATS servers, and Ray's head: taken away, and given back."""

from __future__ import annotations

import asyncio
import random

from chaos.faults.fault import Fault, FaultKind, Target
from chaos.faults.injection import FaultNotInjected, RollbackFailed, TargetUnknown, Wish
from chaos.faults.signals import wait_until_gone
from chaos.worlds.lab import Lab
from chaos.worlds.world import World

POLL_S = 0.05
EFFECT_S_MAX = 15.0
GCS = "gcs"
BACK_S_MAX = 40.0
"""A node that is started again takes some 10 s."""


class PlaceFault:
    """A fault of the world that the lab runs. That it is in effect, and that it is over, is looked for."""

    def __init__(self, kind: FaultKind, world: World, target: Target, fault: Fault) -> None:
        self._kind = kind
        self._world = world
        self._fault = fault
        self._injecting: asyncio.Future[None] | None = None
        self.target = target.name

    async def inject(self) -> None:
        # Its thread goes on if this is cut short; then `rollback` waits for it.
        self._injecting = asyncio.ensure_future(asyncio.to_thread(self._fault.inject))
        await asyncio.shield(self._injecting)

    async def proof(self) -> str:
        await wait_until_gone(self._fault.killed_pids)
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while not (seen := await self._evidence()):
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(
                f"expected to see `{self._kind.value}` at {self.target} within {EFFECT_S_MAX:g} s, saw nothing of it"
            ) from error
        return seen

    async def rollback(self) -> None:
        if self._injecting is None:
            return
        await asyncio.wait([self._injecting])
        await asyncio.to_thread(self._fault.heal)
        seen = ""
        try:
            async with asyncio.timeout(BACK_S_MAX):
                while (seen := await self._evidence()) and not await self._waits_for_gcs():
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise RollbackFailed(
                f"expected {self.target} to be as before within {BACK_S_MAX:g} s, found that {seen}"
            ) from error
        self._injecting = None

    async def _waits_for_gcs(self) -> bool:
        """Whether it is a node that starts once another fault, of the GCS, is taken back."""
        return self._kind is FaultKind.KILL_NODE and bool(self._world.evidence(FaultKind.KILL_GCS, GCS))

    async def _evidence(self) -> str:
        return await asyncio.to_thread(self._world.evidence, self._kind, self.target)


def place_fault(kind: FaultKind, lab: Lab, wish: Wish) -> PlaceFault:
    """Raises `FaultNotInjected` if the exchange has nothing of that kind, `TargetUnknown` if nothing of that name."""
    world = lab.world
    injector = next((i for i in world.injectors if i.kind == kind), None) if world is not None else None
    if world is None or injector is None:
        why = "; ".join(world.left_out) if world is not None else "the lab does not run this exchange"
        raise FaultNotInjected(
            f"expected an exchange to which `{kind.value}` can be done, found none: "
            + (why or "it has a single node; say `nodes: 3` and `journal: nats`")
        )
    there = injector.targets(lab.all_targets())
    name = _node_of(lab, wish.target)
    found = [target for target in there if name in (target.name, target.role)]
    if not found:
        known = ", ".join(target.name for target in there) or "nothing"
        raise TargetUnknown(f"expected one of {known} for `{kind.value}`, was {wish.target!r}")
    target = wish.chance.choice(found)
    return PlaceFault(kind, world, target, injector.make(target, random.Random(wish.chance.random())))


def _node_of(lab: Lab, target: str) -> str:
    """Return the node of a component, as it is now; anything else is its own name."""
    nodes = {component.name: component.node for component in lab.targets() if component.node}
    return nodes.get(target, target)
