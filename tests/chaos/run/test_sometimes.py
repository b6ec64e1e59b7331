"""What must really have happened is looked for in what was seen, and not taken for granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from chaos.load.client_log import ACKNOWLEDGED, UNKNOWN
from chaos.run.answers import Answer
from chaos.run.levels import Seen
from chaos.run.record import Event, Sample
from chaos.run.sometimes import SOMETIMES, SupervisorEvent, Witness, check_sometimes
from tests.chaos.run.fakes import sample_of

QUIET = [sample_of(t) for t in range(10)]


def stage(t: float, what: str, detail: str = "") -> Event:
    return Event(t=t, kind="stage", name="shard-0", what=what, detail=detail)


def answer(kind: str, done_s: float, outcome: int = ACKNOWLEDGED) -> Answer:
    return Answer(kind, "BTC-USDT", done_s - 0.01, done_s, outcome, 0, False, "client.log:1")


def witness(
    samples: Sequence[Sample] = QUIET,
    events: Sequence[Event] = (),
    answers: Sequence[Answer] = (),
    told: Sequence[SupervisorEvent] = (),
) -> Witness:
    return Witness(Seen(samples, events, answers, {"BTC-USDT": "shard-0"}), told)


def with_one(**changes: Any) -> list[Sample]:
    return [*QUIET, msgspec.structs.replace(sample_of(10), **changes)]


SEEN = {
    "shed": witness(with_one(refused_per_s=3.0)),
    "retried": witness(with_one(attempts_per_s=150.0)),
    "unknown": witness(answers=[answer("place", 5.0, UNKNOWN)]),
    "fenced": witness(told=[SupervisorEvent("fenced", "shard-0", "")]),
    "took-over": witness(told=[SupervisorEvent("taking_over", "shard-0", "")]),
    "lost": witness(told=[SupervisorEvent("lost", "gateway-0", "gone")]),
    "regressed": witness(events=[stage(1.0, "OPEN"), stage(5.0, "LIMITED", "overloaded for 2.1 s")]),
    "config-reverted": witness(told=[SupervisorEvent("rollout", "supervisor", "version 3 taken back: 4 of 9 lost")]),
    "cancel-only": witness(events=[stage(1.0, "CANCEL_ONLY")]),
    "cancelled-early": witness(
        events=[stage(1.0, "CANCEL_ONLY"), stage(3.0, "POST_ONLY")], answers=[answer("cancel", 2.0)]
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_each_is_found_where_it_happened_and_nowhere_else(name: str) -> None:
    (found,) = check_sometimes([name], SEEN[name])
    (missed,) = check_sometimes([name], witness())
    assert found.name == f"sometimes:{name}"
    assert found.held
    assert not missed.held


def test_to_open_again_is_no_step_back_and_neither_is_a_restart() -> None:
    restarted = [stage(1.0, "OPEN"), stage(5.0, "CANCEL_ONLY", "cold: started"), stage(8.0, "OPEN", "well")]
    (check,) = check_sometimes(["regressed"], witness(events=restarted))
    assert not check.held


def test_a_cancel_after_the_stage_is_none_of_it() -> None:
    events = [stage(1.0, "CANCEL_ONLY"), stage(3.0, "POST_ONLY")]
    (check,) = check_sometimes(["cancelled-early"], witness(events=events, answers=[answer("cancel", 4.0)]))
    assert not check.held


def test_settings_that_a_person_takes_back_are_not_taken_back_by_themselves() -> None:
    told = [SupervisorEvent("rollout", "supervisor", "version 3 taken back: by key-1: chaos")]
    (check,) = check_sometimes(["config-reverted"], witness(told=told))
    assert not check.held


def test_every_name_says_what_it_means() -> None:
    assert all(one.meaning for one in SOMETIMES.values())
    assert SEEN.keys() == SOMETIMES.keys()
