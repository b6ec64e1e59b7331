"""What a shard is told beyond the topology: its instruments, its stage, and which sessions have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from exchange.engine.commands import AddInstrument, CancelSessions, SetStage
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import Component, ComponentState
from exchange.supervisor.reopening import Reopening
from exchange.supervisor.sessions import cancel_ended

SESSIONS_RETRY_S = 0.5

_log = structlog.get_logger()


class Shards:
    """Prepares shards that start, and tells those that run when a gateway was replaced."""

    def __init__(self, commands: Commands, reopening: Reopening, gateways: Sequence[Component]) -> None:
        self._commands = commands
        self._reopening = reopening
        self._gateways = gateways

    async def prepare(self, shard: Component) -> None:
        """Give a shard that starts, or took over, its instruments and its first stage."""
        await self._prepare(shard, self._reopening.first_stages(shard))

    async def resume(self, shard: Component) -> None:
        """Do so with one that an earlier supervisor has left, but for the stage, which goes on."""
        await self._prepare(shard, self._reopening.resume(shard))

    async def _prepare(self, shard: Component, stages: Sequence[SetStage]) -> None:
        machine = self._commands.machine
        incarnations = self._gateway_incarnations()
        await self._commands.send(
            shard.name,
            *(AddInstrument(instrument) for instrument, name in machine.instruments.values() if name == shard.name),
            # Before it opens: what lived and died with a stream must not trade any more.
            *self._cancel_ended(incarnations),
            *stages,
        )
        shard.sessions_of = incarnations

    def watch_sessions(self, component: Component, now_s: float) -> None:
        """Have a shard that is up cancel what ended sessions placed, again and again until it has journaled it."""
        if not component.is_shard or component.state != ComponentState.UP:
            return
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
        await self._commands.send(shard.name, *self._cancel_ended(incarnations))
        shard.sessions_of = incarnations

    def _cancel_ended(self, incarnations: tuple[int, ...]) -> list[CancelSessions]:
        return cancel_ended(filter(None, incarnations), self._commands.machine.incarnation)

    def _gateway_incarnations(self) -> tuple[int, ...]:
        """Return the last incarnation of each gateway; the ones before it were ended before it was started."""
        given = self._commands.machine.incarnations
        return tuple(c.incarnation if c.is_ending else given.get(c.name, 0) for c in self._gateways)
