"""Keeps every component running: compares what should run with what answers, at its own pace.

A tick never waits and never raises: starts and pings run as tasks whose outcome a later tick reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import structlog

from exchange.config import ExchangeConfig
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.control import Control, ControlResult, HoldStage, PlaceInstrument, TakeIncarnation
from exchange.engine.events import Result
from exchange.engine.instrument import Instrument
from exchange.engine.words import RejectReason, Stage
from exchange.runtime.host import Host
from exchange.runtime.messages import LinkBatch, ReplyStatus, pack, unpack_replies
from exchange.runtime.rows import rows_segment, unpack_results
from exchange.supervisor.alarms import Alarms
from exchange.supervisor.sessions import cancel_ended
from exchange.v1 import admin_pb2

TICK_S = 0.05
# Between starts that failed. A component that came up and died later is started again at once.
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
START_TIMEOUT_S = 120.0
SESSIONS_RETRY_S = 0.5
PORT_TRIES = 4
"""Starts of a gateway on the port that it had, before it may take another: who else holds it may not let go."""
SUPERVISOR = "supervisor"
AUDITOR = "auditor"
AUDITOR_WAIT_S = 20.0
"""How long an audit that is asked for waits for the auditor to be there."""

_log = structlog.get_logger()


class ComponentState(IntEnum):
    """As in `admin.proto`."""

    STARTING = 1
    UP = 2
    SUSPECT = 3
    DOWN = 4


class Process(Protocol):
    """A running component, whatever carries it. Every call raises when it is gone or out of reach."""

    async def ping(self) -> dict[str, Any]: ...

    async def submit(self, batch: bytes) -> bytes: ...

    async def configure(self, topology: bytes) -> None: ...

    async def audit(self) -> bytes:
        """Audit now; returns an AuditResponse, serialised. Of the auditor."""
        ...

    async def stop(self) -> None: ...

    async def kill(self) -> None:
        """End it for certain, by its process id where that is known."""
        ...


class Launcher(Protocol):
    """Starts components: the ledger, shards, gateways and the auditor."""

    async def start(self, name: str, incarnation: int, port: int) -> Process:
        """Return once the process runs; it may still be recovering its machine.

        `port` is where a gateway is to listen, 0: on any free port.
        """
        ...


@dataclass(slots=True, eq=False)
class Component:
    """What is known of one component."""

    name: str
    state: ComponentState = ComponentState.DOWN
    incarnation: int = 0
    process: Process | None = None
    vitals: dict[str, Any] = field(default_factory=dict)
    detail: str = "not started yet"
    restarts: int = -1
    failures: int = 0
    start_duration_ms: int = 0
    task: asyncio.Task[Any] | None = None
    since_s: float = 0.0
    next_start_s: float = 0.0
    port: int = 0
    """Where a gateway listened last."""
    topology: int = 0
    sessions_of: tuple[int, ...] | None = None
    """Of a shard: the gateways' incarnations, when it last journaled that it cancels what all others placed."""
    sessions_task: asyncio.Task[None] | None = None
    sessions_next_s: float = 0.0

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


