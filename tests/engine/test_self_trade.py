"""No account ever trades with itself; the taker says who gives way."""

from __future__ import annotations

import pytest

from exchange.engine.words import CloseReason, OrderStatus, SelfTradePrevention
from tests.engine.market import BUY, FOK, SELL, Market, brief

MAKER, TAKER, BOTH = (
    SelfTradePrevention.CANCEL_MAKER,
    SelfTradePrevention.CANCEL_TAKER,
    SelfTradePrevention.CANCEL_BOTH,
)


@pytest.fixture
def market() -> Market:
    """Asks at one price: somebody's, our own, somebody's."""
    market = Market()
    market.place(2, "before", SELL, 100, 3)
    market.place(1, "own", SELL, 100, 3)
    market.place(2, "after", SELL, 100, 3)
    return market


@pytest.mark.parametrize("prevention", [SelfTradePrevention.DEFAULT, MAKER])
def test_the_maker_gives_way_unless_told_otherwise(market: Market, prevention: int) -> None:
    result = market.place(1, "x", BUY, 100, 5, self_trade_prevention=prevention)
    assert brief(result) == (OrderStatus.FILLED, 5, 0, 0, 0)
    assert market.asks() == [("after", 100, 1)]
    own = market.shard.find(1, market.symbol, "own", 0)
    assert own is not None
    assert (own.status, own.close_reason) == (OrderStatus.CANCELLED, CloseReason.SELF_TRADE)


def test_the_taker_gives_way_after_what_it_traded_before(market: Market) -> None:
    result = market.place(1, "x", BUY, 100, 5, self_trade_prevention=TAKER)
    assert brief(result) == (OrderStatus.CANCELLED, 3, 0, 0, CloseReason.SELF_TRADE)
    assert market.asks() == [("own", 100, 3), ("after", 100, 3)]
    assert market.bids() == []


def test_both_give_way(market: Market) -> None:
    result = market.place(1, "x", BUY, 100, 5, self_trade_prevention=BOTH)
    assert brief(result) == (OrderStatus.CANCELLED, 3, 0, 0, CloseReason.SELF_TRADE)
    assert market.asks() == [("after", 100, 3)]


def test_a_taker_that_is_filled_before_it_meets_itself_is_filled(market: Market) -> None:
    result = market.place(1, "x", BUY, 100, 3, self_trade_prevention=TAKER)
    assert result.status == OrderStatus.FILLED
    assert market.asks()[0] == ("own", 100, 3)


@pytest.mark.parametrize(
    ("prevention", "quantity", "filled"), [(MAKER, 6, 6), (MAKER, 7, 0), (TAKER, 3, 3), (TAKER, 4, 0), (BOTH, 4, 0)]
)
def test_fill_or_kill_counts_only_what_it_may_trade_with(
    market: Market, prevention: int, quantity: int, filled: int
) -> None:
    before = market.asks()
    result = market.place(1, "x", BUY, 100, quantity, time_in_force=FOK, self_trade_prevention=prevention)
    assert result.filled == filled
    if not filled:
        assert market.asks() == before
