"""Makes a standby the primary: because the primary is lost, or as planned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from exchange.engine.control import Promote
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import Component
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.shards import Shards

HAND_OVER_TIMEOUT_S = 5.0
PROMOTE_TIMEOUT_S = 15.0
"""An election among NATS servers, in the middle of a takeover, takes up to 9 s."""
NEW_STANDBY_AFTER_S = 1.0
"""To start a process takes half a second of a core, which just after a takeover others need."""

_log = structlog.get_logger()


class StandbyOutdated(Exception):
    """A standby that the journal does not know as the last one is none; `primary_runs`: untouched, on its own."""

    code = "STANDBY_OUTDATED"

    def __init__(self, message: str, *, primary_runs: bool) -> None:
        super().__init__(message)
        self.primary_runs = primary_runs


class Takeover:
    """One takeover or handover, as a task of its own."""

    def __init__(self, commands: Commands, shards: Shards, events: EventLog, monotonic_s: Callable[[], float]) -> None:
        self._commands = commands
        self._shards = shards
        self._events = events
        self._monotonic_s = monotonic_s
        self._endings: set[asyncio.Task[None]] = set()

    async def take_over(self, component: Component, standby: Component) -> None:
        """Make the standby the primary: journaled first, so that any supervisor after us goes on with it.

        Raises `StandbyOutdated`.
        """
        old = component.process
        await self._decide(component, standby, primary_runs=False)
        self._replace(component, standby)
        if old is not None:
            await old.kill()
        await self.promote(component, begin=True)

    async def hand_over(self, component: Component, standby: Component) -> None:
        """Have the primary let go after the record in flight, and the standby go on there. Raises `StandbyOutdated`."""
        old = component.process
        assert old is not None
        await self._decide(component, standby, primary_runs=True)
        try:
            async with asyncio.timeout(HAND_OVER_TIMEOUT_S):
                await old.hand_over()
        except Exception as error:
            # Then it is as if it were lost: the fence, or its end, sees to it.
            _log.warning("component.hand_over_failed", name=component.name, error=repr(error))
            await old.kill()
        self._replace(component, standby)
        await self.promote(component, begin=False)
        # Its end takes a moment, which nobody need wait for.
        ending = asyncio.create_task(old.kill())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def promote(self, component: Component, *, begin: bool) -> None:
        """Have the component's process, a standby so far, take the journal and serve; see `Host.promote`."""
        process = component.process
        assert process is not None
        async with asyncio.timeout(PROMOTE_TIMEOUT_S):
            await process.promote(begin)
            component.vitals = await process.ping(0, 0)
        self._events.add("fenced", component, "the writers of all epochs before")
        if component.is_shard and begin:
            await self._shards.prepare(component)

    async def _decide(self, component: Component, standby: Component, *, primary_runs: bool) -> None:
        decided = await self._commands.decide(Promote(component.machine, standby.incarnation))
        if decided.duplicate:
            newest = self._commands.machine.incarnations.get(standby.name, 0)
            found = f"is its incarnation {standby.incarnation}, the journal has started {newest or 'none'} last"
            raise StandbyOutdated(f"{standby.name}: what would take over {found}", primary_runs=primary_runs)

    def _replace(self, component: Component, standby: Component) -> None:
        component.process, component.node, component.incarnation = standby.process, standby.node, standby.incarnation
        component.settings_version = standby.settings_version
        component.restarts += 1
        self._commands.wait_for_no_call(component.machine)
        standby.leave()
        standby.next_start_s = self._monotonic_s() + NEW_STANDBY_AFTER_S
