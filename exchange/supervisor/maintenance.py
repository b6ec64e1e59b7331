"""Planned maintenance: restarts one part after the other, and moves everything off a node, while trading goes on.

How far it has come is in the supervisor's journal. A supervisor that becomes active in the middle of it ends it there:
what runs is kept running as ever, and a person decides whether to begin again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from exchange.engine.control import DrainNode, MaintenanceStep, NoteMaintenance
from exchange.supervisor.component import SUPERVISOR, ComponentState
from exchange.supervisor.maintenance_plan import (
    Action,
    Kind,
    MaintenanceRefused,
    State,
    Step,
    View,
    What,
    check_names,
    check_safe,
    left_on,
    node_for_standby_supervisor,
    plan,
)
from exchange.supervisor.reconciler import Reconciler
from exchange.v1 import admin_pb2

STEP_TIMEOUT_S = 180.0
"""A process starts within seconds; a standby with a long history to read takes the longest."""

SUPERVISOR_RETRY_S = 0.1

_log = structlog.get_logger()


class Supervisors(Protocol):
    """The supervisors' processes, as the active one sees them."""

    @property
    def node(self) -> str:
        """The id of the node of the active one."""
        ...

    async def standby_node(self) -> str | None:
        """Return that of the one that stands by, "" if it does not answer, None if there is none."""
        ...

    async def restart_standby(self, node: str) -> None:
        """Return when it follows again, on the node of this id ("": where it is)."""
        ...

    async def restart_active(self) -> None:
        """Hand the journal over to the one that stands by, if any, and end this process. Does not return."""
        ...


