"""The life of a component: down, starting, up, lost, started again; or taken down by maintenance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from exchange.engine.control import Park, standby_of
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import AUDITOR, Component, ComponentState
from exchange.supervisor.detector import Detector
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.governor import RestartGovernor
from exchange.supervisor.nodes import NODES_INTERVAL_S, NoNode
from exchange.supervisor.starter import Starter
from exchange.supervisor.takeover import StandbyOutdated, Takeover
from exchange.supervisor.topology import TopologyPublisher

START_TIMEOUT_S = 120.0
GIVE_WAY_MAX_S = 10.0
"""How long a standby or the auditor, once lost, waits for what people wait for: a start takes two seconds of a core."""
TAKE_DOWN_TIMEOUT_S = 12.0
"""A gateway that drains cuts off after 10 s what it has not finished."""

_log = structlog.get_logger()


class CannotHandOver(Exception):
    """There is nobody to hand over to now."""

    code = "CANNOT_HAND_OVER"


class Lifecycle:
    """Moves components from state to state.

    `is_calm` tells whether trading is as it should be; `wake` is called when something that was begun has ended.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        commands: Commands,
        events: EventLog,
        detector: Detector,
        starter: Starter,
        takeover: Takeover,
        topology: TopologyPublisher,
        governor: RestartGovernor,
        is_calm: Callable[[], bool],
        wake: Callable[[], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._components = components
        self._commands = commands
        self._events = events
        self._detector = detector
        self._governor = governor
        self._is_calm = is_calm
        self._parking: set[asyncio.Task[Any]] = set()
        self._starter = starter
        self._takeover = takeover
        self._topology = topology
        self._wake = wake
        self._monotonic_s = monotonic_s

    @property
    def is_ready(self) -> bool:
        """Whether everything that trading needs runs and knows where the rest is."""
        has_drained = bool(self._commands.machine.drained)
        return all(
            c.state == ComponentState.UP and self._topology.has_heard(c)
            for c in self._components.values()
            if c.name != AUDITOR and not c.is_standby and not (c.is_spare and has_drained)
        )

    @property
    def is_complete(self) -> bool:
        """Whether the standbys follow, too, and have caught up."""
        return self.is_ready and all(c.has_caught_up for c in self._components.values() if c.is_standby)

    def watch(self, component: Component, now_s: float) -> None:
        """Read what became of what was begun, and begin what is due."""
        if component.state == ComponentState.STARTING:
            self._watch_start(component, now_s)
        elif component.is_up:
            why = self._detector.watch(component, now_s)
            if why:
                self._lost(component, now_s, why)
        if component.state == ComponentState.DOWN and self._may_start(component, now_s):
            self._begin_start(component, now_s)

    # ---------------------------------------------------------------- starting

    def _may_start(self, component: Component, now_s: float) -> bool:
        if component.held_down:
            return False
        if self._follower_of(component) is not None:
            # It is there, and nobody else can be sooner: nothing speaks against it.
            return True
        if component.parked or now_s < component.next_start_s:
            return False
        if component.gives_way and now_s < component.next_start_s + GIVE_WAY_MAX_S and not self._has_room():
            return False
        if component.is_standby:
            # Who is to be followed comes first.
            return self._components[component.machine].state == ComponentState.UP and (
                component.restarts >= 0 or self.is_ready
            )
        standby = self._components.get(standby_of(component.machine))
        if standby is not None and standby.state == ComponentState.STARTING and standby.process is not None:
            # Adopted a moment ago, say, with its primary lost: to take over is sooner than to start and to replay.
            return False
        # The auditor comes up last, so that it takes no time from what people wait for.
        return component.name != AUDITOR or component.restarts >= 0 or self.is_ready

    def _has_room(self) -> bool:
        """Whether a start that can wait would hold up neither another start nor a shard that reopens."""
        return self._is_calm() and all(c.state != ComponentState.STARTING for c in self._components.values())

    def _begin_start(self, component: Component, now_s: float) -> None:
        component.state, component.since_s = ComponentState.STARTING, now_s
        standby = self._follower_of(component)
        if standby is not None:
            component.detail = "its standby takes over"
            self._events.add("taking_over", component)
            self.run_task(component, self._takeover.take_over(component, standby))
        else:
            component.detail = "starting"
            self.run_task(component, self._starter.start(component))

    def _follower_of(self, component: Component) -> Component | None:
        """Return the standby that can take over from a primary."""
        standby = None if component.is_standby else self._components.get(standby_of(component.machine))
        return standby if standby is not None and standby.can_take_over else None

    def run_task(self, component: Component, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have a component that is `STARTING` be up when the work is done."""
        component.task = asyncio.create_task(work)
        component.task.add_done_callback(lambda _: self._wake())
        return component.task

    def _watch_start(self, component: Component, now_s: float) -> None:
        task = component.task
        assert task is not None
        if not task.done():
            if now_s - component.since_s > START_TIMEOUT_S:
                task.cancel()
                self._lost(component, now_s, f"not up after {START_TIMEOUT_S:.0f} s")
            return
        component.task = None
        error = task.exception()
        if isinstance(error, NoNode):
            component.state, component.detail = ComponentState.DOWN, str(error)
            component.is_spare = component.is_gateway and bool(self._commands.machine.drained)
            component.next_start_s = now_s + NODES_INTERVAL_S
        elif isinstance(error, StandbyOutdated):
            self._lost(self._components[standby_of(component.machine)], now_s, str(error))
            if error.primary_runs:
                component.state, component.detail = ComponentState.UP, ""
            else:
                self._lost(component, now_s, f"not taken over: {error}")
        elif error is not None:
            self._lost(component, now_s, f"did not start: {error!r}")
        else:
            self._up(component, now_s)

    def _up(self, component: Component, now_s: float) -> None:
        component.state, component.detail = ComponentState.UP, ""
        component.is_spare = False
        component.start_duration_ms = round((now_s - component.since_s) * 1_000)
        component.since_s = now_s
        component.failures = 0
        self._governor.note_up(component.name)
        self._topology.change(component)
        self._events.add("up", component, f"{component.start_duration_ms} ms")

    def _lost(self, component: Component, now_s: float, detail: str) -> None:
        """Have it started again when its time has come; a start makes sure that it is gone."""
        self._events.add("lost", component, detail)
        was_up = component.state != ComponentState.STARTING
        component.state, component.detail, component.task = ComponentState.DOWN, detail, None
        component.topology = component.settings_version = 0
        component.failures += 1
        component.losses += 1
        component.next_start_s = now_s + self._governor.note_lost(component.name, now_s, was_up=was_up)
        self._topology.change(component)
        why = self._governor.refuses(component.name)
        if why and self._follower_of(component) is None:
            self._park(component, why)

    # ---------------------------------------------------------------- parked

    def _park(self, component: Component, why: str) -> None:
        """Start it no more: at once here, and through any supervisor after us once that is journaled."""
        component.parked = why
        component.detail = f"parked: {why}; `exchange maintenance unpark {component.name}` starts it again"
        self._events.add("parked", component, why)
        _log.error("component.parked", name=component.name, why=why)
        task = asyncio.create_task(self._commands.decide(Park(component.name, why)))
        self._parking.add(task)
        task.add_done_callback(self._parking.discard)

    def know_parked(self) -> None:
        """Take on what an earlier supervisor has parked."""
        for name, why in self._commands.machine.parked.items():
            component = self._components.get(name)
            if component is not None:
                component.parked = why
                component.detail = f"parked: {why}; `exchange maintenance unpark {name}` starts it again"

    async def unpark(self, component: Component) -> None:
        """Start a component again that was parked."""
        await self._commands.decide(Park(component.name, ""))
        self._governor.forget(component.name)
        component.parked, component.detail = "", "to be started again"
        component.next_start_s = self._monotonic_s()
        self._events.add("unparked", component)

    # ---------------------------------------------------------------- as planned

    def begin_hand_over(self, machine: str) -> asyncio.Task[None]:
        """Have a machine's standby go on where its primary stops; raises `CannotHandOver`."""
        component, standby = self._components[machine], self._components.get(standby_of(machine))
        if component.state != ComponentState.UP or standby is None or not standby.can_take_over:
            raise CannotHandOver(f"{machine}: expected a standby that follows a primary, found none")
        for task in (component.task, component.topology_task):
            if task is not None:
                task.cancel()
        component.state, component.since_s = ComponentState.STARTING, self._monotonic_s()
        component.detail = "hands over to its standby"
        self._events.add("handing_over", component)
        return self.run_task(component, self._takeover.hand_over(component, standby))

    async def take_down(self, component: Component) -> None:
        """End a process in good order, a gateway by draining it, and keep it down until `release`."""
        process = component.process
        for task in (component.task, component.topology_task):
            if task is not None:
                task.cancel()
        component.task = component.topology_task = None
        component.held_down = True
        component.state, component.detail = ComponentState.STOPPING, "stops for maintenance"
        self._events.add("stopping", component)
        if process is not None:
            try:
                async with asyncio.timeout(TAKE_DOWN_TIMEOUT_S):
                    await (process.drain() if component.is_gateway else process.stop())
            except Exception as error:
                # It was to end anyhow; what it had not finished is as if it had died.
                _log.warning("component.stop_failed", name=component.name, error=repr(error))
            await process.kill()
        component.leave()
        self._topology.change(component)

    def release(self, component: Component) -> None:
        """Let a component be started again that was taken down."""
        component.held_down = False
        component.next_start_s = self._monotonic_s()
