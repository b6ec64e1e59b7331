"""I9: a stage lets through only what it names."""

from __future__ import annotations

import pytest

from exchange.engine.commands import CancelAll, SetStage
from exchange.engine.events import EventKind
from exchange.engine.words import RejectReason, Stage
from tests.engine.market import BUY, SELL, Market, S


def in_stage(stage: Stage) -> Market:
    """A market with a bid and an ask of account 1, moved to a stage."""
    market = Market()
    market.place(1, "bid", BUY, 100, 10)
    market.place(1, "ask", SELL, 110, 10)
    market.apply(SetStage(int(stage), 1_000))
    # LIMITED starts with nothing saved up.
    market.time_ns += S
    return market


@pytest.mark.parametrize(
    ("stage", "order", "post_only", "amend", "cancel"),
    [
        (Stage.REPLAYING, False, False, False, False),
        (Stage.CANCEL_ONLY, False, False, False, True),
        (Stage.POST_ONLY, False, True, True, True),
        (Stage.LIMITED, True, True, True, True),
        (Stage.OPEN, True, True, True, True),
        (Stage.HALTED, False, False, False, False),
    ],
)
def test_a_stage_lets_through_what_it_names(
    stage: Stage, order: bool, post_only: bool, amend: bool, cancel: bool
) -> None:
    market = in_stage(stage)
    refusal = 0 if stage == Stage.OPEN else RejectReason[f"STAGE_{stage.name}"]
    placed = market.place(2, "x", BUY, 90, 1).reject_reason
    posted = market.place(2, "y", BUY, 90, 1, post_only=True).reject_reason
    amended = market.amend(1, "bid", price=101).reject_reason
    cancelled = market.cancel(1, "bid").reject_reason
    all_cancelled = market.apply(CancelAll(1)).reject_reason
    outcomes = [placed, posted, amended, cancelled, all_cancelled]
    assert outcomes == [0 if passes else refusal for passes in (order, post_only, amend, cancel, cancel)]


def test_post_only_lets_no_amend_trade() -> None:
    market = in_stage(Stage.POST_ONLY)
    market.place(2, "other", SELL, 105, 1, post_only=True)
    assert market.amend(1, "bid", price=105).reject_reason == RejectReason.STAGE_POST_ONLY
    assert market.amend(1, "bid", price=104).reject_reason == 0


def test_a_refusal_by_the_stage_is_not_remembered() -> None:
    market = in_stage(Stage.CANCEL_ONLY)
    assert market.place(2, "x", BUY, 90, 1).reject_reason == RejectReason.STAGE_CANCEL_ONLY
    market.apply(SetStage(int(Stage.OPEN)))
    result = market.place(2, "x", BUY, 90, 1)
    assert (result.reject_reason, result.duplicate) == (0, False)


def test_a_repeat_gets_its_first_outcome_in_every_stage() -> None:
    market = in_stage(Stage.HALTED)
    result = market.place(1, "bid", BUY, 100, 10)
    assert (result.reject_reason, result.duplicate) == (0, True)


def test_limited_lets_through_its_rate() -> None:
    market = Market()
    market.apply(SetStage(int(Stage.LIMITED), 20))
    passed = []
    for n in range(100):
        market.time_ns += S // 100
        passed.append(market.place(1, f"o{n}", BUY, 90, 1).reject_reason == 0)
    assert sum(passed) == 20
    assert passed[:10].count(True) == 2


def test_limited_saves_up_a_tenth_of_a_second_at_most() -> None:
    market = Market()
    market.apply(SetStage(int(Stage.LIMITED), 50))
    market.time_ns += 60 * S
    passed = [market.place(1, f"o{n}", BUY, 90, 1).reject_reason == 0 for n in range(10)]
    assert passed == [True] * 5 + [False] * 5


def test_limited_lets_an_amend_that_keeps_its_place_through_beside_the_rate() -> None:
    market = Market()
    market.place(1, "bid", BUY, 100, 10)
    market.apply(SetStage(int(Stage.LIMITED), 0))
    assert market.amend(1, "bid", quantity=5).reject_reason == 0
    assert market.amend(1, "bid", price=99).reject_reason == RejectReason.STAGE_LIMITED
    assert market.cancel(1, "bid").reject_reason == 0


def test_a_new_stage_is_an_event() -> None:
    market = Market()
    market.apply(SetStage(int(Stage.LIMITED), 7, "overload"))
    sequence = market.shard.sequence
    assert market.events == [(EventKind.STAGE, sequence, Stage.LIMITED, 7, "overload")]


def test_a_stage_that_does_not_exist_is_refused() -> None:
    market = Market()
    for command in (SetStage(0), SetStage(7), SetStage(int(Stage.LIMITED), -1)):
        assert market.apply(command).reject_reason == RejectReason.MALFORMED
    assert market.shard.stage == Stage.OPEN
