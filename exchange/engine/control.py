"""The control machine: what the supervisor must remember, as a deterministic function of its commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from exchange.engine.instrument import Instrument, InstrumentInvalid
from exchange.engine.settings_history import NoteRollout, ProposeSettings, SettingsHistory
from exchange.engine.words import RejectReason, Stage


class TakeIncarnation(NamedTuple):
    """Number the next start of an actor. Numbers are never used twice in the life of a cluster."""

    actor: str


class PlaceInstrument(NamedTuple):
    """Give an instrument to a shard. A repeat for the same instrument changes nothing."""

    instrument: Instrument
    shard: str


class HoldStage(NamedTuple):
    """Keep a shard, or one `instrument` of it, at a stage, whatever happens to it, until it is told `OPEN`."""

    shard: str
    stage: int
    orders_per_s: int
    reason: str
    instrument: str = ""


class NoteBreak(NamedTuple):
    """Remember a break that the auditor found, and keep the shards involved at `CANCEL_ONLY`, once for each `key`.

    One that is held at `HALTED` stays there.
    """

    key: str
    shards: tuple[str, ...]
    reason: str


class Park(NamedTuple):
    """Start a component no more, for this reason; without a reason, again."""

    component: str
    reason: str


class Promote(NamedTuple):
    """Make a machine's standby of this incarnation its primary. Another one than the last that was started is not."""

    machine: str
    incarnation: int


class DrainNode(NamedTuple):
    """Start nothing on the node of this name any more, or again."""

    node: str
    is_drained: bool


class MaintenanceStep(NamedTuple):
    """One step of planned maintenance. The supervisor gives the numbers their meaning."""

    action: int
    component: str
    state: int
    begin_ns: int = 0
    end_ns: int = 0
    detail: str = ""


class NoteMaintenance(NamedTuple):
    """Remember how far planned maintenance has come: the one that is under way, else the last one."""

    kind: int
    node: str
    machine: str
    state: int
    steps: tuple[MaintenanceStep, ...]
    begin_ns: int
    end_ns: int = 0
    detail: str = ""


ControlCommand = (
    TakeIncarnation
    | PlaceInstrument
    | HoldStage
    | NoteBreak
    | Promote
    | DrainNode
    | NoteMaintenance
    | ProposeSettings
    | NoteRollout
    | Park
)
BREAKS_KEPT = 1_000


class ControlResult(NamedTuple):
    """`incarnation` is the new number, `previous` the actor's one before (0: none). `duplicate`: it was done before.

    `version`: of the settings, 0 if there is no new one.
    """

    sequence: int
    reject_reason: int = 0
    incarnation: int = 0
    previous: int = 0
    shard: str = ""
    duplicate: bool = False
    version: int = 0


def standby_of(machine: str) -> str:
    """Return the name under which the standby of a machine is started."""
    return f"{machine}-standby"


def _as_rows(note: NoteMaintenance) -> NoteMaintenance:
    """Return a note whose steps are such, as they may come from the journal as plain rows."""
    return note._replace(steps=tuple(MaintenanceStep(*step) for step in note.steps))


class ControlApplied(NamedTuple):
    results: list[ControlResult]
    events: list[Any]


