"""What an operator asks of the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from exchange.engine.commands import AddInstrument
from exchange.engine.control import ControlResult, PlaceInstrument
from exchange.engine.instrument import Instrument
from exchange.engine.words import RejectReason
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import AUDITOR, Component
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.lifecycle import Lifecycle
from exchange.supervisor.nodes import Nodes
from exchange.supervisor.status import SupervisorSeen, encode_events, encode_status
from exchange.supervisor.topology import TopologyPublisher

AUDITOR_WAIT_S = 20.0
"""How long an audit that is asked for waits for the auditor to be there."""
AUDITOR_LOOK_S = 0.05


class Operator:
    """Commands are journaled before a shard hears of them, so that they hold whatever is restarted."""

    def __init__(
        self,
        shard_names: Sequence[str],
        components: Mapping[str, Component],
        commands: Commands,
        events: EventLog,
        nodes: Nodes,
        topology: TopologyPublisher,
        lifecycle: Lifecycle,
        clock_ns: Callable[[], int],
    ) -> None:
        self._shard_names = shard_names
        self._components = components
        self._commands = commands
        self._events = events
        self._nodes = nodes
        self._topology = topology
        self._lifecycle = lifecycle
        self._clock_ns = clock_ns

    async def create_instrument(self, instrument: Instrument, shard: str) -> ControlResult:
        """Place an instrument on a shard ("": the one with the fewest), durably, and open its book."""
        placed = [s for _, s in self._commands.machine.instruments.values()]
        if not shard:
            shard = min(self._shard_names, key=placed.count)
        if shard not in self._shard_names:
            return ControlResult(0, reject_reason=int(RejectReason.INSTRUMENT_INVALID))
        result = await self._commands.decide(PlaceInstrument(instrument, shard))
        if not result.reject_reason:
            await self._commands.send(result.shard, AddInstrument(instrument))
        return result

    async def unpark(self, name: str) -> tuple[str, str]:
        """Start a component again that was parked; return why not, as (reason, message), ("", "") if it is."""
        component = self._components.get(name)
        if component is None:
            known = ", ".join(self._components)
            return "COMPONENT_UNKNOWN", f"expected a component, one of {known}, was {name[:40]!r}"
        if not component.parked:
            return "NOT_PARKED", f"{name}: expected to be parked, was {component.state.name}"
        await self._lifecycle.unpark(component)
        return "", ""

    async def audit(self) -> bytes:
        """Have the auditor audit now; return an AuditResponse, serialised."""
        auditor = self._components[AUDITOR]
        async with asyncio.timeout(AUDITOR_WAIT_S):
            # A tick changes it.
            while auditor.process is None or not self._topology.has_heard(auditor):  # noqa: ASYNC110
                await asyncio.sleep(AUDITOR_LOOK_S)
        return await auditor.process.audit()

    def status(self, version: str, supervisors: Sequence[SupervisorSeen] = ()) -> bytes:
        """Return a GetStatusResponse, serialised."""
        machine, names = self._commands.machine, self._nodes.names
        return encode_status(version, self._clock_ns(), self._components.values(), machine, names, supervisors)

    def encode_events(self, after_sequence: int) -> bytes:
        """Return a ListEventsResponse, serialised."""
        return encode_events(self._commands.incarnation, self._events.after(after_sequence), self._nodes.names)
