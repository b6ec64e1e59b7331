"""When what is done: an experiment's phases and faults as one list, by time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from chaos.experiment.model import Experiment, FaultStep, Phase


class Act(IntEnum):
    """At the same time they are done in this order: what ends makes room for what begins."""

    ROLL_BACK = 0
    BEGIN_PHASE = 1
    INJECT = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to do, in s since the load began. `number` is of the fault, so that the same one is taken back."""

    at_s: float
    act: Act
    phase: Phase
    number: int = 0
    step: FaultStep | None = None


def timeline_of(experiment: Experiment) -> list[Entry]:
    """Return all that is done, in order. A fault without `for_s` is taken back when all is over, so not here."""
    entries: list[Entry] = []
    begin_s = 0.0
    number = 0
    for phase in experiment.phases:
        entries.append(Entry(begin_s, Act.BEGIN_PHASE, phase))
        for step in phase.faults:
            at_s = begin_s + step.at_s
            entries.append(Entry(at_s, Act.INJECT, phase, number, step))
            if step.for_s:
                entries.append(Entry(at_s + step.for_s, Act.ROLL_BACK, phase, number, step))
            number += 1
        begin_s += phase.duration_s
    return sorted(entries, key=lambda entry: (entry.at_s, entry.act, entry.number))
