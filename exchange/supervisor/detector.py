"""Notices what died, hangs or went wrong: one ping is always in flight to every component."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from exchange.engine.control import standby_of
from exchange.supervisor.component import Component, ComponentState
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.settings import SettingsInForce

PING_INTERVAL_S = 0.05


class Detector:
    """`wake` is called when a ping fails, as a process that died is to be noticed at once.

    `supervisor_dead_after_ms` is when the supervisor that follows takes over from a silent one.
    """

    def __init__(
        self,
        in_force: SettingsInForce,
        supervisor_dead_after_ms: int,
        components: Mapping[str, Component],
        events: EventLog,
        wake: Callable[[], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._in_force = in_force
        self._supervisor_dead_after_ms = supervisor_dead_after_ms
        self._components = components
        self._events = events
        self._wake = wake
        self._monotonic_s = monotonic_s

    def watch(self, component: Component, now_s: float) -> str:
        """Ping a component that is up, or read what became of the ping; return why it is lost, "" if it is not."""
        task = component.task
        if task is None:
            if now_s >= component.next_ping_s:
                component.vitals["asked_s"] = now_s
                component.next_ping_s = now_s + PING_INTERVAL_S
                component.task = asyncio.create_task(self._ping(component))
                component.task.add_done_callback(self._on_ping)
            return ""
        if task.done():
            component.task = None
            return self._read(component, task.exception())
        waited_ms = (now_s - component.vitals.get("asked_s", now_s)) * 1_000
        waited = f"no answer for {waited_ms:.0f} ms"
        if waited_ms > self._dead_after_ms(component, now_s):
            task.cancel()
            return waited
        suspect_after_ms = self._in_force.of(component.serves).detection.suspect_after_ms
        if waited_ms > suspect_after_ms and component.state != ComponentState.SUSPECT:
            component.state, component.detail = ComponentState.SUSPECT, waited
            self._events.add("suspect", component, waited)
        return ""

    def _read(self, component: Component, error: BaseException | None) -> str:
        """Judge the vitals that a ping brought, or its error."""
        if error is not None:
            return f"gone: {error!r}"
        if component.vitals.get("broken"):
            return f"broken: {component.vitals['broken']}"
        if component.vitals.get("agrees") is False:
            return "its state is another than the primary's"
        component.state = ComponentState.UP
        component.detail = component.vitals.get("failure") or ""
        return ""

    def _dead_after_ms(self, component: Component, now_s: float) -> int:
        detection = self._in_force.of(component.serves).detection
        standby = self._components.get(standby_of(component.machine))
        if standby is None or not standby.can_take_over:
            return detection.dead_alone_after_ms
        if self._may_be_cut_off(now_s):
            # Whoever stands by for us where the others are takes over first, and we find ourselves fenced.
            return max(detection.dead_after_ms, 2 * self._supervisor_dead_after_ms)
        return detection.dead_after_ms

    def _may_be_cut_off(self, now_s: float) -> bool:
        """Whether most nodes are silent: then it is rather us who are out of reach.

        Of two nodes nobody can tell which one is.
        """
        up = [c for c in self._components.values() if c.is_up]
        answering = {c.node for c in up if not self._is_silent(c, now_s)}
        silent = {c.node for c in up} - answering
        return len(silent) > max(1, len(answering))

    def _is_silent(self, component: Component, now_s: float) -> bool:
        task = component.task
        waited_s = now_s - component.vitals.get("asked_s", now_s)
        suspect_after_ms = self._in_force.of(component.serves).detection.suspect_after_ms
        return task is not None and not task.done() and waited_s * 1_000 > suspect_after_ms

    async def _ping(self, component: Component) -> None:
        process = component.process
        assert process is not None
        asked_s = component.vitals.get("asked_s")
        primary = self._components[component.machine].vitals if component.is_standby else {}
        vitals = await process.ping(primary.get("record", 0), primary.get("checksum", 0))
        component.vitals = {**vitals, "asked_s": asked_s, "as_of_s": asked_s}
        component.measure(self._monotonic_s())

    def _on_ping(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._wake()