class Control:
    """Which shard has which instrument, which incarnation of each actor was the last, which breaks are known, which
    nodes are drained and which components parked, how far maintenance has come, and the versions of the settings.
    """

    VERSION = 6

    def __init__(self) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.incarnation = 0
        self.incarnations: dict[str, int] = {}
        self.instruments: dict[str, tuple[Instrument, str]] = {}
        self.held: dict[str, HoldStage] = {}
        """By shard, and by instrument for those that are held by themselves."""
        self.breaks: dict[str, None] = {}
        self.drained: dict[str, None] = {}
        self.parked: dict[str, str] = {}
        """Components that are not started, and why."""
        self.maintenance: NoteMaintenance | None = None
        self.settings = SettingsHistory()

    def apply(self, time_ns: int, batch: Sequence[ControlCommand]) -> ControlApplied:
        """Apply commands in order at one time (ns since the epoch)."""
        self.time_ns = max(self.time_ns, time_ns)
        results = []
        for command in batch:
            self.sequence += 1
            if isinstance(command, TakeIncarnation):
                results.append(self._take_incarnation(command))
            elif isinstance(command, PlaceInstrument):
                results.append(self._place_instrument(command))
            elif isinstance(command, NoteBreak):
                results.append(self._note_break(command))
            elif isinstance(command, Promote):
                results.append(self._promote(command))
            elif isinstance(command, DrainNode):
                results.append(self._drain_node(command))
            elif isinstance(command, NoteMaintenance):
                self.maintenance = _as_rows(command)
                results.append(ControlResult(self.sequence))
            elif isinstance(command, ProposeSettings):
                version = self.settings.propose(self.time_ns, command)
                results.append(ControlResult(self.sequence, version=version))
            elif isinstance(command, NoteRollout):
                is_new = self.settings.note(self.time_ns, command)
                results.append(ControlResult(self.sequence, duplicate=not is_new))
            elif isinstance(command, Park):
                results.append(self._park(command))
            else:
                name = command.instrument or command.shard
                before = self.held.pop(name, None)
                if command.stage != Stage.OPEN:
                    self.held[name] = command
                results.append(ControlResult(self.sequence, shard=command.shard, duplicate=before == command))
        return ControlApplied(results, [])

    def next_timer_ns(self) -> int | None:
        """The control machine has no timers yet."""
        return None

    def _take_incarnation(self, command: TakeIncarnation) -> ControlResult:
        previous = self.incarnations.get(command.actor, 0)
        self.incarnation += 1
        self.incarnations[command.actor] = self.incarnation
        return ControlResult(self.sequence, incarnation=self.incarnation, previous=previous)

    def _promote(self, command: Promote) -> ControlResult:
        standby = standby_of(command.machine)
        previous = self.incarnations.get(command.machine, 0)
        if self.incarnations.get(standby, 0) != command.incarnation:
            return ControlResult(self.sequence, incarnation=previous, duplicate=True)
        self.incarnations[command.machine] = command.incarnation
        self.incarnations[standby] = 0
        return ControlResult(self.sequence, incarnation=command.incarnation, previous=previous)

    def _park(self, command: Park) -> ControlResult:
        before = self.parked.pop(command.component, "")
        if command.reason:
            self.parked[command.component] = command.reason
        return ControlResult(self.sequence, duplicate=before == command.reason)

    def _drain_node(self, command: DrainNode) -> ControlResult:
        was_drained = command.node in self.drained
        if command.is_drained:
            self.drained[command.node] = None
        else:
            self.drained.pop(command.node, None)
        return ControlResult(self.sequence, duplicate=was_drained == command.is_drained)

    def _place_instrument(self, command: PlaceInstrument) -> ControlResult:
        instrument = command.instrument
        known = self.instruments.get(instrument.symbol)
        if known is not None:
            same = known[0] == instrument
            reason = RejectReason.NONE if same else RejectReason.INSTRUMENT_EXISTS
            return ControlResult(self.sequence, reject_reason=int(reason), shard=known[1])
        try:
            instrument.check()
        except InstrumentInvalid:
            return ControlResult(self.sequence, reject_reason=int(RejectReason.INSTRUMENT_INVALID))
        self.instruments[instrument.symbol] = instrument, command.shard
        return ControlResult(self.sequence, shard=command.shard)

    def _note_break(self, command: NoteBreak) -> ControlResult:
        if command.key in self.breaks:
            return ControlResult(self.sequence, duplicate=True)
        self.breaks[command.key] = None
        if len(self.breaks) > BREAKS_KEPT:
            del self.breaks[next(iter(self.breaks))]
        for shard in command.shards:
            hold = self.held.get(shard)
            if hold is None or hold.stage not in (Stage.CANCEL_ONLY, Stage.HALTED):
                self.held[shard] = HoldStage(shard, int(Stage.CANCEL_ONLY), 0, command.reason)
        return ControlResult(self.sequence)

    def state(self) -> tuple[Any, ...]:
        """Return the whole state as nested tuples."""
        instruments = [(tuple(instrument), shard) for instrument, shard in self.instruments.values()]
        held = [tuple(hold) for hold in self.held.values()]
        numbers = self.incarnation, list(self.incarnations.items())
        maintenance = None
        if self.maintenance is not None:
            steps = tuple(tuple(step) for step in self.maintenance.steps)
            maintenance = tuple(self.maintenance._replace(steps=steps))  # type: ignore[arg-type]  # plain for the journal
        done = list(self.breaks), list(self.drained), maintenance, list(self.parked.items())
        return self.sequence, self.time_ns, *numbers, instruments, held, *done, self.settings.state()

    @classmethod
    def restore(cls, state: Sequence[Any]) -> Control:
        """Return a machine in a state that `state` gave."""
        control = cls()
        control.sequence, control.time_ns, control.incarnation, incarnations, instruments, held, *rest = state
        breaks, drained, maintenance, parked, settings = rest
        control.incarnations = dict(incarnations)
        for fields, shard in instruments:
            instrument = Instrument(*fields)
            control.instruments[instrument.symbol] = instrument, shard
        holds = [HoldStage(*row) for row in held]
        control.held = {hold.instrument or hold.shard: hold for hold in holds}
        control.parked = dict(parked)
        control.breaks = dict.fromkeys(breaks)
        control.drained = dict.fromkeys(drained)
        if maintenance is not None:
            control.maintenance = _as_rows(NoteMaintenance(*maintenance))
        control.settings = SettingsHistory.restore(settings)
        return control
