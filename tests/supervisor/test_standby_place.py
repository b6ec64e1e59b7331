"""Where the supervisor that stands by is to be, when its node is gone or is the active one's."""

from __future__ import annotations

import pytest

from exchange.supervisor.component import Node
from exchange.supervisor.standby_place import PATIENCE_S, StandbyPlace

A, B, C = Node("a", "node-0"), Node("b", "node-1"), Node("c", "node-2")


class Watch:
    """The active one is on A. Time is what the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.place = StandbyPlace(monotonic_s=lambda: self.now_s)

    def see(self, standby: str, *nodes: Node, after_s: float = 0.0, drained: tuple[str, ...] = ()) -> str:
        self.now_s += after_s
        return self.place.see(A.id, standby, nodes, drained)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_it_stays_where_it_answers(watch: Watch) -> None:
    assert watch.see(B.id, A, B, C) == ""
    assert watch.see(B.id, A, B, C, after_s=10 * PATIENCE_S) == ""


def test_it_is_started_on_another_node_when_its_own_does_not_come_back(watch: Watch) -> None:
    assert watch.see(B.id, A, B, C) == ""
    assert watch.see("", A, C) == ""
    assert watch.see("", A, C, after_s=PATIENCE_S - 1) == ""
    assert watch.see("", A, C, after_s=1) == C.id


def test_it_has_all_the_time_to_start_there(watch: Watch) -> None:
    watch.see("", A, C)
    assert watch.see("", A, C, after_s=PATIENCE_S) == C.id
    assert watch.see("", A, C, after_s=10 * PATIENCE_S) == ""
    watch.see("", A, B)
    assert watch.see("", A, B, after_s=PATIENCE_S) == B.id


def test_it_is_waited_for_where_its_node_is_alive(watch: Watch) -> None:
    assert watch.see(B.id, A, B, C) == ""
    assert watch.see("", A, B, C) == ""
    assert watch.see("", A, B, C, after_s=10 * PATIENCE_S) == ""


def test_one_that_was_never_heard_is_started(watch: Watch) -> None:
    """As by a supervisor that took over from one whose node was lost."""
    assert watch.see("", A, C) == ""
    assert watch.see("", A, C, after_s=PATIENCE_S) == C.id


def test_one_that_answers_again_begins_the_wait_anew(watch: Watch) -> None:
    watch.see(B.id, A, B, C)
    watch.see("", A, C)
    again = Node("b2", B.name)
    assert watch.see(again.id, A, again, C, after_s=PATIENCE_S - 1) == ""
    assert watch.see("", A, C, after_s=1) == ""
    assert watch.see("", A, C, after_s=PATIENCE_S) == C.id


def test_it_leaves_the_node_of_the_active_one_when_there_is_another(watch: Watch) -> None:
    assert watch.see(A.id, A) == ""
    assert watch.see(A.id, A, after_s=10 * PATIENCE_S) == ""
    assert watch.see(A.id, A, B) == ""
    assert watch.see(A.id, A, B, after_s=PATIENCE_S) == B.id


def test_it_goes_to_no_drained_node_and_never_to_that_of_the_active_one(watch: Watch) -> None:
    watch.see(B.id, A, B, C)
    watch.see("", A, C, drained=(C.name,))
    assert watch.see("", A, C, after_s=10 * PATIENCE_S, drained=(C.name,)) == ""
    assert watch.see("", A, C) == ""
    assert watch.see("", A, C, after_s=PATIENCE_S) == C.id
