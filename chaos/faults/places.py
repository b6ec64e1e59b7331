"""Whole nodes, links between them, NATS servers, and Ray's head: taken away, and given back."""

from __future__ import annotations

import asyncio
import random

from chaos.faults.fault import Fault, FaultKind, Target
from chaos.faults.injection import FaultNotInjected, Wish
from chaos.worlds.lab import Lab
from exchange.processes import read_process

GONE_POLL_S = 0.02
GCS = "gcs"


class PlaceFault:
    """A fault of the world that the lab runs."""

    def __init__(self, kind: FaultKind, target: Target, fault: Fault) -> None:
        self._kind = kind
        self._fault = fault
        self._is_done = False
        self.target = target.name

    async def inject(self) -> None:
        self._is_done = True
        await asyncio.to_thread(self._fault.inject)

    async def proof(self) -> str:
        pids = list(self._fault.killed_pids)
        while alive := [pid for pid in pids if (process := read_process(pid)) and process.state != "Z"]:
            await asyncio.sleep(GONE_POLL_S)
            pids = alive
        gone = len(self._fault.killed_pids)
        return f"{self._kind.value} {self.target}" + (f": {gone} processes are gone" if gone else "")

    async def rollback(self) -> None:
        if self._is_done:
            self._is_done = False
            await asyncio.to_thread(self._fault.heal)


def place_fault(kind: FaultKind, lab: Lab, wish: Wish) -> PlaceFault:
    """Raises `FaultNotInjected` if the exchange has nothing of that kind, or nothing of that name."""
    injectors = [] if lab.world is None else [i for i in lab.world.injectors if i.kind == kind]
    if not injectors:
        why = "; ".join(lab.world.left_out) if lab.world is not None else "the lab does not run this exchange"
        raise FaultNotInjected(
            f"expected an exchange to which `{kind.value}` can be done, found none: {why or 'see nodes'}"
        )
    (injector,) = injectors
    there = injector.targets(lab.all_targets())
    name = _node_of(lab, wish.target)
    found = [target for target in there if name in (target.name, target.role)]
    if not found:
        known = ", ".join(target.name for target in there) or "nothing"
        raise FaultNotInjected(f"expected one of {known} for `{kind.value}`, was {wish.target!r}")
    target = wish.chance.choice(found)
    return PlaceFault(kind, target, injector.make(target, random.Random(wish.chance.random())))


def _node_of(lab: Lab, target: str) -> str:
    """Return the node of a component, as it is now; anything else is its own name."""
    nodes = {component.name: component.node for component in lab.targets() if component.node}
    return nodes.get(target, target)
