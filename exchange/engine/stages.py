"""What a shard lets through: all of it, and instruments that are held by themselves. What passes, passes both (I9)."""

from __future__ import annotations

from typing import Final, NamedTuple

from exchange.engine.commands import SetStage
from exchange.engine.rate import OrderRate
from exchange.engine.rules import STAGE_REFUSES, STAGE_REFUSES_AMENDS, STAGE_REFUSES_CANCELS
from exchange.engine.words import RejectReason, Stage

_OPEN: Final = int(Stage.OPEN)
_LIMITED: Final = int(Stage.LIMITED)
_POST_ONLY: Final = int(Stage.POST_ONLY)
_LETS_ORDERS: Final = (_LIMITED, _OPEN)
_STRICTEST_FIRST: Final = tuple(
    map(int, (Stage.HALTED, Stage.REPLAYING, Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.OPEN))
)
WHOLE: Final = ""
"""In the place of an instrument: all of the shard."""


class StageRow(NamedTuple):
    """A stage as it is told: `instrument` "" is all of the shard.

    It is in this stage since `since_ns`, whatever its rate was; the next one is expected at `next_stage_time_ns`, 0 if
    nobody knows.
    """

    instrument: str
    stage: int
    orders_per_s: int
    reason: str
    since_ns: int
    next_stage_time_ns: int


class Gate:
    """One stage with its rate."""

    __slots__ = ("rate", "row")

    def __init__(self, row: StageRow, rate: OrderRate) -> None:
        self.row = row
        self.rate = rate


class Stages:
    """The gate of the whole shard, and those of instruments that are not `OPEN`.

    `is_open`: neither keeps anything back, so that nobody need ask.
    """

    __slots__ = ("by_instrument", "is_open", "whole")

    def __init__(self) -> None:
        self.whole = Gate(StageRow(WHOLE, int(Stage.REPLAYING), 0, "", 0, 0), OrderRate())
        self.by_instrument: dict[str, Gate] = {}
        self.is_open = False

    def set(self, command: SetStage, time_ns: int) -> StageRow:
        """Move the shard or an instrument to a stage. Another rate within `LIMITED` keeps what was saved up."""
        stage, orders_per_s, reason, instrument, next_stage_time_ns = command
        before = self.by_instrument.get(instrument) if instrument else self.whole
        since_ns, rate = time_ns, OrderRate(orders_per_s, 0, time_ns)
        if before is not None and before.row.stage == stage:
            since_ns = before.row.since_ns
            if stage == _LIMITED:
                before.rate.refill(time_ns)
                rate = OrderRate(orders_per_s, before.rate.allowance, time_ns)
        row = StageRow(instrument, int(stage), orders_per_s, reason, since_ns, next_stage_time_ns)
        self.put(Gate(row, rate))
        return row

    def put(self, gate: Gate) -> None:
        """Have this gate in the place of the one before."""
        instrument = gate.row.instrument
        if not instrument:
            self.whole = gate
        elif gate.row.stage == _OPEN:
            self.by_instrument.pop(instrument, None)
        else:
            self.by_instrument[instrument] = gate
        self.is_open = self.whole.row.stage == _OPEN and not self.by_instrument

    def rows(self) -> list[StageRow]:
        """Return all stages, the whole shard's first."""
        return [self.whole.row, *(gate.row for gate in self.by_instrument.values())]

    def refuses_place(self, instrument: str, post_only: bool, time_ns: int) -> int:
        """Return why an order is not let through, 0 if it is; then it has taken its part of the rate."""
        stages = self._stages_of(instrument)
        for stage in stages:
            if stage not in _LETS_ORDERS and not (post_only and stage == _POST_ONLY):
                return STAGE_REFUSES[stage]
        return self._refuses_rate(instrument, stages, time_ns)

    def refuses_amend(self, instrument: str) -> int:
        """Return why no amend is let through, 0 if those are that `refuses_change` lets through."""
        for stage in self._stages_of(instrument):
            if stage in STAGE_REFUSES_AMENDS:
                return STAGE_REFUSES_AMENDS[stage]
        return 0

    def refuses_change(self, instrument: str, takes: bool, keeps_place: bool, time_ns: int) -> int:
        """Return why an amend is not let through that would trade (`takes`), or leave its order's place."""
        stages = self._stages_of(instrument)
        if takes and _POST_ONLY in stages:
            return RejectReason.STAGE_POST_ONLY
        return 0 if keeps_place else self._refuses_rate(instrument, stages, time_ns)

    def refuses_cancel(self, instrument: str) -> int:
        """Return why a cancel is not let through, 0 if it is."""
        for stage in self._stages_of(instrument):
            if stage in STAGE_REFUSES_CANCELS:
                return STAGE_REFUSES_CANCELS[stage]
        return 0

    def _stages_of(self, instrument: str) -> tuple[int, int]:
        """Return the two stages that hold for an instrument, the stricter first: its reason is the one that is told."""
        own = self.by_instrument.get(instrument)
        whole = self.whole.row.stage
        stage = _OPEN if own is None else own.row.stage
        return (stage, whole) if is_stricter(stage, whole) else (whole, stage)

    def _refuses_rate(self, instrument: str, stages: tuple[int, int], time_ns: int) -> int:
        """Take one order's part of each rate that holds, or of none."""
        if _LIMITED not in stages:
            return 0
        own = self.by_instrument.get(instrument)
        gates = (self.whole,) if own is None else (self.whole, own)
        rates = [gate.rate for gate in gates if gate.row.stage == _LIMITED]
        # Each is asked, so that each is reckoned up to now.
        rooms = [rate.refill(time_ns) for rate in rates]
        if not all(rooms):
            return RejectReason.STAGE_LIMITED
        for rate in rates:
            rate.spend()
        return 0


def is_stricter(stage: int, other: int) -> bool:
    """Whether a stage lets through less than another."""
    return _STRICTEST_FIRST.index(stage) < _STRICTEST_FIRST.index(other)
