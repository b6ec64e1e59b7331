"""What people do to an exchange: they restart, hold and slow it down, and roll out settings that are wrong."""

from __future__ import annotations

import asyncio
import tomllib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chaos.faults.injection import FaultNotInjected, RollbackFailed, Wish
from chaos.worlds.lab import Lab
from exchange.client import EvenkeelError, MaintenanceKind, MaintenanceState, RolloutState, Stage, Unavailable

REASON = "experiment"
POLL_S = 0.2
ASK_S_MAX = 10.0
_UNDER_WAY = (MaintenanceState.WAITING, MaintenanceState.RUNNING)


class RestartArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    force: bool = False
    """Also without a standby, and under a load that forbids it."""
    wait: bool = True
    """Whether it has taken effect only when it is done; else when it has begun."""


class PlannedRestart:
    """`exchange maintenance restart`, of a shard, the ledger, a node, or everything."""

    def __init__(self, lab: Lab, target: str, arguments: RestartArguments) -> None:
        self._lab = lab
        self._arguments = arguments
        self._begin_ns = 0
        self.target = target

    async def inject(self) -> None:
        is_node, everything = self.target.startswith("node"), self.target in ("", "all")
        try:
            begun = await self._lab.operator.start_maintenance(
                MaintenanceKind.RESTART,
                node=self.target if is_node else "",
                shard="" if is_node or everything else self.target,
                force=self._arguments.force,
                timeout=ASK_S_MAX,
            )
        except EvenkeelError as error:
            raise FaultNotInjected(f"expected a planned restart of {self.target or 'everything'}: {error}") from error
        self._begin_ns = begun.begin_time_ns

    async def proof(self) -> str:
        while True:
            try:
                newest = (await self._lab.operator.maintenance(timeout=ASK_S_MAX)).newest
            except Unavailable:
                newest = None
            if newest is not None and newest.begin_time_ns == self._begin_ns:
                if not self._arguments.wait:
                    return f"{len(newest.steps)} steps have begun"
                if newest.state not in _UNDER_WAY:
                    break
            await asyncio.sleep(POLL_S)
        if newest.state is MaintenanceState.FAILED:
            raise FaultNotInjected(f"expected a restart that comes to its end, found {newest.detail}")
        took_s = (newest.end_time_ns - newest.begin_time_ns) / 1e9
        return f"{newest.state.name}: {len(newest.steps)} steps in {took_s:.1f} s"

    async def rollback(self) -> None:
        """What was restarted runs; a restart that is under way ends by itself."""


class HoldArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stage: Literal["HALTED", "CANCEL_ONLY", "POST_ONLY", "LIMITED"]
    orders_per_s: Annotated[int, Meta(ge=0)] = 0
    """Of LIMITED."""
    at_once: bool = False
    """Whether it opens at once in the end, rather than in stages."""


class HoldStage:
    """`exchange stage hold`, of a shard or a market, and `exchange resume` in the end."""

    def __init__(self, lab: Lab, target: str, arguments: HoldArguments) -> None:
        self._lab = lab
        self._arguments = arguments
        self._where = {"instrument": target} if target in lab.markets else {"shard": target}
        self._is_held = False
        self.target = target

    async def inject(self) -> None:
        stage = Stage[self._arguments.stage]
        try:
            held = await self._lab.operator.hold_stage(
                stage, reason=REASON, orders_per_s=self._arguments.orders_per_s, timeout=ASK_S_MAX, **self._where
            )
        except EvenkeelError as error:
            raise FaultNotInjected(f"expected {self.target} to be held at {stage.name}: {error}") from error
        self._is_held = bool(held)

    async def proof(self) -> str:
        if not self._is_held:
            raise FaultNotInjected(f"expected {self.target} to be held, found that nothing is")
        return f"held at {self._arguments.stage}"

    async def rollback(self) -> None:
        if not self._is_held:
            return
        try:
            await self._lab.operator.resume(
                reason=REASON, at_once=self._arguments.at_once, timeout=ASK_S_MAX, **self._where
            )
        except EvenkeelError as error:
            raise RollbackFailed(f"expected {self.target} to go on: {error}") from error
        self._is_held = False


class SettingsArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    settings: dict[str, Any]
    """Laid over those that hold, section by section."""


