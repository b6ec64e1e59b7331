"""Stages by hand: hold, resume, skip; for one instrument, one shard or everywhere, with a reason that is journaled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import structlog

from exchange.engine.control import HoldStage
from exchange.engine.words import Stage
from exchange.supervisor.commands import Commands
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.reopening import REASON_LENGTH_MAX, Reopening
from exchange.v1 import admin_pb2

TELL_TIMEOUT_S = 2.0
"""A shard that does not answer is told when it does: nobody waits for it longer, other shards least of all."""
_HELD_AT = (Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.HALTED)

_log = structlog.get_logger()


class Action(IntEnum):
    """As `StageAction` in `admin.proto`."""

    HOLD = 1
    RESUME = 2
    SKIP = 3


class Refused(Exception):
    """Nothing was done; `reason` is for programs."""

    code = "STAGE_REFUSED"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Target(NamedTuple):
    """All of a shard, or an instrument of it."""

    shard: str
    instrument: str

    @property
    def name(self) -> str:
        return self.instrument or self.shard


class StagesByHand:
    """What is held is journaled before a shard hears of it, so that it holds whatever is restarted."""

    def __init__(
        self,
        shard_names: Sequence[str],
        commands: Commands,
        reopening: Reopening,
        events: EventLog,
    ) -> None:
        self._shard_names = shard_names
        self._commands = commands
        self._reopening = reopening
        self._events = events

    async def set_stage(self, request: bytes) -> tuple[str, str, list[str]]:
        """Do what a SetStageRequest, serialised, asks for; return (reason, message) why not, and the names of what it
        was done to.
        """
        asked = admin_pb2.SetStageRequest.FromString(request)
        try:
            return "", "", await self._set_stage(asked)
        except Refused as refused:
            return refused.reason, str(refused), []

    async def _set_stage(self, asked: admin_pb2.SetStageRequest) -> list[str]:
        reason = asked.reason.strip()[:REASON_LENGTH_MAX]
        if not reason:
            raise Refused("REASON_MISSING", "reason: expected why, for the journal and for those who trade, was empty")
        targets = self._targets(asked.shard, asked.instrument)
        action = int(asked.action)
        if action == Action.HOLD:
            targets = await self._hold(targets, asked.stage, asked.orders_per_s, reason)
        elif action == Action.RESUME:
            targets = await self._resume(targets, asked.stage, reason)
        elif action == Action.SKIP:
            targets = self._skip(targets, asked.stage, reason)
        else:
            raise Refused("STAGE_INVALID", f"action: expected HOLD, RESUME or SKIP, was {action}")
        await asyncio.gather(*(self._tell(shard) for shard in dict.fromkeys(target.shard for target in targets)))
        for target in targets:
            self._events.note("by_hand", target.name, self._words(action, asked, reason))
        return [target.name for target in targets]

    def _targets(self, shard: str, instrument: str) -> list[_Target]:
        if shard and instrument:
            raise Refused("STAGE_INVALID", f"expected a shard or an instrument, were both: {shard}, {instrument}")
        if shard and shard not in self._shard_names:
            message = f"expected a shard, one of {', '.join(self._shard_names)}, was {shard[:40]!r}"
            raise Refused("SHARD_UNKNOWN", message)
        if not instrument:
            return [_Target(name, "") for name in ([shard] if shard else self._shard_names)]
        if instrument not in self._commands.machine.instruments:
            raise Refused("INSTRUMENT_UNKNOWN", f"expected an instrument that exists, was {instrument[:40]!r}")
        return [_Target(self._commands.machine.instruments[instrument][1], instrument)]

    async def _hold(self, targets: list[_Target], stage: int, orders_per_s: int, reason: str) -> list[_Target]:
        if stage not in _HELD_AT:
            expected = ", ".join(held_at.name for held_at in _HELD_AT)
            raise Refused("STAGE_INVALID", f"stage: expected one of {expected}, was {stage}")
        if (stage == Stage.LIMITED) != (orders_per_s > 0):
            raise Refused("STAGE_INVALID", f"orders_per_s: expected with LIMITED, and only there, was {orders_per_s}")
        for target in targets:
            await self._commands.decide(HoldStage(target.shard, stage, orders_per_s, reason, target.instrument))
        return targets

    async def _resume(self, targets: list[_Target], stage: int, reason: str) -> list[_Target]:
        at_once = self._is_at_once(stage)
        held = self._commands.machine.held
        wanted = [(target, held[target.name]) for target in targets if target.name in held]
        if not wanted:
            names = ", ".join(target.name for target in targets)
            raise Refused("NOT_HELD", f"{names}: expected to be held, found that nobody holds it")
        for target, hold in wanted:
            await self._commands.decide(HoldStage(target.shard, int(Stage.OPEN), 0, reason, target.instrument))
            if not target.instrument:
                self._reopening.let_go(target.shard, hold, reason, at_once=at_once)
        return [target for target, _ in wanted]

    def _skip(self, targets: list[_Target], stage: int, reason: str) -> list[_Target]:
        at_once = self._is_at_once(stage)
        for target in targets:
            if target.instrument:
                message = f"{target.name}: expected a shard, as one instrument does not reopen in stages"
                raise Refused("STAGE_INVALID", message)
            if target.name in self._commands.machine.held:
                raise Refused("HELD", f"{target.name} is held: resume it instead")
        closed = [target for target in targets if self._reopening.is_reopening(target.shard)]
        if not closed:
            names = ", ".join(target.name for target in targets)
            raise Refused("STAGE_OPEN", f"{names}: expected a stage before OPEN, was OPEN")
        for target in closed:
            self._reopening.skip(target.shard, reason, at_once=at_once)
        return closed

    @staticmethod
    def _is_at_once(stage: int) -> bool:
        if stage not in (0, Stage.OPEN):
            raise Refused("STAGE_INVALID", f"stage: expected none (the next one), or OPEN at once, was {stage}")
        return stage == Stage.OPEN

    @staticmethod
    def _words(action: int, asked: admin_pb2.SetStageRequest, reason: str) -> str:
        stage = f" {Stage(asked.stage).name}" if asked.stage else ""
        return f"{Action(action).name.lower()}{stage}: {reason}"

    async def _tell(self, shard: str) -> None:
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await self._reopening.tell(shard)
        except Exception as error:
            _log.warning("stages.told_later", name=shard, error=repr(error))
