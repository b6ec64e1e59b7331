"""I12: whether what the status said of a shard was so within 5 s, as clients found it and as faults made it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from chaos.load.client_log import ACKNOWLEDGED
from chaos.run.answers import Answer
from chaos.run.levels import REJECTED_NOW, Seen
from chaos.run.record import Check, Event

WITHIN_S = 5.0
REFUSALS_MIN = 10
"""Of fewer orders in a time it cannot be said that none gets through."""
CLOSED = ("REPLAYING", "CANCEL_ONLY", "HALTED")
GONE = ("kill-process", "torn-journal")
UNTOLD = ("supervisor", "status")
"""The status is the supervisor's: nobody says that it is away, nor the service that tells the public."""


class Claim(NamedTuple):
    """What the status said of a shard from one time to another: whether it takes orders."""

    begin_s: float
    end_s: float
    is_open: bool
    said: str


def claims_of(events: Sequence[Event], shard: str, end_s: float) -> Iterator[Claim]:
    """Yield what was said of a shard, in order of time."""
    state, stage, since_s = "UP", "", 0.0
    for event in events:
        if event.name != shard or event.kind not in ("stage", "component"):
            continue
        before = state, stage
        state, stage = (event.what, stage) if event.kind == "component" else (state, event.what)
        if stage and before != (state, stage):
            yield Claim(since_s, event.t, _is_open(*before), " ".join(before))
            since_s = event.t
    yield Claim(since_s, end_s, _is_open(state, stage), f"{state} {stage}")


def _is_open(state: str, stage: str) -> bool:
    return state == "UP" and stage not in CLOSED


def check_status(seen: Seen) -> Check:
    """I12: nothing was said to take orders that took none for longer, nor the other way, nor to be up when killed."""
    end_s = seen.samples[-1].t + 1.0 if seen.samples else 0.0
    placed = orders_by(seen, lambda answer: seen.markets[answer.market])
    looked_at = 0
    lies: list[str] = []
    for shard in sorted(set(seen.markets.values())):
        for claim in claims_of(seen.events, shard, end_s):
            if claim.end_s - claim.begin_s > WITHIN_S:
                looked_at += 1
                lies += lies_of(shard, claim, placed[shard])
    for kill in seen.events:
        if kill.kind == "proof" and kill.what == "took effect" and kill.name in GONE and kill.target not in UNTOLD:
            looked_at += 1
            lies += _unnoticed(kill, seen.events)
    return Check(
        name="I12",
        held=looked_at > 0 and not lies,
        wanted=f"what the status says is true within {WITHIN_S:g} s, both ways",
        found=f"{len(lies)} of {looked_at} things said were not so" if looked_at else "nothing to look at",
        looked_at=looked_at,
        evidence=tuple(lies[:5]),
    )


def orders_by(seen: Seen, key: Callable[[Answer], str]) -> Mapping[str, list[Answer]]:
    """Return the answers to new orders, by what `key` makes of each."""
    placed: Mapping[str, list[Answer]] = defaultdict(list)
    for answer in seen.answers:
        if answer.kind == "place" and not answer.is_duplicate:
            placed[key(answer)].append(answer)
    return placed


def lies_of(name: str, claim: Claim, placed: Sequence[Answer]) -> Iterator[str]:
    """Yield what of a claim was not so, by what clients found where it says something of: those who placed orders."""
    span = f"{name} was said to be {claim.said.strip()} from {claim.begin_s:.1f} to {claim.end_s:.1f} s"
    from_s = claim.begin_s + WITHIN_S
    inside = [a for a in placed if from_s <= a.due_s and a.done_s <= claim.end_s]
    if not claim.is_open:
        # The shard may have opened up to 5 s before that was said.
        told_late_s = claim.end_s - WITHIN_S
        taken = [answer for answer in inside if answer.outcome == ACKNOWLEDGED and answer.done_s <= told_late_s]
        if taken:
            yield f"{span}, and took {len(taken)} orders, first at {taken[0].done_s:.1f} s ({taken[0].line})"
        return
    refused: list[Answer] = []
    for answer in inside:
        if answer.is_unknown:
            continue  # too much to do, as likely as away
        if answer.reason not in REJECTED_NOW:
            refused = []
            continue
        refused.append(answer)
        lasted_s = answer.done_s - refused[0].due_s
        if lasted_s > WITHIN_S and len(refused) >= REFUSALS_MIN:
            yield f"{span}, and took no order for {lasted_s:.1f} s from {refused[0].due_s:.1f} s on ({refused[0].line})"
            return


def _unnoticed(kill: Event, events: Sequence[Event]) -> Iterator[str]:
    noticed = any(
        event.kind in ("component", "stage")
        and event.name.removesuffix("-standby") == kill.target.removesuffix("-standby")
        and kill.t - 1.0 <= event.t <= kill.t + WITHIN_S
        for event in events
    )
    if not noticed:
        yield f"{kill.target} was killed at {kill.t:.1f} s ({kill.detail}), untold for {WITHIN_S:g} s"
