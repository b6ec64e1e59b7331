"""I9: a stage lets through only what it names."""

from __future__ import annotations

import pytest

from exchange.engine.commands import AddInstrument, CancelAll, SetStage
from exchange.engine.events import EventKind
from exchange.engine.stages import StageRow
from exchange.engine.state import restore, state_of
from exchange.engine.words import RejectReason, Stage
from tests.engine.market import BUY, INSTRUMENT, RICH, SELL, START_NS, SYMBOL, Market, S


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
    assert market.events == [(EventKind.STAGE, sequence, "", Stage.LIMITED, 7, "overload", START_NS, 0)]


def test_a_stage_that_does_not_exist_is_refused() -> None:
    market = Market()
    for command in (SetStage(0), SetStage(7), SetStage(int(Stage.LIMITED), -1)):
        assert market.apply(command).reject_reason == RejectReason.MALFORMED
    assert market.shard.stage == Stage.OPEN


ETH = INSTRUMENT._replace(symbol="ETH-USDT", base_asset="ETH")


def two_markets() -> Market:
    """One that has a bid in each of two instruments, both open."""
    market = Market()
    market.apply(AddInstrument(ETH))
    for asset in ("ETH", "USDT"):
        market.shard.funds.endow(1, asset, RICH)
    for symbol in (ETH.symbol, SYMBOL):
        market.symbol = symbol
        market.place(1, f"{symbol}-bid", BUY, 100, 10)
    return market


def outcomes(market: Market, name: str) -> list[int]:
    """What becomes of an order, a post-only one, an amend that moves, and a cancel."""
    placed = market.place(1, f"{name}-1", BUY, 90, 1)
    posted = market.place(1, f"{name}-2", BUY, 90, 1, post_only=True)
    amended = market.amend(1, f"{market.symbol}-bid", price=99)
    cancelled = market.cancel(1, f"{market.symbol}-bid")
    return [result.reject_reason for result in (placed, posted, amended, cancelled)]


@pytest.mark.parametrize("whole", [Stage.OPEN, Stage.POST_ONLY, Stage.CANCEL_ONLY, Stage.HALTED])
@pytest.mark.parametrize("own", [Stage.OPEN, Stage.POST_ONLY, Stage.CANCEL_ONLY, Stage.HALTED])
def test_of_the_stages_of_an_instrument_and_its_shard_the_stricter_one_holds(whole: Stage, own: Stage) -> None:
    market = two_markets()
    market.apply(SetStage(int(own), instrument=SYMBOL))
    market.apply(SetStage(int(whole)))
    stricter = max(whole, own, key=[Stage.OPEN, Stage.POST_ONLY, Stage.CANCEL_ONLY, Stage.HALTED].index)
    assert outcomes(market, "x") == outcomes(in_two_markets(stricter), "x")
    market.symbol = ETH.symbol
    other = in_two_markets(whole)
    other.symbol = ETH.symbol
    assert outcomes(market, "y") == outcomes(other, "y")


def in_two_markets(stage: Stage) -> Market:
    market = two_markets()
    market.apply(SetStage(int(stage)))
    return market


def test_an_order_must_be_within_both_rates_and_takes_of_neither_if_it_is_not() -> None:
    market = two_markets()
    market.apply(SetStage(int(Stage.LIMITED), 10))
    market.apply(SetStage(int(Stage.LIMITED), 1, instrument=SYMBOL))
    market.time_ns += S
    passed = [market.place(1, f"a{n}", BUY, 90, 1).reject_reason == 0 for n in range(3)]
    assert passed == [True, False, False]
    market.time_ns += S
    market.symbol = ETH.symbol
    assert market.place(1, "b", BUY, 90, 1).reject_reason == 0


def test_cancel_all_leaves_out_instruments_that_are_halted_by_themselves() -> None:
    market = two_markets()
    market.apply(SetStage(int(Stage.HALTED), instrument=SYMBOL))
    result = market.apply(CancelAll(1))
    assert (result.reject_reason, result.cancelled_orders) == (0, 1)
    assert market.apply(CancelAll(1, SYMBOL)).reject_reason == RejectReason.STAGE_HALTED
    assert [name for name, _, _ in market.bids()] == [f"{SYMBOL}-bid"]


def test_a_stage_of_an_instrument_that_does_not_exist_is_refused() -> None:
    market = Market()
    refused = market.apply(SetStage(int(Stage.HALTED), instrument="NO-SUCH"))
    assert refused.reject_reason == RejectReason.INSTRUMENT_UNKNOWN
    assert market.shard.stages.is_open


def test_another_rate_within_limited_neither_forgets_what_was_saved_up_nor_when_the_stage_began() -> None:
    market = Market()
    market.apply(SetStage(int(Stage.LIMITED), 2))
    passed = 0
    for n in range(40):
        market.time_ns += S // 10
        # Anew at each step of a ramp: else no order would ever get through.
        market.apply(SetStage(int(Stage.LIMITED), 2, "ramp", next_stage_time_ns=START_NS + 4 * S))
        passed += market.place(1, f"o{n}", BUY, 90, 1).reject_reason == 0
    assert passed == 8
    row = market.shard.stages.whole.row
    assert row == StageRow("", Stage.LIMITED, 2, "ramp", START_NS, START_NS + 4 * S)


def test_stages_and_their_rates_are_in_the_state() -> None:
    market = two_markets()
    market.apply(SetStage(int(Stage.LIMITED), 7, "ramp", next_stage_time_ns=5))
    market.apply(SetStage(int(Stage.HALTED), 0, "news", SYMBOL))
    again = restore(state_of(market.shard))
    assert again.stages.rows() == market.shard.stages.rows()
    assert state_of(again) == state_of(market.shard)
    states = set()
    for command in (SetStage(int(Stage.OPEN), instrument=SYMBOL), SetStage(int(Stage.LIMITED), 8), SetStage(5)):
        states.add(repr(state_of(market.shard)))
        market.apply(command)
    assert len(states) == 3
    assert market.shard.stages.is_open
