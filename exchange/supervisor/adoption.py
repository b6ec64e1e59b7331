"""Takes on what an earlier supervisor started, and finishes what that may have left undone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from exchange.engine.control import standby_of
from exchange.runtime.host import Role
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import Component, ComponentState, Launcher
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.lifecycle import Lifecycle
from exchange.supervisor.shards import Shards
from exchange.supervisor.takeover import Takeover

ADOPT_TIMEOUT_S = 2.0
ADOPT_WITH_STANDBY_S = 0.5
"""For who does not answer there is a standby."""

_log = structlog.get_logger()


class Adoption:
    """What a supervisor does first."""

    def __init__(
        self,
        components: Mapping[str, Component],
        commands: Commands,
        events: EventLog,
        launcher: Launcher,
        lifecycle: Lifecycle,
        shards: Shards,
        takeover: Takeover,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._components = components
        self._commands = commands
        self._events = events
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._shards = shards
        self._takeover = takeover
        self._monotonic_s = monotonic_s

    async def adopt_all(self) -> None:
        """Adopt what answers, and end what nobody knows."""
        await asyncio.gather(*(self._adopt(component) for component in self._components.values()))
        await self._launcher.end_others(
            {(c.machine or c.name, c.incarnation) for c in self._components.values() if c.process is not None}
        )

    async def _adopt(self, component: Component) -> None:
        incarnations = self._commands.machine.incarnations
        incarnation = incarnations.get(component.name, 0)
        if not incarnation:
            return
        # It ran before, so if it is not there any more its start is a restart, which may have to give way.
        component.next_start_s = self._monotonic_s()
        try:
            has_standby = incarnations.get(standby_of(component.machine), 0) != 0
            async with asyncio.timeout(ADOPT_WITH_STANDBY_S if has_standby else ADOPT_TIMEOUT_S):
                process = await self._launcher.find(component.machine or component.name, incarnation)
                vitals = None if process is None else await process.ping(0, 0)
        except Exception as error:  # whatever it is, it is started anew then
            _log.warning("component.not_adopted", name=component.name, incarnation=incarnation, error=repr(error))
            return
        if process is None or vitals is None:
            return
        component.home = process.node
        component.port = component.listens_on(vitals)
        if vitals.get("broken"):
            return
        if component.is_standby and vitals.get("role") != Role.STANDBY:
            return
        component.process, component.incarnation, component.node = process, incarnation, process.node
        component.vitals, component.restarts = vitals, 0
        component.state, component.since_s = ComponentState.STARTING, self._monotonic_s()
        if component.is_standby:
            # It follows. At once, so that it takes over if its primary was lost together with the earlier supervisor.
            component.state, component.detail = ComponentState.UP, ""
        else:
            self._lifecycle.run_task(component, self._resume(component))
        self._events.add("adopted", component)

    async def _resume(self, component: Component) -> None:
        if component.vitals.get("role") == Role.STANDBY:
            await self._takeover.promote(component, begin=True)
        elif component.is_shard:
            await self._shards.resume(component)
