"""The settings as an operator changes them: checked, rolled out in steps that are watched, taken back on a breach.

Which version holds where is in the supervisor's journal. A supervisor that becomes active in the middle of a rollout
takes it back: what it is to be compared with went with the one before, and that may have ended because of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from exchange.engine.settings_history import (
    NoteRollout,
    ProposeSettings,
    RolloutState,
    SettingsHistory,
    SettingsVersion,
)
from exchange.settings import Settings
from exchange.settings_text import changes_between, format_settings, parse_settings
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import SUPERVISOR, Component, ComponentState
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.maintenance_plan import State
from exchange.supervisor.rollout import Action, Rollout, Verdict, View, steps_of
from exchange.supervisor.service_levels import Samples, losses_of, read
from exchange.supervisor.settings import SettingsInForce, SettingsPublisher

_log = structlog.get_logger()


class SettingsRefused(Exception):
    """Settings are not rolled out; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Configuration:
    """Runs one rollout at a time, a look at each tick."""

    def __init__(
        self,
        first: Settings,
        components: Mapping[str, Component],
        commands: Commands,
        events: EventLog,
        in_force: SettingsInForce,
        publisher: SettingsPublisher,
        is_open: Callable[[Component], bool],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._first = first
        self._components = components
        self._commands = commands
        self._events = events
        self._in_force = in_force
        self._publisher = publisher
        self._is_open = is_open
        self._monotonic_s = monotonic_s
        self._samples = Samples(0.0)
        self._rollout: Rollout | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def history(self) -> SettingsHistory:
        """The versions, as journaled."""
        return self._commands.machine.settings

    async def begin(self) -> None:
        """Journal what the exchange starts with for the first time, or end what an earlier supervisor has begun."""
        history = self.history
        if not history.newest:
            await self._commands.decide(ProposeSettings(format_settings(self._first), "", "first start", ()))
        if history.rolling:
            await self._end(RolloutState.REVERTED, "the supervisor was replaced while it was watched")
        texts = [version.text for version in history.versions.values()]
        if self._first != Settings() and format_settings(self._first) not in texts:
            what = f"version {history.applied} holds, and not what this start was given"
            self._say(f"{what}: `exchange config apply` changes it")
        wrong = self._in_force.wrong(history.applied)
        if wrong:
            self._say(f"version {history.applied}: this build takes the default for {wrong}")

    def watch(self, now_s: float) -> None:
        """Look at how everything does, and begin what that asks for."""
        watch_s = self._in_force.of("").rollout.watch_ms / 1_000
        if watch_s != self._samples.keep_s:
            self._samples = Samples(watch_s)
        self._samples.add(now_s, read(self._components.values()))
        if self._task is not None:
            if not self._task.done():
                return
            if self._task.exception() is not None:
                # The next tick decides again.
                _log.error("rollout.not_journaled", error=repr(self._task.exception()))
            self._task = None
        if self._rollout is None:
            return
        verdict = self._rollout.see(now_s, self._view())
        if verdict.action != Action.WAIT:
            self._task = asyncio.create_task(self._follow(verdict))

    async def check(self, toml: str) -> tuple[Settings, tuple[tuple[str, ...], ...]]:
        """Return settings, and the steps in which they would be rolled out. Raises `SettingsInvalid`."""
        settings = parse_settings(toml)
        parts = self._components.values()
        gateways = [c.name for c in parts if c.is_gateway and not c.is_spare]
        machines = [c.name for c in parts if c.machine == c.name]
        return settings, steps_of(self._in_force.of(""), settings, gateways, machines)

    async def apply(self, toml: str, who: str, reason: str, *, force: bool = False) -> SettingsVersion:
        """Begin to roll out; with `force` they hold at once, unwatched. Raises `SettingsInvalid`, `SettingsRefused`."""
        settings, steps = await self.check(toml)
        history = self.history
        before = self._in_force.of("")
        if history.rolling:
            message = f"expected no rollout under way, found that of version {history.rolling}: `exchange config show`"
            raise SettingsRefused(
                "ROLLOUT_UNDER_WAY", f"{message} tells how far it is, `exchange config revert` ends it"
            )
        maintenance = self._commands.machine.maintenance
        if maintenance is not None and maintenance.state == State.RUNNING and not force:
            message = "expected no maintenance under way, found some: `exchange maintenance show` tells how far it is"
            raise SettingsRefused("MAINTENANCE_UNDER_WAY", message)
        changes = changes_between(before, settings)
        if not changes:
            raise SettingsRefused(
                "SETTINGS_UNCHANGED", f"version {history.applied} is the same: there is nothing to do"
            )
        text = format_settings(settings)
        version = (await self._commands.decide(ProposeSettings(text, who, reason, () if force else steps))).version
        if not version:
            raise SettingsRefused("ROLLOUT_UNDER_WAY", "another rollout was begun at the same moment")
        told = ", ".join(f"{change.name} {change.before} → {change.after}" for change in changes)
        self._say(f"version {version} by {who or 'the exchange'}: {reason}: {told}")
        if force or not steps:
            self._say(
                f"version {version} holds at once, {'as forced' if force else 'as it concerns the supervisor alone'}"
            )
        else:
            losses = losses_of(self._components.values())
            self._rollout = Rollout(self._monotonic_s(), steps, before.rollout, self._samples, losses)
            self._say_step(version, steps, 0)
        return history.versions[version]

    async def revert(self, version: int, who: str, reason: str, *, force: bool = False) -> SettingsVersion:
        """Take back the rollout under way, or roll out an earlier version (0: the last that held before this one)."""
        history = self.history
        if history.rolling and not version:
            rolling = history.rolling
            await self._end(RolloutState.REVERTED, f"by {who}: {reason}")
            return history.versions[rolling]
        if not version:
            held = [v.version for v in history.versions.values() if v.state == RolloutState.APPLIED]
            version = max((number for number in held if number < history.applied), default=0)
            if not version:
                message = f"expected a version that held before {history.applied}, found none"
                raise SettingsRefused("NOTHING_TO_REVERT", message)
        if version not in history.versions:
            message = f"expected one of the versions that `exchange config history` lists, was {version}"
            raise SettingsRefused("VERSION_UNKNOWN", message)
        text = history.versions[version].text
        return await self.apply(text, who, f"back to version {version}: {reason}", force=force)

    async def stop(self) -> None:
        """Leave it where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---------------------------------------------------------------- one rollout

    def _view(self) -> View:
        parts = self._components.values()
        return View(
            read(parts),
            losses_of(parts),
            away={c.serves for c in parts if c.state != ComponentState.UP and not c.is_standby and not c.is_spare},
            untold={c.serves for c in parts if c.is_up and not self._publisher.has_heard(c)},
            closed={c.name for c in parts if c.is_shard and not self._is_open(c)},
        )

    async def _follow(self, verdict: Verdict) -> None:
        history, rollout = self.history, self._rollout
        if not history.rolling or rollout is None:
            # An operator was sooner.
            return
        version = history.versions[history.rolling]
        if verdict.action == Action.NEXT:
            step = version.step + 1
            noted = await self._commands.decide(NoteRollout(version.version, int(RolloutState.ROLLING), step, ""))
            rollout.begin(step, self._monotonic_s(), losses_of(self._components.values()))
            if not noted.duplicate:
                self._say_step(version.version, version.steps, step)
        elif verdict.action == Action.APPLY:
            await self._end(RolloutState.APPLIED, "")
        else:
            await self._end(RolloutState.REVERTED, verdict.detail)

    async def _end(self, state: RolloutState, detail: str) -> None:
        history = self.history
        version = history.versions[history.rolling]
        ended = await self._commands.decide(NoteRollout(version.version, int(state), version.step, detail))
        self._rollout = None
        if not ended.duplicate:
            what = "applied" if state == RolloutState.APPLIED else "taken back"
            self._say(f"version {version.version} {what}" + (f": {detail}" if detail else ""))

    def _say_step(self, version: int, steps: tuple[tuple[str, ...], ...], step: int) -> None:
        new = [name for name in steps[step] if not step or name not in steps[step - 1]]
        self._say(f"version {version}: step {step + 1}/{len(steps)}, to {', '.join(new)}")

    def _say(self, detail: str) -> None:
        self._events.note("rollout", SUPERVISOR, detail)
