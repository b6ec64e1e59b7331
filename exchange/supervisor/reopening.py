"""Has each shard in the stage in which it should be: held by a person or the auditor, else as its policy says.

A shard keeps its stage while nobody tells it another one. So what is decided here need not survive: a supervisor that
comes after goes on from the stages that it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from exchange.engine.commands import SetStage
from exchange.engine.control import HoldStage
from exchange.engine.stages import StageRow
from exchange.engine.words import Stage
from exchange.settings import Settings
from exchange.supervisor.commands import Commands
from exchange.supervisor.component import Component, ComponentState
from exchange.supervisor.event_log import EventLog
from exchange.supervisor.stages import Health, Move, Profile, StagePolicy

RETRY_S = 0.5
REASON_LENGTH_MAX = 200
_RECOVERING = (Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.OPEN)

_log = structlog.get_logger()


@dataclass(slots=True)
class _Watched:
    """A shard's policy, and what the shard is to be told of it."""

    policy: StagePolicy
    wanted: Move | None = None
    wanted_s: float = 0.0
    """Since when."""
    stage: Stage | None = None
    """The last one that the shard was told by its policy."""
    task: asyncio.Task[None] | None = None
    retry_s: float = 0.0
    seen_s: float = 0.0
    told_s: float = 0.0
    """Vitals from before this do not know yet what the shard was told."""