class Reconciler:
    """The supervisor's logic. `control` is its own machine's host, started already."""

    def __init__(
        self,
        config: ExchangeConfig,
        control: Host,
        launcher: Launcher,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        names = ["ledger", *config.shard_names, *config.gateway_names, AUDITOR]
        self.components = {name: Component(name) for name in names}
        self._config = config
        self._control = control
        self._launcher = launcher
        self._monotonic_s = monotonic_s
        self._clock_ns = clock_ns
        self._incarnation = 0
        self._stamps: dict[str, int] = {}
        self._locks = {name: asyncio.Lock() for name in names}
        self._topology = 1
        self._stopping = False
        self._alarms = Alarms(lambda: self._machine, self._decide, self._command)

    @property
    def _machine(self) -> Control:
        machine: Control = self._control.machine
        return machine

    async def start(self) -> None:
        """Take an incarnation of our own, which stamps what we send."""
        self._incarnation = (await self._decide(TakeIncarnation(SUPERVISOR))).incarnation

    async def run(self) -> None:
        """Tick until stopped."""
        while not self._stopping:
            self.tick()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """Read what happened since the last tick and begin what is due."""
        now_s = self._monotonic_s()
        for component in self.components.values():
            if component.state == ComponentState.DOWN:
                # The auditor comes up last, so that it takes no time from what people wait for.
                if now_s >= component.next_start_s and (
                    component.kind != AUDITOR or component.restarts >= 0 or self.is_ready
                ):
                    self._begin_start(component, now_s)
            elif component.state == ComponentState.STARTING:
                self._watch_start(component, now_s)
            else:
                self._watch_ping(component, now_s)
            if component.kind == "shard" and component.state == ComponentState.UP:
                self._watch_sessions(component, now_s)
        self._alarms.see(self.components[AUDITOR].vitals.get("breaks", ()), now_s)

    @property
    def is_ready(self) -> bool:
        """Whether everything that trading needs runs and knows where the rest is."""
        return all(
            c.state == ComponentState.UP and (c.kind == "ledger" or c.topology == self._topology)
            for c in self.components.values()
            if c.kind != AUDITOR
        )

    # ---------------------------------------------------------------- life of a component

    def _begin_start(self, component: Component, now_s: float) -> None:
        component.state, component.since_s = ComponentState.STARTING, now_s
        component.detail = "starting"
        component.task = asyncio.create_task(self._start(component))

    def _watch_start(self, component: Component, now_s: float) -> None:
        task = component.task
        assert task is not None
        if task.done():
            component.task = None
            error = task.exception()
            if error is not None:
                self._lost(component, now_s, f"did not start: {error!r}")
                return
            component.state = ComponentState.UP
            component.failures = 0
            component.start_duration_ms = round((now_s - component.since_s) * 1_000)
            component.since_s = now_s
            component.detail = ""
            # Nobody need know where the auditor is.
            self._topology += component.kind != AUDITOR
            _log.info("component.up", name=component.name, start_ms=component.start_duration_ms)
        elif now_s - component.since_s > START_TIMEOUT_S:
            task.cancel()
            self._lost(component, now_s, f"not up after {START_TIMEOUT_S:.0f} s")

    def _watch_ping(self, component: Component, now_s: float) -> None:
        task = component.task
        if task is None:
            component.task = asyncio.create_task(self._ping(component))
            component.vitals["asked_s"] = now_s
            return
        waited_ms = (now_s - component.vitals.get("asked_s", now_s)) * 1_000
        if task.done():
            component.task = None
            error = task.exception()
            if error is not None:
                self._lost(component, now_s, f"gone: {error!r}")
                return
            if component.vitals.get("broken"):
                self._lost(component, now_s, f"broken: {component.vitals['broken']}")
                return
            component.state = ComponentState.UP
            component.detail = component.vitals.get("failure") or ""
        elif waited_ms > self._config.dead_after_ms:
            task.cancel()
            self._lost(component, now_s, f"no answer for {waited_ms:.0f} ms")
        elif waited_ms > self._config.suspect_after_ms:
            component.state = ComponentState.SUSPECT
            component.detail = f"no answer for {waited_ms:.0f} ms"

    def _lost(self, component: Component, now_s: float, detail: str) -> None:
        """Make sure that it is gone, and start it again after the back-off."""
        _log.warning("component.lost", name=component.name, incarnation=component.incarnation, detail=detail)
        component.state, component.detail, component.task = ComponentState.DOWN, detail, None
        component.next_start_s = now_s + BACKOFF_S[min(component.failures, len(BACKOFF_S) - 1)]
        component.failures += 1
        component.topology = 0
        self._topology += component.kind != AUDITOR

    async def _start(self, component: Component) -> None:
        if component.process is not None:
            # The old process must be gone before a new one may take its journal.
            await component.process.kill()
            component.process = None
        taken = await self._decide(TakeIncarnation(component.name))
        component.process = await self._launcher.start(component.name, taken.incarnation, self._port_for(component))
        component.incarnation = taken.incarnation
        component.restarts += 1
        component.vitals = await component.process.ping()
        component.port = int(component.vitals.get("address", "").rpartition(":")[2] or 0)
        if component.kind == "shard":
            await self._prepare_shard(component)

    def _port_for(self, component: Component) -> int:
        """Return where a gateway is to listen: as configured, else where its clients know it (0: any free port)."""
        if component.kind != "gateway":
            return 0
        if self._config.port:
            return self._config.port + int(component.name.rpartition("-")[2])
        return component.port if component.failures <= PORT_TRIES else 0

    async def _prepare_shard(self, component: Component) -> None:
        """Give a shard its instruments, and open it unless it is held."""
        instruments = [i for i, shard in self._machine.instruments.values() if shard == component.name]
        if instruments:
            await self._command(component.name, *(AddInstrument(instrument) for instrument in instruments))
        # Before it opens: what lived and died with a stream must not trade any more.
        await self._cancel_ended_sessions(component)
        held = self._machine.held.get(component.name)
        stage = SetStage(int(Stage.OPEN), 0, "start")
        if held is not None:
            stage = SetStage(held.stage, held.orders_per_s, held.reason)
        await self._command(component.name, stage)

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
        await self._command(shard.name, *cancel_ended(filter(None, incarnations), self._machine.incarnation))
        shard.sessions_of = incarnations

    def _gateway_incarnations(self) -> tuple[int, ...]:
        """Return the last incarnation of each gateway; those before it are gone, as `_start` has seen to."""
        return tuple(self._machine.incarnations.get(name, 0) for name in self._config.gateway_names)

    async def _ping(self, component: Component) -> None:
        process = component.process
        assert process is not None
        asked_s = component.vitals.get("asked_s")
        vitals = await process.ping()
        component.vitals = {**vitals, "asked_s": asked_s}
        if component.kind != "ledger" and component.topology != self._topology:
            version = self._topology
            await process.configure(self._pack_topology())
            component.topology = version

    def _pack_topology(self) -> bytes:
        """Return where each machine is: its incarnation, 0 while it is away."""
        up = (ComponentState.UP, ComponentState.SUSPECT)
        machines = [c for c in self.components.values() if c.kind not in ("gateway", AUDITOR)]
        return pack({c.name: c.incarnation if c.state in up else 0 for c in machines})

    # ---------------------------------------------------------------- commands

    async def _decide(self, command: Any) -> ControlResult:
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
            batch = LinkBatch(SUPERVISOR, self._incarnation, n, [rows_segment(commands)])
            reply = unpack_replies(await process.submit(pack(batch)))[0]
        if reply.status != ReplyStatus.DONE:
            raise RuntimeError(f"{name} refused: {reply.detail or RejectReason(reply.reason).name}")
        results: list[Result] = unpack_results(reply.data, Result)
        return results

    async def create_instrument(self, instrument: Instrument, shard: str) -> ControlResult:
        """Place an instrument on a shard ("": the one with the fewest), durably, and open its book."""
        placed = [s for _, s in self._machine.instruments.values()]
        if not shard:
            shard = min(self._config.shard_names, key=placed.count)
        if shard not in self._config.shard_names:
            return ControlResult(0, reject_reason=int(RejectReason.INSTRUMENT_INVALID))
        result = await self._decide(PlaceInstrument(instrument, shard))
        if not result.reject_reason:
            await self._command(result.shard, AddInstrument(instrument))
        return result

    async def set_stage(self, shard: str, stage: int, orders_per_s: int, reason: str) -> list[str]:
        """Hold shards ("": all) at a stage, or let them go with `OPEN`; return which."""
        names = [shard] if shard else self._config.shard_names
        if not set(names) <= set(self._config.shard_names):
            return []
        for name in names:
            await self._decide(HoldStage(name, stage, orders_per_s, reason))
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
        response = admin_pb2.GetStatusResponse(version=version, time_ns=self._clock_ns())
        held = {symbol: shard for symbol, (_, shard) in self._machine.instruments.items()}
        for c in self.components.values():
            response.components.add(
                name=c.name,
                state=int(c.state),
                incarnation=c.incarnation,
                pid=c.vitals.get("pid", 0),
                epoch=c.vitals.get("epoch", 0),
                sequence=c.vitals.get("sequence", 0),
                state_hash=c.vitals.get("state_hash", ""),
                state_hash_sequence=c.vitals.get("state_hash_sequence", 0),
                stage=c.vitals.get("stage", 0) if c.state != ComponentState.DOWN else 0,
                instruments=[symbol for symbol, shard in held.items() if shard == c.name],
                open_orders=c.vitals.get("open_orders", 0),
                address=c.vitals.get("address", ""),
                detail=c.detail,
                restarts=max(c.restarts, 0),
                start_duration_ms=c.start_duration_ms,
            )
        return response.SerializeToString()

    async def stop(self) -> None:
        """Stop everything in order: the auditor and gateways, then shards, then the ledger."""
        self._stopping = True
        await self._alarms.stop()
        for kind in (AUDITOR, "gateway", "shard", "ledger"):
            components = [c for c in self.components.values() if c.kind == kind and c.process is not None]
            for component in components:
                for task in (component.task, component.sessions_task):
                    if task is not None:
                        task.cancel()
            stops = (c.process.stop() for c in components if c.process is not None)
            for component, outcome in zip(
                components, await asyncio.gather(*stops, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BaseException):
                    _log.warning("component.stop_failed", name=component.name, error=repr(outcome))
        await self._control.stop()
