"""Keeps every component running: compares what should run with what answers, at its own pace.

A tick never waits and never raises: starts, takeovers and pings run as tasks whose outcome a later tick reads. When one
of them fails or ends, the next tick comes at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from exchange.config import ExchangeConfig
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.control import (
    Control,
    ControlResult,
    HoldStage,
    PlaceInstrument,
    Promote,
    TakeIncarnation,
    standby_of,
)
from exchange.engine.events import Result
from exchange.engine.instrument import Instrument
from exchange.engine.words import RejectReason, Stage
from exchange.runtime.host import Host, Role
from exchange.runtime.messages import LinkBatch, ReplyStatus, pack, unpack_replies
from exchange.runtime.rows import rows_segment, unpack_results
from exchange.runtime.topology import Topology
from exchange.supervisor.alarms import Alarms
from exchange.supervisor.component import (
    AUDITOR,
    LEDGER,
    SUPERVISOR,
    Component,
    ComponentState,
    Launcher,
    Node,
    Process,
    components_of,
)
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.placement import place
from exchange.supervisor.sessions import cancel_ended
from exchange.supervisor.status import encode_events, encode_status

TICK_S = 0.05
NODES_INTERVAL_S = 0.5
# Between starts that failed. A component that came up and died later is started again at once.
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
START_TIMEOUT_S = 120.0
ADOPT_TIMEOUT_S = 2.0
ADOPT_WITH_STANDBY_S = 0.5
"""For who does not answer there is a standby."""
HAND_OVER_TIMEOUT_S = 5.0
TAKE_DOWN_TIMEOUT_S = 12.0
"""A gateway that drains cuts off after 10 s what it has not finished."""
PROMOTE_TIMEOUT_S = 15.0
"""An election among NATS servers, in the middle of a takeover, takes up to 9 s."""
NEW_STANDBY_AFTER_S = 1.0
"""To start a process takes half a second of a core, which just after a takeover others need."""
SESSIONS_RETRY_S = 0.5
PORT_TRIES = 4
"""Starts of a gateway on the port that it had, before it may take another: who else holds it may not let go."""
AUDITOR_WAIT_S = 20.0
"""How long an audit that is asked for waits for the auditor to be there."""

_log = structlog.get_logger()


class CannotHandOver(Exception):
    """There is nobody to hand over to now."""

    code = "CANNOT_HAND_OVER"


class NoNode(Exception):
    """There is no node for a component now."""

    code = "NO_NODE"


class Reconciler:
    """The supervisor's logic. `control` is its own machine's host, started already."""

    def __init__(
        self,
        config: ExchangeConfig,
        control: Host,
        launcher: Launcher,
        *,
        actor_name: str = SUPERVISOR,
        monotonic_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.components = components_of(config.machine_names, config.gateway_names, standbys=config.standbys)
        self.events = EventLog(clock_ns=clock_ns)
        self._config = config
        self._control = control
        self._launcher = launcher
        self._actor_name = actor_name
        self._monotonic_s = monotonic_s
        self._clock_ns = clock_ns
        self.incarnation = 0
        self._stamps: dict[str, int] = {}
        self._locks = {name: asyncio.Lock() for name in config.machine_names}
        self._topology = 1
        self._nodes: list[Node] = []
        self._node_names: dict[str, str] = {}
        """Of nodes that are gone, too."""
        self._nodes_task: asyncio.Task[list[Node]] | None = None
        self._nodes_next_s = 0.0
        self._wake = asyncio.Event()
        self._ticked = asyncio.Event()
        self._endings: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._alarms = Alarms(lambda: self.machine, self.decide, self._command)

    @property
    def machine(self) -> Control:
        """What the supervisor remembers."""
        machine: Control = self._control.machine
        return machine

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are alive, as far as is known."""
        return self._nodes

    def now_ns(self) -> int:
        return self._clock_ns()

    async def start(self) -> None:
        """Take an incarnation of our own, which stamps what we send, and adopt what an earlier supervisor has left."""
        self.incarnation = (await self.decide(TakeIncarnation(SUPERVISOR))).incarnation
        self._know_nodes(await self._launcher.nodes())
        await asyncio.gather(*(self._adopt(component) for component in self.components.values()))
        await self._launcher.end_others(
            {(c.machine or c.name, c.incarnation) for c in self.components.values() if c.process is not None}
        )

    async def run(self) -> None:
        """Tick until stopped."""
        while not self._stopping:
            self.tick()
            self._wake.clear()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def tick(self) -> None:
        """Read what happened since the last tick and begin what is due."""
        now_s = self._monotonic_s()
        self._watch_nodes(now_s)
        for component in self.components.values():
            if component.state == ComponentState.STARTING:
                self._watch_start(component, now_s)
            elif component.is_up:
                self._watch_ping(component, now_s)
            if component.state == ComponentState.DOWN and self._may_start(component, now_s):
                self._begin_start(component, now_s)
            if component.is_up or component.state == ComponentState.STOPPING:
                self._watch_topology(component)
            if component.is_shard and component.state == ComponentState.UP:
                self._watch_sessions(component, now_s)
        self._alarms.see(self.components[AUDITOR].vitals.get("breaks", ()), now_s)
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def until(self, is_so: Callable[[], bool], timeout_s: float) -> None:
        """Return when it is so after a tick, which alone changes anything here. Raises `TimeoutError`."""
        give_up_s = self._monotonic_s() + timeout_s
        while not is_so():
            if self._monotonic_s() > give_up_s:
                raise TimeoutError(f"not within {timeout_s:.0f} s")
            await self._ticked.wait()

    @property
    def is_ready(self) -> bool:
        """Whether everything that trading needs runs and knows where the rest is."""
        return all(
            c.state == ComponentState.UP and (not self._needs_topology(c) or c.topology == self._topology)
            for c in self.components.values()
            if c.name != AUDITOR and not c.is_standby and not (c.is_spare and self.machine.drained)
        )

    @property
    def is_complete(self) -> bool:
        """Whether the standbys follow, too."""
        return self.is_ready and all(c.can_take_over for c in self.components.values() if c.is_standby)

    # ---------------------------------------------------------------- life of a component

    def _may_start(self, component: Component, now_s: float) -> bool:
        if component.held_down or now_s < component.next_start_s:
            return False
        if component.is_standby:
            # Who is to be followed comes first.
            return self.components[component.machine].state == ComponentState.UP and (
                component.restarts >= 0 or self.is_ready
            )
        standby = self.components.get(standby_of(component.machine))
        if standby is not None and standby.state == ComponentState.STARTING and standby.process is not None:
            # Adopted a moment ago, say, with its primary lost: to take over is sooner than to start and to replay.
            return False
        # The auditor comes up last, so that it takes no time from what people wait for.
        return component.name != AUDITOR or component.restarts >= 0 or self.is_ready

    def _begin_start(self, component: Component, now_s: float) -> None:
        component.state, component.since_s = ComponentState.STARTING, now_s
        standby = self.components.get(standby_of(component.machine)) if not component.is_standby else None
        if standby is not None and standby.can_take_over:
            component.detail = "its standby takes over"
            self.events.add("taking_over", component)
            self._run_task(component, self._take_over(component, standby))
        else:
            component.detail = "starting"
            self._run_task(component, self._start(component))

    def _run_task(self, component: Component, work: Any) -> None:
        component.task = asyncio.create_task(work)
        component.task.add_done_callback(lambda _: self._wake.set())

    def _watch_start(self, component: Component, now_s: float) -> None:
        task = component.task
        assert task is not None
        if task.done():
            component.task = None
            error = task.exception()
            if isinstance(error, NoNode):
                component.state, component.detail = ComponentState.DOWN, str(error)
                component.is_spare = component.is_gateway and bool(self.machine.drained)
                component.next_start_s = now_s + NODES_INTERVAL_S
                return
            if error is not None:
                self._lost(component, now_s, f"did not start: {error!r}")
                return
            component.state = ComponentState.UP
            component.failures = 0
            component.is_spare = False
            component.start_duration_ms = round((now_s - component.since_s) * 1_000)
            component.since_s = now_s
            component.detail = ""
            # Nobody need know where the auditor and the gateways are.
            self._topology += component.machine != ""
            self.events.add("up", component, f"{component.start_duration_ms} ms")
        elif now_s - component.since_s > START_TIMEOUT_S:
            task.cancel()
            self._lost(component, now_s, f"not up after {START_TIMEOUT_S:.0f} s")

    def _watch_ping(self, component: Component, now_s: float) -> None:
        task = component.task
        if task is None:
            if now_s >= component.next_ping_s:
                component.vitals["asked_s"] = now_s
                component.next_ping_s = now_s + TICK_S
                component.task = asyncio.create_task(self._ping(component))
                component.task.add_done_callback(self._on_ping)
            return
        waited_ms = (now_s - component.vitals.get("asked_s", now_s)) * 1_000
        if task.done():
            component.task = None
            error = task.exception()
            if error is not None:
                self._lost(component, now_s, f"gone: {error!r}")
            elif component.vitals.get("broken"):
                self._lost(component, now_s, f"broken: {component.vitals['broken']}")
            elif component.vitals.get("agrees") is False:
                self._lost(component, now_s, "its state is another than the primary's")
            else:
                component.state = ComponentState.UP
                component.detail = component.vitals.get("failure") or ""
        elif waited_ms > self._dead_after_ms(component):
            task.cancel()
            self._lost(component, now_s, f"no answer for {waited_ms:.0f} ms")
        elif waited_ms > self._config.suspect_after_ms and component.state != ComponentState.SUSPECT:
            component.state = ComponentState.SUSPECT
            component.detail = f"no answer for {waited_ms:.0f} ms"
            self.events.add("suspect", component, component.detail)

    def _on_ping(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._wake.set()

    def _dead_after_ms(self, component: Component) -> int:
        standby = self.components.get(standby_of(component.machine))
        if standby is not None and standby.can_take_over:
            return self._config.dead_after_ms
        return self._config.dead_alone_after_ms

    def _lost(self, component: Component, now_s: float, detail: str) -> None:
        """Make sure that it is gone, and start it again after the back-off."""
        self.events.add("lost", component, detail)
        component.state, component.detail, component.task = ComponentState.DOWN, detail, None
        component.next_start_s = now_s + BACKOFF_S[min(component.failures, len(BACKOFF_S) - 1)]
        component.failures += 1
        component.topology = 0
        self._topology += component.machine != ""

    async def _start(self, component: Component) -> None:
        taken = await self._end(component) if component.process is not None else None
        component.node = ""
        drained = self.machine.drained
        node = place(component, self.components.values(), self._nodes, drained)
        if node is None:
            found = f"found none that is free: {len(self._nodes)} are alive, drained are {', '.join(drained) or 'none'}"
            raise NoNode(f"expected a node for {component.name}, {found}")
        # At once, so that what is started at the same time goes elsewhere.
        component.node = component.home = node.id
        if taken is None:
            taken = await self.decide(TakeIncarnation(component.name))
        start = self._launcher.start(
            component.machine or component.name,
            taken.incarnation,
            node=node.id,
            port=self._port_for(component),
            standby=component.is_standby,
        )
        component.process = await self._while_alive(node, start)
        component.incarnation = taken.incarnation
        component.restarts += 1
        component.vitals = await component.process.ping(0, 0)
        component.port = int(component.vitals.get("address", "").rpartition(":")[2] or 0)
        if component.is_shard:
            await self._prepare_shard(component)

    async def _end(self, component: Component) -> ControlResult:
        """Take the next incarnation, and end the process: it must be gone before another may take its journal.

        Journaled first: a supervisor that was cut off, to which all seem lost, must not end what another relies on.
        """
        old, component.process = component.process, None
        assert old is not None
        component.is_ending = True
        try:
            taken = await self.decide(TakeIncarnation(component.name))
            await old.kill()
        except Exception:
            component.process = old
            raise
        finally:
            component.is_ending = False
        return taken

    async def _while_alive(self, node: Node, start: Awaitable[Process]) -> Process:
        """Wait for a start, but no longer than its node is there: Ray would wait for the node to come back."""
        task = asyncio.ensure_future(start)
        try:
            while not task.done():
                if self._nodes and node not in self._nodes:
                    raise NoNode(f"{node.name} was lost")
                await asyncio.wait([task], timeout=NODES_INTERVAL_S)
            return task.result()
        finally:
            task.cancel()

    async def _take_over(self, component: Component, standby: Component) -> None:
        """Make the standby the primary: journaled first, so that any supervisor after us goes on with it."""
        old = component.process
        decided = await self.decide(Promote(component.machine, standby.incarnation))
        if decided.duplicate:
            raise RuntimeError(f"expected the standby {standby.incarnation}, was {decided.incarnation}")
        self._replace(component, standby)
        if old is not None:
            await old.kill()
        await self._promote(component, begin=True)

    def _replace(self, component: Component, standby: Component) -> None:
        component.process, component.node, component.incarnation = standby.process, standby.node, standby.incarnation
        component.restarts += 1
        # A command that hangs in the old process must not keep us from the new one.
        self._locks[component.machine] = asyncio.Lock()
        standby.leave()
        standby.next_start_s = self._monotonic_s() + NEW_STANDBY_AFTER_S

    def begin_hand_over(self, machine: str) -> asyncio.Task[None]:
        """Have a machine's standby go on where its primary stops; raises `CannotHandOver`."""
        component, standby = self.components[machine], self.components.get(standby_of(machine))
        if component.state != ComponentState.UP or standby is None or not standby.can_take_over:
            raise CannotHandOver(f"{machine}: expected a standby that follows a primary, found none")
        for task in (component.task, component.topology_task):
            if task is not None:
                task.cancel()
        component.state, component.since_s = ComponentState.STARTING, self._monotonic_s()
        component.detail = "hands over to its standby"
        self.events.add("handing_over", component)
        self._run_task(component, self._hand_over(component, standby))
        assert component.task is not None
        return component.task

    async def _hand_over(self, component: Component, standby: Component) -> None:
        old = component.process
        assert old is not None
        await self.decide(Promote(component.machine, standby.incarnation))
        try:
            async with asyncio.timeout(HAND_OVER_TIMEOUT_S):
                await old.hand_over()
        except Exception as error:
            # Then it is as if it were lost: the fence, or its end, sees to it.
            _log.warning("component.hand_over_failed", name=component.name, error=repr(error))
            await old.kill()
        self._replace(component, standby)
        await self._promote(component, begin=False)
        # Its end takes a moment, which nobody need wait for.
        ending = asyncio.create_task(old.kill())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def take_down(self, component: Component) -> None:
        """End a process in good order, a gateway by draining it, and keep it down until `release`."""
        process = component.process
        for task in (component.task, component.topology_task):
            if task is not None:
                task.cancel()
        component.task = component.topology_task = None
        component.held_down = True
        component.state, component.detail = ComponentState.STOPPING, "stops for maintenance"
        self.events.add("stopping", component)
        if process is not None:
            try:
                async with asyncio.timeout(TAKE_DOWN_TIMEOUT_S):
                    await (process.drain() if component.is_gateway else process.stop())
            except Exception as error:
                # It was to end anyhow; what it had not finished is as if it had died.
                _log.warning("component.stop_failed", name=component.name, error=repr(error))
            await process.kill()
        component.leave()
        self._topology += component.machine != ""

    def release(self, component: Component) -> None:
        """Let a component be started again that was taken down."""
        component.held_down = False
        component.next_start_s = self._monotonic_s()

    async def _promote(self, component: Component, *, begin: bool) -> None:
        process = component.process
        assert process is not None
        async with asyncio.timeout(PROMOTE_TIMEOUT_S):
            await process.promote(begin)
            component.vitals = await process.ping(0, 0)
        self.events.add("fenced", component, "the writers of all epochs before")
        if component.is_shard and begin:
            await self._prepare_shard(component)

    async def _adopt(self, component: Component) -> None:
        """Take on what an earlier supervisor started, if it still answers."""
        incarnation = self.machine.incarnations.get(component.name, 0)
        if not incarnation:
            return
        try:
            has_standby = self.machine.incarnations.get(standby_of(component.machine), 0) != 0
            async with asyncio.timeout(ADOPT_WITH_STANDBY_S if has_standby else ADOPT_TIMEOUT_S):
                process = await self._launcher.find(component.machine or component.name, incarnation)
                vitals = None if process is None else await process.ping(0, 0)
        except Exception as error:  # whatever it is, it is started anew then
            _log.warning("component.not_adopted", name=component.name, incarnation=incarnation, error=repr(error))
            return
        if process is None or vitals is None:
            return
        component.home = process.node
        component.port = int(vitals.get("address", "").rpartition(":")[2] or 0)
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
            self._run_task(component, self._resume(component))
        self.events.add("adopted", component)

    async def _resume(self, component: Component) -> None:
        """Finish what an earlier supervisor may have left undone."""
        if component.vitals.get("role") == Role.STANDBY:
            await self._promote(component, begin=True)
        elif component.is_shard:
            await self._prepare_shard(component)

    def _port_for(self, component: Component) -> int:
        """Return where a gateway is to listen: as configured, else where its clients know it (0: any free port)."""
        if not component.is_gateway:
            return 0
        if self._config.port:
            return self._config.port + (0 if self._config.same_port else int(component.name.rpartition("-")[2]))
        return component.port if component.failures <= PORT_TRIES else 0

    async def _prepare_shard(self, component: Component) -> None:
        """Give a shard its instruments, and open it unless it is held."""
        instruments = [i for i, shard in self.machine.instruments.values() if shard == component.name]
        incarnations = self._gateway_incarnations()
        held = self.machine.held.get(component.name)
        stage = SetStage(int(Stage.OPEN), 0, "start")
        if held is not None:
            stage = SetStage(held.stage, held.orders_per_s, held.reason)
        await self._command(
            component.name,
            *(AddInstrument(instrument) for instrument in instruments),
            # Before it opens: what lived and died with a stream must not trade any more.
            *cancel_ended(filter(None, incarnations), self.machine.incarnation),
            stage,
        )
        component.sessions_of = incarnations

    def _watch_sessions(self, component: Component, now_s: float) -> None:
        """Have a shard cancel what ended sessions placed, again and again until it has journaled it."""
        task = component.sessions_task
        if task is not None:
            if not task.done():
                return
            component.sessions_task = None
            error = task.exception()
            if error is not None:
                _log.warning("sessions.cancel_failed", name=component.name, error=repr(error))
                component.sessions_next_s = now_s + SESSIONS_RETRY_S
        if component.sessions_of != self._gateway_incarnations() and now_s >= component.sessions_next_s:
            component.sessions_task = asyncio.create_task(self._cancel_ended_sessions(component))

    async def _cancel_ended_sessions(self, shard: Component) -> None:
        incarnations = self._gateway_incarnations()
        await self._command(shard.name, *cancel_ended(filter(None, incarnations), self.machine.incarnation))
        shard.sessions_of = incarnations

    def _gateway_incarnations(self) -> tuple[int, ...]:
        """Return the last incarnation of each gateway; those before it are gone, as `_start` has seen to."""
        gateways = [self.components[name] for name in self._config.gateway_names]
        given = self.machine.incarnations
        return tuple(c.incarnation if c.is_ending else given.get(c.name, 0) for c in gateways)

    async def _ping(self, component: Component) -> None:
        process = component.process
        assert process is not None
        asked_s = component.vitals.get("asked_s")
        primary = self.components[component.machine].vitals if component.is_standby else {}
        vitals = await process.ping(primary.get("record", 0), primary.get("checksum", 0))
        component.vitals = {**vitals, "asked_s": asked_s}
        component.measure(self._monotonic_s())

    def _watch_nodes(self, now_s: float) -> None:
        task = self._nodes_task
        if task is not None and task.done():
            self._nodes_task = None
            self._nodes_next_s = now_s + NODES_INTERVAL_S
            if task.exception() is None:
                self._know_nodes(task.result())
            # Else Ray's own books are out of reach: the nodes are those that were there last.
        elif task is None and now_s >= self._nodes_next_s:
            self._nodes_task = asyncio.create_task(self._launcher.nodes())

    def _know_nodes(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._node_names.update((node.id, node.name) for node in nodes)

    # ---------------------------------------------------------------- who is where

    def _needs_topology(self, component: Component) -> bool:
        return component.name != LEDGER

    def _watch_topology(self, component: Component) -> None:
        """Tell a component where everything is, until it has heard the newest."""
        task = component.topology_task
        if task is not None and task.done():
            component.topology_task = task = None
        if task is None and component.topology != self._topology and self._needs_topology(component):
            component.topology_task = asyncio.create_task(self._tell_topology(component))
            component.topology_task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _tell_topology(self, component: Component) -> None:
        process, version = component.process, self._topology
        assert process is not None
        await process.configure(self._pack_topology())
        component.topology = version

    def _pack_topology(self) -> bytes:
        machines = {}
        for name in self._config.machine_names:
            primary, standby = self.components[name], self.components.get(standby_of(name))
            machines[name] = (
                primary.incarnation if primary.is_up else 0,
                standby.incarnation if standby is not None and standby.is_up else 0,
            )
        return Topology((self.incarnation, self._topology), self._actor_name, machines).pack()

    # ---------------------------------------------------------------- commands

    async def decide(self, command: Any) -> ControlResult:
        """Journal a decision of our own."""
        reply = unpack_replies(await self._control.submit(LinkBatch("", 0, 0, [rows_segment([command])])))[0]
        if reply.status != ReplyStatus.DONE:
            raise RuntimeError(f"the control journal refused: {reply.detail}")
        result: ControlResult = unpack_results(reply.data, ControlResult)[0]
        return result

    async def _command(self, name: str, *commands: Any) -> list[Result]:
        """Have a shard journal and apply commands."""
        async with self._locks[name]:
            process = self.components[name].process
            if process is None:
                raise RuntimeError(f"{name} is away")
            self._stamps[name] = n = self._stamps.get(name, 0) + 1
            batch = LinkBatch(SUPERVISOR, self.incarnation, n, [rows_segment(commands)])
            reply = unpack_replies(await process.submit(pack(batch)))[0]
        if reply.status != ReplyStatus.DONE:
            raise RuntimeError(f"{name} refused: {reply.detail or RejectReason(reply.reason).name}")
        results: list[Result] = unpack_results(reply.data, Result)
        return results

    async def create_instrument(self, instrument: Instrument, shard: str) -> ControlResult:
        """Place an instrument on a shard ("": the one with the fewest), durably, and open its book."""
        placed = [s for _, s in self.machine.instruments.values()]
        if not shard:
            shard = min(self._config.shard_names, key=placed.count)
        if shard not in self._config.shard_names:
            return ControlResult(0, reject_reason=int(RejectReason.INSTRUMENT_INVALID))
        result = await self.decide(PlaceInstrument(instrument, shard))
        if not result.reject_reason:
            await self._command(result.shard, AddInstrument(instrument))
        return result

    async def set_stage(self, shard: str, stage: int, orders_per_s: int, reason: str) -> list[str]:
        """Hold shards ("": all) at a stage, or let them go with `OPEN`; return which."""
        names = [shard] if shard else self._config.shard_names
        if not set(names) <= set(self._config.shard_names):
            return []
        for name in names:
            await self.decide(HoldStage(name, stage, orders_per_s, reason))
            await self._command(name, SetStage(stage, orders_per_s, reason))
        return names

    async def audit(self) -> bytes:
        """Have the auditor audit now; return an AuditResponse, serialised."""
        auditor = self.components[AUDITOR]
        async with asyncio.timeout(AUDITOR_WAIT_S):
            while auditor.process is None or auditor.topology != self._topology:  # noqa: ASYNC110  # a tick changes it
                await asyncio.sleep(TICK_S)
        return await auditor.process.audit()

    def status(self, version: str) -> bytes:
        """Return a GetStatusResponse, serialised."""
        return encode_status(version, self._clock_ns(), self.components.values(), self.machine, self._node_names)

    def encode_events(self, after_sequence: int) -> bytes:
        """Return a ListEventsResponse, serialised."""
        return encode_events(self.incarnation, self.events.after(after_sequence), self._node_names)

    async def stop(self) -> None:
        """Stop everything in order: the auditor and gateways, then shards, then the ledger."""
        self._stopping = True
        await self._alarms.stop()
        running = [c for c in self.components.values() if c.process is not None]
        for components in (
            [c for c in running if not c.machine or c.is_standby],
            [c for c in running if c.is_shard],
            [c for c in running if c.name == LEDGER],
        ):
            for component in components:
                for task in (component.task, component.sessions_task, component.topology_task):
                    if task is not None:
                        task.cancel()
            stops = (c.process.stop() for c in components if c.process is not None)
            for component, outcome in zip(
                components, await asyncio.gather(*stops, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BaseException):
                    _log.warning("component.stop_failed", name=component.name, error=repr(outcome))
        await self._control.stop()
