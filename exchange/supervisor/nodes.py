"""Which nodes are there, asked at the reconciler's pace."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from exchange.supervisor.component import Component, Launcher, Node
from exchange.supervisor.placement import place

NODES_INTERVAL_S = 0.5


class NoNode(Exception):
    """There is no node for a component now."""

    code = "NO_NODE"


class Nodes:
    """The nodes that are alive, as far as is known. `expected` is how many the exchange has."""

    def __init__(self, launcher: Launcher, expected: int) -> None:
        self.alive: list[Node] = []
        self.names: dict[str, str] = {}
        """By id, also of nodes that are gone."""
        self._launcher = launcher
        self._expected = expected
        self._task: asyncio.Task[list[Node]] | None = None
        self._next_s = 0.0

    async def read(self) -> None:
        """Ask now."""
        self._know(await self._launcher.nodes())

    def watch(self, now_s: float) -> None:
        """Ask when it is time, and take the answer when it is there."""
        task = self._task
        if task is not None and task.done():
            self._task = None
            self._next_s = now_s + NODES_INTERVAL_S
            if task.exception() is None:
                self._know(task.result())
            # Else Ray's own books are out of reach: the nodes are those that were there last.
        elif task is None and now_s >= self._next_s:
            self._task = asyncio.create_task(self._launcher.nodes())

    def _know(self, nodes: list[Node]) -> None:
        self.alive = nodes
        self.names.update((node.id, node.name) for node in nodes)

    def is_lost(self, node: Node) -> bool:
        """Whether the node was there and is not any more."""
        return bool(self.alive) and node not in self.alive

    def place(self, component: Component, components: Iterable[Component], drained: Collection[str]) -> Node:
        """Return the node for a component; raises `NoNode`."""
        is_single = self._expected == 1 and len(self.names) == 1
        node = place(component, components, self.alive, drained, is_single=is_single)
        if node is None:
            found = f"found none that is free: {len(self.alive)} are alive, drained are {', '.join(drained) or 'none'}"
            raise NoNode(f"expected a node for {component.name}, {found}")
        return node
