"""What must really have happened in a run for it to show anything: each name is a question to what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from chaos.run.levels import Seen
from chaos.run.record import Check, Event


class SupervisorEvent(NamedTuple):
    """A line of what the supervisors say happened."""

    kind: str
    component: str
    detail: str


class Witness(NamedTuple):
    """All that a question may look at."""

    seen: Seen
    told: Sequence[SupervisorEvent]


class Sometimes(NamedTuple):
    """A name, what it means, and how often it was seen."""

    name: str
    meaning: str
    count: Callable[[Witness], int]


def _refused(witness: Witness) -> int:
    return round(sum(sample.refused_per_s for sample in witness.seen.samples))


def _retried(witness: Witness) -> int:
    return sum(round(max(s.attempts_per_s - s.offered_per_s, 0.0)) for s in witness.seen.samples)


def _events(kind: str, what: str) -> Callable[[Witness], int]:
    return lambda witness: sum(e.kind == kind and e.what == what for e in witness.seen.events)


def _told(*kinds: str) -> Callable[[Witness], int]:
    return lambda witness: sum(event.kind in kinds for event in witness.told)


def _stepped_back(witness: Witness) -> int:
    order = ("REPLAYING", "CANCEL_ONLY", "POST_ONLY", "LIMITED", "OPEN")
    before: dict[str, str] = {}
    count = 0
    for event in witness.seen.events:
        if event.kind == "stage" and event.what in order:
            was = before.get(event.name)
            count += was is not None and order.index(event.what) < order.index(was) and "overload" in event.detail
            before[event.name] = event.what
    return count


def _unknown(witness: Witness) -> int:
    return sum(answer.is_unknown for answer in witness.seen.answers)


def _cancelled_in_cancel_only(witness: Witness) -> int:
    spans = _spans_of(witness.seen.events, "CANCEL_ONLY")
    return sum(
        answer.kind == "cancel" and answer.is_definite and any(begin <= answer.done_s <= end for begin, end in spans)
        for answer in witness.seen.answers
    )


def _taken_back(witness: Witness) -> int:
    """Count rollouts that were taken back, and not by a person, who is named."""
    rollouts = [event.detail for event in witness.told if event.kind == "rollout"]
    return sum("taken back" in detail and "taken back: by " not in detail for detail in rollouts)


def _spans_of(events: Sequence[Event], stage: str) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    since: dict[str, float] = {}
    for event in events:
        if event.kind == "stage":
            if event.name in since:
                spans.append((since.pop(event.name), event.t))
            if event.what == stage:
                since[event.name] = event.t
    return [*spans, *((begin, float("inf")) for begin in since.values())]


SOMETIMES = {
    one.name: one
    for one in (
        Sometimes("shed", "requests were refused for lack of room, or by a stage", _refused),
        Sometimes("retried", "clients sent again", _retried),
        Sometimes("unknown", "a client was not told what became of its command", _unknown),
        Sometimes("fenced", "a writer was fenced by a higher epoch", _told("fenced")),
        Sometimes("took-over", "a standby took over", _told("taking_over")),
        Sometimes("lost", "a component was lost", _told("lost")),
        Sometimes("regressed", "a shard went back a stage, since it was overloaded", _stepped_back),
        Sometimes("cancel-only", "a shard let cancels through alone", _events("stage", "CANCEL_ONLY")),
        Sometimes("cancelled-early", "a cancel was done in CANCEL_ONLY", _cancelled_in_cancel_only),
        Sometimes("config-reverted", "settings were taken back by themselves", _taken_back),
    )
}


def check_sometimes(names: Sequence[str], witness: Witness) -> list[Check]:
    """Return a check for each name: that it has happened at least once."""
    checks = []
    for name in names:
        count = SOMETIMES[name].count(witness)
        checks.append(
            Check(
                name=f"sometimes:{name}",
                held=count > 0,
                wanted=SOMETIMES[name].meaning,
                found=f"{count:,} times",
                looked_at=len(witness.seen.samples),
            )
        )
    return checks
