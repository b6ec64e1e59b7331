"""Keeps every component running: compares what should run with what answers, at its own pace.

A tick never waits and never raises: starts, takeovers and pings run as tasks whose outcome a later tick reads. When one
of them fails or ends, the next tick comes at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

import structlog

from exchange.config import ExchangeConfig
from exchange.engine.control import Control
from exchange.runtime.host import Host
from exchange.settings import Settings
from exchange.supervisor.adoption import Adoption
from exchange.supervisor.alarms import Alarms
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import AUDITOR, LEDGER, SUPERVISOR, Launcher, components_of
from exchange.supervisor.configuration import Configuration
from exchange.supervisor.detector import Detector
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.governor import RestartGovernor
from exchange.supervisor.lifecycle import Lifecycle
from exchange.supervisor.nodes import Nodes
from exchange.supervisor.operator import Operator
from exchange.supervisor.reopening import Reopening
from exchange.supervisor.settings import SettingsInForce, SettingsPublisher
from exchange.supervisor.settings_answers import SettingsAnswers
from exchange.supervisor.shards import Shards
from exchange.supervisor.stages_by_hand import StagesByHand
from exchange.supervisor.starter import Starter
from exchange.supervisor.takeover import Takeover
from exchange.supervisor.topology import TopologyPublisher

TICK_S = 0.05

_log = structlog.get_logger()


class Reconciler:
    """The supervisor's loop, and what it is made of. `control` is its own machine's host, started already."""

    def __init__(
        self,
        config: ExchangeConfig,
        control: Host,
        launcher: Launcher,
        *,
        actor_name: str = SUPERVISOR,
        monotonic_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Random | None = None,
    ) -> None:
        self._control = control
        self._monotonic_s = monotonic_s
        self._wake = asyncio.Event()
        self._ticked = asyncio.Event()
        self._stopping = False
        self.now_ns = clock_ns
        self.components = parts = components_of(config.machine_names, config.gateway_names, standbys=config.standbys)
        self.events = events = EventLog(clock_ns=clock_ns)
        self.commands = commands = Commands(control, parts)
        self.nodes = nodes = Nodes(launcher, config.nodes)
        wake = self._wake.set
        self._in_force = in_force = SettingsInForce(lambda: self.machine.settings, config.settings)
        self._settings = SettingsPublisher(in_force, events)
        self._topology = topology = TopologyPublisher(parts, commands, actor_name)
        self.reopening = reopening = Reopening(parts, commands, events, in_force.of, clock_ns, monotonic_s)
        self.configuration = Configuration(
            config.settings, parts, commands, events, in_force, self._settings, reopening.is_open, monotonic_s
        )
        self.settings_answers = SettingsAnswers(self.configuration, in_force)
        self._shards = shards = Shards(commands, reopening, [parts[name] for name in config.gateway_names])
        self._alarms = Alarms(lambda: self.machine, commands.decide)
        governor = RestartGovernor(lambda: self.settings.governor, random or Random())
        detector = Detector(in_force, config.supervisor_dead_after_ms, parts, events, wake, monotonic_s)
        starter = Starter(config, parts, commands, nodes, shards, launcher, in_force)
        takeover = Takeover(commands, shards, events, monotonic_s)
        self.lifecycle = Lifecycle(
            parts,
            commands,
            events,
            detector,
            starter,
            takeover,
            topology,
            governor,
            lambda: reopening.all_open,
            wake,
            monotonic_s,
        )
        self._adoption = Adoption(
            parts, commands, events, launcher, self.lifecycle, shards, takeover, monotonic_s=monotonic_s
        )
        self.operator = Operator(config.shard_names, parts, commands, events, nodes, topology, self.lifecycle, clock_ns)
        self.stages_by_hand = StagesByHand(config.shard_names, commands, reopening, events)

    @property
    def machine(self) -> Control:
        """What the supervisor remembers."""
        return self.commands.machine

    @property
    def settings(self) -> Settings:
        """The supervisor's own, which hold for everything but what new ones are rolled out to now."""
        return self._in_force.of("")

    @property
    def is_ready(self) -> bool:
        """Whether everything that trading needs runs and knows where the rest is."""
        return self.lifecycle.is_ready

    @property
    def is_open(self) -> bool:
        """Whether all of it takes orders, too: no shard is still reopening."""
        return self.is_ready and self.reopening.all_open

    @property
    def is_complete(self) -> bool:
        """Whether the standbys follow, too, and have caught up."""
        return self.lifecycle.is_complete

    async def start(self) -> None:
        """Take an incarnation of our own, which stamps what we send, and adopt what an earlier supervisor has left."""
        await self.commands.begin()
        await self.configuration.begin()
        self.lifecycle.know_parked()
        await self.nodes.read()
        await self._adoption.adopt_all()

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
        self.nodes.watch(now_s)
        for component in self.components.values():
            self.lifecycle.watch(component, now_s)
            self._topology.watch(component)
            self._settings.watch(component)
            self._shards.watch_sessions(component, now_s)
            self.reopening.watch(component, now_s)
        self._alarms.see(self.components[AUDITOR].vitals.get("breaks", ()), now_s)
        self.configuration.watch(now_s)
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def until(self, is_so: Callable[[], bool], timeout_s: float) -> None:
        """Return when it is so after a tick, which alone changes anything here. Raises `TimeoutError`."""
        give_up_s = self._monotonic_s() + timeout_s
        while not is_so():
            if self._monotonic_s() > give_up_s:
                raise TimeoutError(f"not within {timeout_s:.0f} s")
            await self._ticked.wait()

    async def stop(self) -> None:
        """Stop everything in order: the auditor and gateways, then shards, then the ledger."""
        self._stopping = True
        await self._alarms.stop()
        await self.configuration.stop()
        self.reopening.stop()
        running = [c for c in self.components.values() if c.process is not None]
        for components in (
            [c for c in running if not c.machine or c.is_standby],
            [c for c in running if c.is_shard],
            [c for c in running if c.name == LEDGER],
        ):
            for component in components:
                for task in (component.task, component.sessions_task, component.topology_task, component.settings_task):
                    if task is not None:
                        task.cancel()
            stops = (c.process.stop() for c in components if c.process is not None)
            for component, outcome in zip(
                components, await asyncio.gather(*stops, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BaseException):
                    _log.warning("component.stop_failed", name=component.name, error=repr(outcome))
        await self._control.stop()
