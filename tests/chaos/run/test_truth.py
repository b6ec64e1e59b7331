"""What the status says is held against what clients found and what was killed (I12)."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.load.client_log import ACKNOWLEDGED, REJECTED
from chaos.run.answers import Answer
from chaos.run.levels import Seen
from chaos.run.record import Check, Event
from chaos.run.truth import check_status
from tests.chaos.run.fakes import sample_of

CANCEL_ONLY_REFUSES = 501


def answers(outcome: int, begin_s: int, end_s: int, reason: int = 0) -> list[Answer]:
    """Four orders a second, each answered after 0.1 s."""
    times = [n / 4 for n in range(4 * begin_s, 4 * end_s)]
    return [Answer("place", "A-B", t, t + 0.1, outcome, reason, False, f"t.log:{t}") for t in times]


def event(t: float, kind: str, name: str, what: str, target: str = "") -> Event:
    return Event(t=t, kind=kind, name=name, what=what, target=target)  # type: ignore[arg-type]


def check(events: Sequence[Event], placed: Sequence[Answer]) -> Check:
    opened = event(-1.0, "stage", "shard-0", "OPEN")
    return check_status(
        Seen([sample_of(second) for second in range(30)], [opened, *events], placed, {"A-B": "shard-0"})
    )


def test_a_status_that_is_true_holds() -> None:
    events = [event(10.0, "stage", "shard-0", "CANCEL_ONLY"), event(18.0, "stage", "shard-0", "OPEN")]
    placed = [
        *answers(ACKNOWLEDGED, 0, 10),
        *answers(REJECTED, 10, 18, CANCEL_ONLY_REFUSES),
        *answers(ACKNOWLEDGED, 18, 30),
    ]
    found = check(events, placed)
    assert found.held, found
    assert found.looked_at == 3


def test_a_shard_that_is_said_to_be_open_and_takes_nothing_is_found() -> None:
    placed = [*answers(ACKNOWLEDGED, 0, 10), *answers(REJECTED, 10, 18, CANCEL_ONLY_REFUSES)]
    found = check([], placed)
    assert not found.held
    assert "took no order for" in found.evidence[0]


def test_what_is_refused_for_less_than_five_seconds_is_no_lie() -> None:
    placed = [
        *answers(ACKNOWLEDGED, 0, 10),
        *answers(REJECTED, 10, 14, CANCEL_ONLY_REFUSES),
        *answers(ACKNOWLEDGED, 14, 30),
    ]
    assert check([], placed).held


def test_a_shard_that_is_said_to_be_closed_and_takes_orders_is_found() -> None:
    found = check([event(10.0, "component", "shard-0", "DOWN")], answers(ACKNOWLEDGED, 0, 30))
    assert not found.held
    assert "DOWN OPEN from 10.0" in found.evidence[0]


def test_a_process_whose_death_is_not_told_is_found() -> None:
    kill = event(12.0, "proof", "kill-process", "took effect", "gateway-0")
    assert not check([kill], answers(ACKNOWLEDGED, 0, 30)).held
    assert check([kill, event(12.5, "component", "gateway-0", "STARTING")], answers(ACKNOWLEDGED, 0, 30)).held


def test_nothing_to_look_at_is_not_held() -> None:
    assert not check_status(Seen([], [], [], {})).held