class BadConfiguration:
    """Settings are rolled out that hurt. The exchange is to notice, and to take them back; if not, we do."""

    def __init__(self, lab: Lab, arguments: SettingsArguments) -> None:
        self._lab = lab
        self._arguments = arguments
        self._version = 0
        self.target = "exchange"

    async def inject(self) -> None:
        toml = await _changed_settings(self._lab, self._arguments.settings)
        try:
            begun = await self._lab.operator.apply_settings(toml, reason=REASON, timeout=ASK_S_MAX)
        except EvenkeelError as error:
            raise FaultNotInjected(f"expected settings that are rolled out: {error}") from error
        self._version = begun.version

    async def proof(self) -> str:
        while True:
            newest = (await self._lab.operator.settings(timeout=ASK_S_MAX)).newest
            if newest.version == self._version and newest.steps_begun:
                first = ", ".join(newest.steps[0])
                changes = ", ".join(f"{change.name} {change.before} → {change.after}" for change in newest.changes)
                return f"version {newest.version} went to {first}: {changes}"
            await asyncio.sleep(POLL_S)

    async def rollback(self) -> None:
        if not self._version:
            return
        try:
            status = await self._lab.operator.settings(timeout=ASK_S_MAX)
            is_ours = status.newest.version == self._version
            if is_ours and status.newest.state in (RolloutState.ROLLING, RolloutState.APPLIED):
                await self._lab.operator.revert_settings(reason=REASON, force=True, timeout=ASK_S_MAX)
        except EvenkeelError as error:
            raise RollbackFailed(f"expected the settings of before: {error}") from error
        self._version = 0


class SlowArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    factor: Annotated[float, Meta(gt=1.0, le=100.0)]
    """How many times as long each command takes."""


class SlowMachine:
    """Shards with a declared capacity take several times as long for each command: all of them, by their settings."""

    def __init__(self, lab: Lab, target: str, arguments: SlowArguments) -> None:
        self._lab = lab
        self._factor = arguments.factor
        self._before_us = 0
        self._now_us = 0
        self.target = target

    async def inject(self) -> None:
        holding = tomllib.loads((await self._lab.operator.settings(timeout=ASK_S_MAX)).applied.toml)
        self._before_us = int(holding.get("service_time_us", 0))
        if not self._before_us:
            raise FaultNotInjected("expected an exchange with a declared capacity (capacity_per_s), found none")
        self._now_us = round(self._before_us * self._factor)
        await self._apply(self._now_us)

    async def _apply(self, service_time_us: int) -> None:
        toml = await _changed_settings(self._lab, {"service_time_us": service_time_us})
        await self._lab.operator.apply_settings(toml, reason=REASON, force=True, timeout=ASK_S_MAX)

    async def proof(self) -> str:
        holding = tomllib.loads((await self._lab.operator.settings(timeout=ASK_S_MAX)).applied.toml)
        if holding["service_time_us"] != self._now_us:
            raise FaultNotInjected(f"expected {self._now_us} µs a command, found {holding['service_time_us']}")
        return f"{self._now_us:,} µs a command rather than {self._before_us:,}"

    async def rollback(self) -> None:
        if not self._now_us:
            return
        try:
            await self._apply(self._before_us)
        except EvenkeelError as error:
            raise RollbackFailed(f"expected {self._before_us} µs a command again: {error}") from error
        self._now_us = 0


async def _changed_settings(lab: Lab, changes: dict[str, Any]) -> str:
    """Return the settings that hold, as TOML, with changes laid over them."""
    values = tomllib.loads((await lab.operator.settings(timeout=ASK_S_MAX)).applied.toml)
    _lay_over(values, changes)
    return msgspec.toml.encode(values).decode()


def _lay_over(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _lay_over(values[name], value)
        else:
            values[name] = value


def planned_restart(lab: Lab, wish: Wish, arguments: RestartArguments) -> PlannedRestart:
    return PlannedRestart(lab, wish.target, arguments)


def hold_stage(lab: Lab, wish: Wish, arguments: HoldArguments) -> HoldStage:
    return HoldStage(lab, wish.target, arguments)


def bad_configuration(lab: Lab, wish: Wish, arguments: SettingsArguments) -> BadConfiguration:
    return BadConfiguration(lab, arguments)


def slow_machine(lab: Lab, wish: Wish, arguments: SlowArguments) -> SlowMachine:
    return SlowMachine(lab, wish.target, arguments)
