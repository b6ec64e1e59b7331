"""The agents of a cluster: one on each node, started again when its node has come back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from chaos.cluster.hands import Hands, NodeAway

RECONCILE_S = 0.5
POLL_S = 0.1


class Nodes(Protocol):
    """The cluster as Ray has it: names of nodes as the exchange knows them, and Ray's ids, another at each start."""

    async def alive(self) -> Mapping[str, str]:
        """Return the id of each node by its name."""
        ...

    async def start_agent(self, name: str, node_id: str) -> Hands:
        """Start an agent on a node and return it once it answers. Raises `NodeAway`."""
        ...


class Agents:
    """Keeps an agent on every node that is there. What is wanted follows from the nodes alone, at each look anew."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._ids: dict[str, str] = {}
        self._hands: dict[str, Hands] = {}

    @property
    def names(self) -> list[str]:
        """Return the nodes that have an agent."""
        return sorted(self._hands)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            await self.reconcile()
            await asyncio.sleep(RECONCILE_S)

    async def reconcile(self) -> None:
        """Start agents where there is none, and forget those whose node is gone."""
        alive = await self._nodes.alive()
        for name in [name for name, node_id in self._ids.items() if alive.get(name) != node_id]:
            del self._ids[name], self._hands[name]
        for name, node_id in alive.items():
            if name in self._ids:
                continue
            try:
                hands = await self._nodes.start_agent(name, node_id)
            except NodeAway:
                # It went as it came; the next look tells.
                continue
            self._ids[name], self._hands[name] = node_id, hands

    def on(self, node: str) -> Hands:
        """Return the agent of a node. Raises `NodeAway`."""
        if node not in self._hands:
            raise NodeAway(
                f"expected an agent on {node or 'a node'}, found agents on {', '.join(self.names) or 'none'}"
            )
        return self._hands[node]

    def id_of(self, node: str) -> str:
        """Return Ray's id of a node; empty while it is away."""
        return self._ids.get(node, "")

    async def wait_until(self, node: str, *, is_there: bool, other_than: str = "") -> None:
        """Return once a node is there, as another one than that of an id, or is gone. Does not end by itself."""
        while (bool(self.id_of(node)) and self.id_of(node) != other_than) != is_there:
            await asyncio.sleep(POLL_S)
