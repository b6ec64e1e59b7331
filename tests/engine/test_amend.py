"""Changing an open order: what keeps its place, what loses it, what is refused."""

from __future__ import annotations

import pytest

from exchange.engine.events import OrderAmended
from exchange.engine.words import CloseReason, OrderStatus, RejectReason
from tests.engine.market import BUY, GTD, INSTRUMENT, SELL, START_NS, Market, S, brief


@pytest.fixture
def market() -> Market:
    """Two bids at 100, `a` before `b`; an ask at 105."""
    market = Market()
    market.place(1, "a", BUY, 100, 10)
    market.place(2, "b", BUY, 100, 10)
    market.place(3, "c", SELL, 105, 10)
    return market


def test_a_smaller_order_keeps_its_place(market: Market) -> None:
    assert brief(market.amend(1, "a", quantity=4)) == (OrderStatus.OPEN, 0, 4, 0, 0)
    assert market.bids() == [("a", 100, 4), ("b", 100, 10)]
    (event,) = market.events
    assert isinstance(event, OrderAmended)
    assert event.kept_place


def test_the_same_size_keeps_its_place(market: Market) -> None:
    market.amend(1, "a", quantity=10)
    assert [name for name, _, _ in market.bids()] == ["a", "b"]


@pytest.mark.parametrize("change", [{"quantity": 11}, {"open_quantity": 11}, {"requeue": True}])
def test_a_larger_or_requeued_order_goes_to_the_back(market: Market, change: dict[str, int]) -> None:
    assert market.amend(1, "a", **change).reject_reason == 0
    assert [name for name, _, _ in market.bids()] == ["b", "a"]


def test_another_price_loses_the_place_there_and_here(market: Market) -> None:
    market.amend(1, "a", price=99)
    market.amend(1, "a", price=100)
    assert [name for name, _, _ in market.bids()] == ["b", "a"]


def test_the_new_size_counts_what_is_filled_and_the_open_size_does_not(market: Market) -> None:
    market.place(9, "x", SELL, 100, 4)
    assert brief(market.amend(1, "a", quantity=7))[1:3] == (4, 3)
    assert brief(market.amend(1, "a", open_quantity=2))[1:3] == (4, 2)
    assert market.shard.find(1, market.symbol, "a", 0).quantity == 6  # type: ignore[union-attr]


def test_an_order_moved_across_the_spread_trades(market: Market) -> None:
    assert brief(market.amend(1, "a", price=105, quantity=12)) == (OrderStatus.OPEN, 10, 2, 0, 0)
    assert market.trades == [(105, 10)]
    assert market.bids()[0] == ("a", 105, 2)
    assert brief(market.amend(2, "b", price=105))[0] == OrderStatus.OPEN


def test_an_order_moved_across_the_spread_may_fill(market: Market) -> None:
    assert brief(market.amend(1, "a", price=105)) == (OrderStatus.FILLED, 10, 0, 0, 0)
    assert [name for name, _, _ in market.bids()] == ["b"]


def test_an_order_moved_into_its_own_account_is_stopped() -> None:
    market = Market()
    market.place(1, "bid", BUY, 100, 10, self_trade_prevention=2)
    market.place(1, "ask", SELL, 105, 10)
    result = market.amend(1, "bid", price=105)
    assert brief(result) == (OrderStatus.CANCELLED, 0, 0, 0, CloseReason.SELF_TRADE)
    assert market.asks() == [("ask", 105, 10)]


def test_below_what_is_filled_is_refused(market: Market) -> None:
    market.place(9, "x", SELL, 100, 4)
    assert market.amend(1, "a", quantity=4).reject_reason == RejectReason.QUANTITY_BELOW_FILLED
    assert market.bids()[0] == ("a", 100, 6)


def test_a_refused_amend_cancels_only_if_told_to(market: Market) -> None:
    assert brief(market.amend(1, "a"))[::3] == (OrderStatus.OPEN, RejectReason.NOTHING_TO_AMEND)
    result = market.amend(1, "a", cancel_on_fail=True)
    assert brief(result) == (OrderStatus.CANCELLED, 0, 0, RejectReason.NOTHING_TO_AMEND, CloseReason.AMEND_FAILED)
    assert [name for name, _, _ in market.bids()] == ["b"]


def test_a_post_only_order_is_not_moved_across_the_spread() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 10, post_only=True)
    market.place(2, "b", SELL, 105, 10)
    assert market.amend(1, "a", price=105).reject_reason == RejectReason.WOULD_TAKE
    assert market.amend(1, "a", price=104).reject_reason == 0


def test_an_order_is_not_moved_out_of_the_band() -> None:
    market = Market(INSTRUMENT._replace(band_bps=1_000, reference_price=100))
    market.place(1, "a", BUY, 50, 10)
    assert market.amend(1, "a", price=111).reject_reason == RejectReason.PRICE_OUTSIDE_BAND
    assert market.amend(1, "a", price=110).reject_reason == 0


def test_an_amended_order_still_expires() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 10, time_in_force=GTD, expire_time_ns=START_NS + S)
    market.amend(1, "a", price=101)
    assert market.shard.next_timer_ns() == START_NS + S
    market.cancel(1, "a")
    assert market.shard.next_timer_ns() is None