class Maintenance:
    """Runs one piece of maintenance at a time, on top of the reconciler."""

    def __init__(self, reconciler: Reconciler, supervisors: Supervisors) -> None:
        self._reconciler = reconciler
        self._supervisors = supervisors
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        return self._task is not None and not self._task.done()

    async def resume(self) -> None:
        """Say how that ended which an earlier supervisor has left under way; finish what was left to us on purpose."""
        note = self._reconciler.machine.maintenance
        if note is None or note.state != State.RUNNING:
            return
        for number, step in enumerate(note.steps):
            if step.state == State.RUNNING and step.action == Action.RESTART_ACTIVE_SUPERVISOR:
                # That was for us.
                await self._note_step(number, State.DONE)
                what = What(Kind(note.kind), note.node, note.machine)
                steps = [Step(Action(s.action), s.component) for s in note.steps]
                self._task = asyncio.create_task(self._run(what, steps, must_be_healthy=True, first=number + 1))
                return
        for number, step in enumerate(note.steps):
            if step.state == State.RUNNING:
                await self._note_step(number, State.UNFINISHED)
        await self._end(State.UNFINISHED, "the supervisor was replaced meanwhile; ask again for what is not done")

    async def begin_asked(self, request: bytes) -> tuple[str, str]:
        """Begin what a StartMaintenanceRequest, serialised, asks for; else return why not, as (reason, message)."""
        asked = admin_pb2.StartMaintenanceRequest.FromString(request)
        try:
            await self.begin(What(Kind(asked.kind), asked.node, asked.shard), force=asked.force)
        except MaintenanceRefused as refused:
            return refused.reason, str(refused)
        return "", ""

    async def begin(self, what: What, *, force: bool = False) -> None:
        """Begin; `encode` then tells how far it is. Raises `MaintenanceRefused`; `force`: only if it is impossible."""
        async with self._lock:
            if self.is_under_way:
                message = "expected none under way, found one: `exchange maintenance show` tells how far it is"
                raise MaintenanceRefused("MAINTENANCE_UNDER_WAY", message)
            rolling = self._reconciler.machine.settings.rolling
            if rolling and not force:
                message = f"expected no rollout under way, found that of version {rolling} of the settings"
                raise MaintenanceRefused("ROLLOUT_UNDER_WAY", f"{message}: `exchange config show` tells how far it is")
            view = self._view(await self._supervisors.standby_node())
            check_names(what, view)
            steps = plan(what, view)
            if not force:
                check_safe(what, steps, view)
            if what.kind != Kind.RESTART:
                await self._reconciler.commands.decide(DrainNode(what.node, what.kind == Kind.DRAIN))
            waiting = tuple(MaintenanceStep(int(s.action), s.component, int(State.WAITING)) for s in steps)
            now_ns = self._reconciler.now_ns()
            note = NoteMaintenance(int(what.kind), what.node, what.machine, int(State.RUNNING), waiting, now_ns)
            await self._note(note)
            self._task = asyncio.create_task(self._run(what, steps, must_be_healthy=not force))

    async def stop(self) -> None:
        """Leave it where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def encode(self) -> bytes:
        """Return a GetMaintenanceResponse, serialised."""
        machine = self._reconciler.machine
        response = admin_pb2.GetMaintenanceResponse(drained_nodes=list(machine.drained))
        note = machine.maintenance
        if note is not None:
            response.maintenance.CopyFrom(
                admin_pb2.Maintenance(
                    kind=note.kind,  # type: ignore[arg-type]  # numbers as in the protocol
                    node=note.node,
                    shard=note.machine,
                    state=note.state,  # type: ignore[arg-type]
                    begin_time_ns=note.begin_ns,
                    end_time_ns=note.end_ns,
                    detail=note.detail,
                )
            )
            for step in note.steps:
                response.maintenance.steps.add(
                    action=step.action,
                    component=step.component,
                    state=step.state,
                    begin_time_ns=step.begin_ns,
                    end_time_ns=step.end_ns,
                    detail=step.detail,
                )
        return response.SerializeToString()

    def _view(self, standby_supervisor: str | None) -> View:
        reconciler = self._reconciler
        return View(
            components=reconciler.components,
            nodes=reconciler.nodes.alive,
            drained=reconciler.machine.drained,
            active_supervisor=self._supervisors.node,
            standby_supervisor=standby_supervisor,
            is_ready=reconciler.is_ready,
            utilisation_max=reconciler.settings.governor.utilisation_max,
        )

    # ---------------------------------------------------------------- running

    async def _run(self, what: What, steps: list[Step], *, must_be_healthy: bool, first: int = 0) -> None:
        for number, step in enumerate(steps[first:], first):
            await self._note_step(number, State.RUNNING)
            try:
                await self._run_step(what, step, must_be_healthy=must_be_healthy)
            except Exception as error:
                # Here it stops: what went wrong once is not done to the next one, too.
                detail = str(error) or repr(error)
                _log.error("maintenance.failed", what=str(what), component=step.component, error=repr(error))
                await self._note_step(number, State.FAILED, detail)
                await self._end(State.FAILED, f"stopped at {step.component}: {detail}")
                return
            await self._note_step(number, State.DONE, self._where(step))
        left = left_on(what.node, self._view(await self._hear_standby())) if what.kind == Kind.DRAIN else []
        if left:
            await self._end(State.FAILED, f"expected {what.node} to be empty, found {', '.join(left)}")
        else:
            await self._end(State.DONE)

    async def _run_step(self, what: What, step: Step, *, must_be_healthy: bool) -> None:
        if step.action == Action.RESTART_STANDBY_SUPERVISOR:
            await self._restart_standby_supervisor(what)
            return
        if step.action == Action.RESTART_ACTIVE_SUPERVISOR:
            await self._supervisors.restart_active()
            return
        reconciler, component = self._reconciler, self._reconciler.components[step.component]
        await reconciler.until(lambda: component.state != ComponentState.STARTING, STEP_TIMEOUT_S)
        before = component.incarnation
        if step.action == Action.HAND_OVER:
            await reconciler.lifecycle.begin_hand_over(step.component)
        else:
            try:
                await reconciler.lifecycle.take_down(component)
            finally:
                reconciler.lifecycle.release(component)

        def is_done() -> bool:
            is_new = component.state == ComponentState.UP and component.incarnation != before
            return (is_new or component.is_spare) and (not must_be_healthy or self._is_healthy())

        try:
            await reconciler.until(is_done, STEP_TIMEOUT_S)
        except TimeoutError as error:
            raise TimeoutError(f"expected everything up again, was not: {self._what_is_away()}; {error}") from None

    async def _restart_standby_supervisor(self, what: What) -> None:
        """Restart it where it is, or where it may be if its node is drained."""
        supervisors, nodes, drained = self._supervisors, self._reconciler.nodes.alive, self._reconciler.machine.drained
        standby = await self._hear_standby()
        if not standby:
            message = f"expected the one that stands by to say where it is within {STEP_TIMEOUT_S:g} s"
            raise TimeoutError(f"{message}, found that it does not answer")
        if what.node and not any(node.id == standby and node.name == what.node for node in nodes):
            # It did not answer when this was planned, and is elsewhere.
            return
        node = node_for_standby_supervisor(nodes, drained, supervisors.node, standby)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await supervisors.restart_standby(node)

    async def _hear_standby(self) -> str | None:
        """Ask for the node of the supervisor that stands by until it answers; "" if it stays silent."""
        ask = self._supervisors.standby_node
        with suppress(TimeoutError):
            async with asyncio.timeout(STEP_TIMEOUT_S):
                # It may be the one that was active a moment ago.
                while (standby := await ask()) == "":  # noqa: ASYNC110  # it is another process
                    await asyncio.sleep(SUPERVISOR_RETRY_S)
                return standby
        return ""

    def _is_healthy(self) -> bool:
        return self._reconciler.is_complete and self._reconciler.reopening.all_open

    def _what_is_away(self) -> str:
        components = self._reconciler.components.values()
        away = [c for c in components if c.state != ComponentState.UP or (c.is_standby and not c.has_caught_up)]
        is_open = self._reconciler.reopening.is_open
        closed = [c for c in components if c.is_shard and c not in away and not is_open(c)]
        told = [f"{c.name} {c.state.name} {c.detail}".strip() for c in away]
        return ", ".join(told + [f"{c.name} is not open" for c in closed])

    def _where(self, step: Step) -> str:
        component = self._reconciler.components.get(step.component)
        if component is None:
            return ""
        names = {node.id: node.name for node in self._reconciler.nodes.alive}
        if component.is_spare:
            return "held down: its node is drained"
        return f"on {names.get(component.node, component.node)}"

    # ---------------------------------------------------------------- how far it is

    async def _note_step(self, number: int, state: State, detail: str = "") -> None:
        note = self._reconciler.machine.maintenance
        assert note is not None
        now_ns = self._reconciler.now_ns()
        step = note.steps[number]._replace(state=int(state), detail=detail)
        step = step._replace(begin_ns=now_ns) if state == State.RUNNING else step._replace(end_ns=now_ns)
        steps = (*note.steps[:number], step, *note.steps[number + 1 :])
        await self._reconciler.commands.decide(note._replace(steps=steps))
        text = f"{number + 1}/{len(steps)} {Action(step.action).name.lower()}: {state.name.lower()}"
        self._reconciler.events.note("maintenance", step.component, f"{text} {detail}".strip())

    async def _end(self, state: State, detail: str = "") -> None:
        note = self._reconciler.machine.maintenance
        assert note is not None
        await self._note(note._replace(state=int(state), end_ns=self._reconciler.now_ns(), detail=detail))

    async def _note(self, note: NoteMaintenance) -> None:
        await self._reconciler.commands.decide(note)
        what = What(Kind(note.kind), note.node, note.machine)
        text = f"{what}: {State(note.state).name.lower()} {note.detail}".strip()
        self._reconciler.events.note("maintenance", SUPERVISOR, text)
