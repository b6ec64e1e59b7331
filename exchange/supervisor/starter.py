"""Starts a component's process: the old one ended, on a node of its own, with a new incarnation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from exchange.config import ExchangeConfig
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import Component, Launcher, Node, Process
from exchange.supervisor.nodes import NODES_INTERVAL_S, Nodes, NoNode
from exchange.supervisor.settings import SettingsInForce
from exchange.supervisor.shards import Shards

PORT_TRIES = 4
"""Starts of a gateway on the port that it had, before it may take another: who else holds it may not let go."""


class Starter:
    """One start, as a task of its own."""

    def __init__(
        self,
        config: ExchangeConfig,
        components: Mapping[str, Component],
        commands: Commands,
        nodes: Nodes,
        shards: Shards,
        launcher: Launcher,
        in_force: SettingsInForce,
    ) -> None:
        self._config = config
        self._components = components
        self._commands = commands
        self._nodes = nodes
        self._shards = shards
        self._launcher = launcher
        self._in_force = in_force

    async def start(self, component: Component) -> None:
        """Return when it runs and is ready to serve. Raises `NoNode`, or what went wrong."""
        incarnation = await self._end(component) if component.process is not None else 0
        component.node = ""
        node = self._nodes.place(component, self._components.values(), self._commands.machine.drained)
        # At once, so that what is started at the same time goes elsewhere.
        component.node = component.home = node.id
        incarnation = incarnation or await self._commands.take_incarnation(component.name)
        version = self._in_force.version_of(component.serves)
        start = self._launcher.start(
            component.serves,
            incarnation,
            node=node.id,
            port=self._port_for(component),
            standby=component.is_standby,
            settings=self._in_force.version(version),
        )
        component.process = await self._while_alive(node, start)
        component.incarnation, component.settings_version = incarnation, version
        component.restarts += 1
        component.vitals = await component.process.ping(0, 0)
        component.port = component.listens_on(component.vitals)
        if component.is_shard:
            await self._shards.prepare(component)

    async def _end(self, component: Component) -> int:
        """Take the next incarnation, and end the process: it must be gone before another may take its journal.

        Journaled first: a supervisor that was cut off, to which all seem lost, must not end what another relies on.
        """
        old, component.process = component.process, None
        assert old is not None
        component.is_ending = True
        try:
            incarnation = await self._commands.take_incarnation(component.name)
            await old.kill()
        except Exception:
            component.process = old
            raise
        finally:
            component.is_ending = False
        return incarnation

    async def _while_alive(self, node: Node, start: Awaitable[Process]) -> Process:
        """Wait for a start, but no longer than its node is there: Ray would wait for the node to come back."""
        task = asyncio.ensure_future(start)
        try:
            while not task.done():
                if self._nodes.is_lost(node):
                    raise NoNode(f"{node.name} was lost")
                await asyncio.wait([task], timeout=NODES_INTERVAL_S)
            return task.result()
        finally:
            task.cancel()

    def _port_for(self, component: Component) -> int:
        """Return where a gateway is to listen: as configured, else where its clients know it (0: any free port)."""
        if not component.is_gateway:
            return 0
        if self._config.port:
            number = 0 if self._config.same_port else int(component.name.rpartition("-")[2])
            return self._config.port + number
        return component.port if component.failures <= PORT_TRIES else 0
