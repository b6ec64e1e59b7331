"""Tells every component where the others are, until it has heard the newest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from exchange.engine.control import standby_of
from exchange.runtime.topology import Topology
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import LEDGER, Component, ComponentState


class TopologyPublisher:
    """Numbers what is known of the machines' places. `actor_name` is where this supervisor is reached."""

    def __init__(self, components: Mapping[str, Component], commands: Commands, actor_name: str) -> None:
        self.version = 1
        self._components = components
        self._commands = commands
        self._actor_name = actor_name

    def change(self, component: Component) -> None:
        """Note that a component came, went or moved. Nobody need know where the auditor and the gateways are."""
        self.version += component.machine != ""

    def has_heard(self, component: Component) -> bool:
        """Whether a component knows the newest; the ledger calls nobody, so it need not."""
        return component.name == LEDGER or component.topology == self.version

    def watch(self, component: Component) -> None:
        """Tell a component that runs, unless it has heard or is being told."""
        task = component.topology_task
        if task is not None and task.done():
            component.topology_task = task = None
        runs = component.is_up or component.state == ComponentState.STOPPING
        if runs and task is None and not self.has_heard(component):
            component.topology_task = asyncio.create_task(self._tell(component))
            component.topology_task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _tell(self, component: Component) -> None:
        process, version = component.process, self.version
        assert process is not None
        await process.configure(self._pack())
        component.topology = version

    def _pack(self) -> bytes:
        machines = {}
        for name in (c.name for c in self._components.values() if c.machine == c.name):
            primary, standby = self._components[name], self._components.get(standby_of(name))
            machines[name] = (
                primary.incarnation if primary.is_up else 0,
                standby.incarnation if standby is not None and standby.is_up else 0,
            )
        return Topology((self._commands.incarnation, self.version), self._actor_name, machines).pack()
