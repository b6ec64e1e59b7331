"""What becomes of an order of each type and time in force."""

from __future__ import annotations

import pytest

from exchange.engine.commands import AddInstrument, CancelAll, CancelSessions
from exchange.engine.events import OrderClosed
from exchange.engine.words import CloseReason, OrderStatus, RejectReason
from tests.engine.market import BUY, FOK, INSTRUMENT, IOC, MARKET, SELL, Market, brief

OPEN, FILLED, CANCELLED, REJECTED = (
    OrderStatus.OPEN,
    OrderStatus.FILLED,
    OrderStatus.CANCELLED,
    OrderStatus.REJECTED,
)


@pytest.fixture
def market() -> Market:
    """Three asks: two at 101, one at 103."""
    market = Market()
    market.place(1, "a", SELL, 101, 10)
    market.place(2, "b", SELL, 101, 5)
    market.place(3, "c", SELL, 103, 20)
    return market


def test_a_limit_order_that_meets_nobody_rests(market: Market) -> None:
    assert brief(market.place(9, "x", BUY, 100, 7)) == (OPEN, 0, 7, 0, 0)
    assert market.bids() == [("x", 100, 7)]


def test_a_taker_trades_at_the_makers_prices_first_come_first(market: Market) -> None:
    assert brief(market.place(9, "x", BUY, 103, 17)) == (FILLED, 17, 0, 0, 0)
    assert market.trades == [(101, 10), (101, 5), (103, 2)]
    assert market.asks() == [("c", 103, 18)]


def test_what_is_left_of_a_limit_order_rests_at_its_own_price(market: Market) -> None:
    assert brief(market.place(9, "x", BUY, 102, 20)) == (OPEN, 15, 5, 0, 0)
    assert market.bids() == [("x", 102, 5)]


def test_a_partial_fill_keeps_the_makers_place(market: Market) -> None:
    market.place(9, "x", BUY, 101, 4)
    assert market.asks()[:2] == [("a", 101, 6), ("b", 101, 5)]


def test_immediate_or_cancel_never_rests(market: Market) -> None:
    assert brief(market.place(9, "x", BUY, 102, 20, time_in_force=IOC)) == (
        CANCELLED,
        15,
        0,
        0,
        CloseReason.NOT_FILLED,
    )
    assert market.bids() == []
    closed = market.events[-1]
    assert isinstance(closed, OrderClosed)
    assert (closed.reason, closed.quantity) == (CloseReason.NOT_FILLED, 5)


def test_fill_or_kill_fills_whole_or_does_nothing(market: Market) -> None:
    assert brief(market.place(9, "x", BUY, 102, 16, time_in_force=FOK))[:2] == (CANCELLED, 0)
    assert market.trades == []
    assert brief(market.place(9, "y", BUY, 102, 15, time_in_force=FOK))[:2] == (FILLED, 15)


def test_a_market_order_takes_what_there_is_and_never_rests(market: Market) -> None:
    assert brief(market.place(9, "x", BUY, 0, 50, type=MARKET, time_in_force=0))[:3] == (CANCELLED, 35, 0)
    assert market.trades == [(101, 10), (101, 5), (103, 20)]
    assert brief(market.place(9, "y", BUY, 0, 1, type=MARKET, time_in_force=0))[:2] == (CANCELLED, 0)


def test_a_market_order_stops_at_the_band() -> None:
    market = Market(INSTRUMENT._replace(band_bps=100, reference_price=1_000))
    market.place(1, "a", SELL, 1_010, 1)
    market.place(1, "b", SELL, 1_011, 1)
    assert market.place(9, "x", BUY, 0, 2, type=MARKET, time_in_force=0).filled == 1
    # The band follows the last trade.
    assert market.place(9, "y", BUY, 0, 1, type=MARKET, time_in_force=0).filled == 1


def test_a_post_only_order_rests_or_is_refused(market: Market) -> None:
    assert market.place(9, "x", BUY, 100, 1, post_only=True).status == OPEN
    assert market.place(9, "y", BUY, 101, 1, post_only=True).reject_reason == RejectReason.WOULD_TAKE
    assert market.trades == []


def test_a_cancelled_order_is_never_filled(market: Market) -> None:
    assert brief(market.cancel(1, "a")) == (CANCELLED, 0, 0, 0, CloseReason.REQUESTED)
    market.place(9, "x", BUY, 101, 10)
    assert market.trades == [(101, 5)]


def test_an_order_can_be_cancelled_by_its_id_and_only_once(market: Market) -> None:
    order_id = market.place(9, "x", BUY, 100, 7).order_id
    assert market.cancel(9, "", order_id).client_order_id == "x"
    again = market.cancel(9, "", order_id)
    assert brief(again) == (CANCELLED, 0, 0, RejectReason.ORDER_CLOSED, CloseReason.REQUESTED)


def test_nobody_can_cancel_an_order_of_somebody_else(market: Market) -> None:
    order_id = market.place(9, "x", BUY, 100, 7).order_id
    assert market.cancel(8, "x").reject_reason == RejectReason.ORDER_UNKNOWN
    assert market.cancel(8, "", order_id).reject_reason == RejectReason.ORDER_UNKNOWN


def test_cancel_all_takes_the_side_or_the_instrument_or_everything() -> None:
    market = Market()
    market.apply(AddInstrument(INSTRUMENT._replace(symbol="ETH-USDT", base_asset="ETH")))

    def fill() -> None:
        for symbol in ("BTC-USDT", "ETH-USDT"):
            market.symbol = symbol
            for side, price in ((BUY, 90), (SELL, 110)):
                market.place(1, f"o{market.shard.sequence}", side, price, 1)
        market.place(2, f"o{market.shard.sequence}", BUY, 80, 1)

    fill()
    assert market.apply(CancelAll(1, "BTC-USDT", BUY)).cancelled_orders == 1
    assert market.apply(CancelAll(1, "BTC-USDT")).cancelled_orders == 1
    assert market.apply(CancelAll(1, "", SELL)).cancelled_orders == 1
    assert market.apply(CancelAll(1)).cancelled_orders == 1
    assert market.apply(CancelAll(1)).cancelled_orders == 0
    assert len(market.bids()) == 1


def test_orders_end_with_the_session_that_placed_them() -> None:
    market = Market()
    for session in (0, 1, 2, 3):
        market.place(1, f"s{session}", BUY, 90, 1, session=session)
    assert market.apply(CancelSessions(1, 2)).cancelled_orders == 2
    assert [name for name, _, _ in market.bids()] == ["s0", "s3"]
    assert {e.reason for e in market.events if isinstance(e, OrderClosed)} == {CloseReason.DISCONNECTED}


def test_sessions_end_in_the_order_of_their_numbers() -> None:
    # Not in the order in which they first placed something: a restored shard could not tell that.
    market = Market()
    market.place(1, "first", BUY, 90, 1, session=2)
    market.place(1, "second", BUY, 90, 1, session=1)
    market.place(1, "third", BUY, 90, 1, session=2)
    market.cancel(1, "first")
    market.apply(CancelSessions(1, 9))
    assert [order.request.client_order_id for order in market.shard.closed] == ["first", "second", "third"]


def test_a_shard_keeps_no_events_of_a_batch_that_it_has_returned() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 5)
    assert market.events
    assert market.shard.events == []