class Reopening:
    """`settings` are those of a shard, and may be others at each call."""

    def __init__(
        self,
        components: Mapping[str, Component],
        commands: Commands,
        events: EventLog,
        settings: Callable[[str], Settings],
        clock_ns: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._components = components
        self._commands = commands
        self._events = events
        self._settings = settings
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        self._watched: dict[str, _Watched] = {}

    def is_open(self, shard: Component) -> bool:
        """Whether a shard is open, or closed because somebody wants it so."""
        return shard.name in self._commands.machine.held or shard.vitals.get("stage") == Stage.OPEN

    def is_reopening(self, name: str) -> bool:
        """Whether a shard is on its way to `OPEN`, or was."""
        return self._watch(name).policy.stage != Stage.OPEN

    @property
    def all_open(self) -> bool:
        return all(map(self.is_open, (c for c in self._components.values() if c.is_shard)))

    # ---------------------------------------------------------------- beginning

    def first_stages(self, shard: Component) -> list[SetStage]:
        """Begin to reopen a shard that was started or took over; return what it is to be told with its instruments."""
        watched, now_s = self._watch(shard.name), self._monotonic_s()
        is_new = shard.vitals.get("is_new", False)
        if is_new or self._settings(shard.name).is_naive:
            # Nobody waits for one that never traded.
            move = watched.policy.open_at_once(now_s, "start")
        else:
            move = watched.policy.begin(now_s, _profile_of(shard))
        watched.wanted, watched.stage, watched.told_s = None, None, now_s
        held = self._commands.machine.held.get(shard.name)
        if held is None:
            self._note(shard, move)
        else:
            self._note_held(shard, held)
        return [_command_of(held) if held is not None else self._command(move), *self._held_instruments(shard.name)]

    def resume(self, shard: Component) -> list[SetStage]:
        """Go on with a shard that an earlier supervisor has left in some stage; return what it is to be told."""
        watched, now_s = self._watch(shard.name), self._monotonic_s()
        row = _rows_of(shard).get("")
        held = self._commands.machine.held.get(shard.name)
        if held is not None or row is None or row.stage not in _RECOVERING:
            return self.first_stages(shard)
        in_stage_s = max((self._clock_ns() - row.since_ns) / 1e9, 0.0)
        watched.policy.resume(now_s, _profile_of(shard), Stage(row.stage), in_stage_s, row.orders_per_s)
        watched.stage = Stage(row.stage)
        return self._held_instruments(shard.name)

    def _watch(self, name: str) -> _Watched:
        watched = self._watched.get(name)
        if watched is None:
            settings = self._settings(name)
            watched = self._watched[name] = _Watched(StagePolicy(settings.stages))
            if settings.service_time_us:
                watched.policy.capacity_per_s = 1e6 / settings.service_time_us
        watched.policy.settings = self._settings(name).stages
        return watched

    # ---------------------------------------------------------------- going on

    def watch(self, component: Component, now_s: float) -> None:
        """Feed the policy of a shard that is up, and begin to tell the shard what it does not know yet."""
        if not component.is_shard or component.state != ComponentState.UP:
            return
        watched = self._watch(component.name)
        if watched.task is not None:
            if not watched.task.done():
                return
            error = watched.task.exception()
            watched.task = None
            if error is not None:
                _log.warning("stages.not_told", name=component.name, error=repr(error))
                watched.retry_s = now_s + RETRY_S
        as_of_s = component.vitals.get("as_of_s", 0.0)
        is_held = component.name in self._commands.machine.held
        # What the shard was not told yet comes first: it skips no stage.
        if not is_held and watched.wanted is None and as_of_s != watched.seen_s:
            watched.seen_s = as_of_s
            watched.wanted = watched.policy.see(now_s, Health.of(component.vitals.get("load")))
            watched.wanted_s = now_s
        if now_s < watched.retry_s:
            return
        if watched.wanted is not None or (as_of_s > watched.told_s and self._differs(component)):
            watched.task = asyncio.create_task(self.tell(component.name))

    def _differs(self, shard: Component) -> bool:
        """Whether the shard is elsewhere than where it is held, or an instrument is held that should not be."""
        rows, held = _rows_of(shard), self._commands.machine.held
        wanted = [hold for hold in held.values() if hold.shard == shard.name]
        if any(not _is_at(rows.get(hold.instrument), hold) for hold in wanted):
            return True
        return any(instrument not in held for instrument in rows if instrument)

    async def tell(self, name: str) -> None:
        """Tell a shard the stages in which it is to be. Raises if it is away; then it is told when it is back."""
        watched, held = self._watch(name), self._commands.machine.held
        move, watched.wanted = watched.wanted, None
        shard = self._components[name]
        try:
            if move is not None and move.gives_up:
                _log.error("stages.gave_up", name=name, reason=move.reason)
                await self._commands.decide(HoldStage(name, int(move.stage), 0, move.reason[:REASON_LENGTH_MAX]))
            known = {instrument for instrument in _rows_of(shard) if instrument}
            stages = [SetStage(int(Stage.OPEN), instrument=i) for i in sorted(known - set(held))]
            stages += self._held_instruments(name)
            # Nothing is awaited from here to the place in the line of what is sent: who is held later is told later.
            if name in held:
                stages.insert(0, _command_of(held[name]))
            elif move is not None:
                stages.insert(0, self._command(move))
            await self._commands.send(name, *stages)
        except BaseException:
            if watched.wanted is None:
                watched.wanted = move
            raise
        watched.told_s = self._monotonic_s()
        if move is not None and (move.gives_up or name not in held):
            if watched.stage != move.stage:
                watched.policy.put_off(watched.told_s - watched.wanted_s)
            self._note(shard, move)
        if name in held:
            self._note_held(shard, held[name])

    def _note_held(self, shard: Component, hold: HoldStage) -> None:
        watched, stage = self._watched[shard.name], Stage(hold.stage)
        if watched.stage != stage:
            self._events.add("stage", shard, f"{stage.name}: {hold.reason}")
            watched.stage = stage

    def _note(self, shard: Component, move: Move) -> None:
        """Log a stage that is new, and the rate that it begins with."""
        watched = self._watched[shard.name]
        if watched.stage != move.stage or move.gives_up:
            rate = f" at {move.orders_per_s} orders/s" if move.stage == Stage.LIMITED else ""
            self._events.add("gave_up" if move.gives_up else "stage", shard, f"{move.stage.name}{rate}: {move.reason}")
        watched.stage = move.stage

    def _command(self, move: Move) -> SetStage:
        next_ns = self._clock_ns() + round(move.next_in_s * 1e9) if move.next_in_s else 0
        reason = move.reason[:REASON_LENGTH_MAX]
        return SetStage(int(move.stage), move.orders_per_s, reason, next_stage_time_ns=next_ns)

    def _held_instruments(self, shard: str) -> list[SetStage]:
        holds = self._commands.machine.held.values()
        return [_command_of(hold) for hold in holds if hold.shard == shard and hold.instrument]

    # ---------------------------------------------------------------- by hand

    def let_go(self, name: str, before: HoldStage, reason: str, *, at_once: bool) -> None:
        """Go on with a shard that is not held any more, from where it was held; `at_once`: open it."""
        watched, now_s = self._watch(name), self._monotonic_s()
        watched.wanted_s = now_s
        if at_once:
            watched.wanted = watched.policy.open_at_once(now_s, reason)
        elif before.stage in (Stage.POST_ONLY, Stage.LIMITED):
            watched.policy.begin(now_s, Profile.WARM)
            watched.policy.resume(now_s, Profile.WARM, Stage(before.stage), 0.0, before.orders_per_s)
            watched.wanted = watched.policy.current(now_s, reason)
        else:
            watched.wanted = watched.policy.begin(now_s, Profile.WARM)

    def skip(self, name: str, reason: str, *, at_once: bool) -> None:
        """Move a shard that reopens one stage up now, or open it."""
        watched, now_s = self._watch(name), self._monotonic_s()
        policy = watched.policy
        watched.wanted = policy.open_at_once(now_s, reason) if at_once else policy.skip(now_s, reason)
        watched.wanted_s = now_s

    def stop(self) -> None:
        """Tell nobody anything more."""
        for watched in self._watched.values():
            if watched.task is not None:
                watched.task.cancel()


def _profile_of(shard: Component) -> Profile:
    return Profile.WARM if shard.vitals.get("was_standby") else Profile.COLD


def _rows_of(shard: Component) -> dict[str, StageRow]:
    """Return a shard's stages by instrument, "" for the whole, as its vitals have them."""
    return {row[0]: StageRow(*row) for row in shard.vitals.get("stages", ())}


def _command_of(hold: HoldStage) -> SetStage:
    return SetStage(hold.stage, hold.orders_per_s, hold.reason, hold.instrument)


def _is_at(row: StageRow | None, hold: HoldStage) -> bool:
    return row is not None and row[1:4] == (hold.stage, hold.orders_per_s, hold.reason)
