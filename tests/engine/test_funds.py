"""What orders hold of an account's money, what becomes of it, and that none of it comes or goes by itself."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.engine.channel import HOUSE
from exchange.engine.commands import AddInstrument, CancelAll, Tick
from exchange.engine.events import OrderTraded
from exchange.engine.funds import fee_of
from exchange.engine.instrument import Instrument
from exchange.engine.words import CloseReason, OrderStatus, SelfTradePrevention
from tests.engine.market import BUY, FOK, GTD, IOC, MARKET, SELL, START_NS, SYMBOL, Market, S

# A quantity of 1 is 100 of the base asset; price x quantity of 1 is 1,000 of the quote asset.
FEES = Instrument(SYMBOL, "BTC", "USDT", 0, 0, 3, maker_fee_ppm=1_000, taker_fee_ppm=2_000, base_scale=2)
REBATE = FEES._replace(maker_fee_ppm=-1_000)
AT_MARKET: dict[str, Any] = {"type": MARKET, "time_in_force": 0}
BUYER, SELLER = 2, 3
USDT, BTC = 10**9, 10**6


def market_of(instrument: Instrument = FEES) -> Market:
    """A market with a buyer who has USDT and a seller who has BTC."""
    market = Market(instrument, is_rich=False)
    market.shard.funds.endow(BUYER, "USDT", USDT)
    market.shard.funds.endow(SELLER, "BTC", BTC)
    return market


def fees(market: Market) -> list[tuple[int, int]]:
    """Of the maker and the taker, in the trades of the last command."""
    return [(event.maker_fee, event.taker_fee) for event in market.events if isinstance(event, OrderTraded)]


# ---------------------------------------------------------------- holds


def test_a_buy_holds_its_amount_and_the_higher_fee() -> None:
    market = market_of()
    market.place(BUYER, "a", BUY, 100, 10)
    assert market.money(BUYER, "USDT") == (USDT - 1_002_000, 1_002_000)
    assert market.money(BUYER, "BTC") == (0, 0)


def test_a_buy_holds_the_makers_fee_where_that_is_higher() -> None:
    market = market_of(FEES._replace(maker_fee_ppm=3_000))
    market.place(BUYER, "a", BUY, 100, 10)
    assert market.money(BUYER, "USDT")[1] == 1_003_000


def test_a_sell_holds_its_quantity_in_units_of_the_asset() -> None:
    market = market_of()
    market.place(SELLER, "a", SELL, 100, 10)
    assert market.money(SELLER, "BTC") == (BTC - 1_000, 1_000)
    assert market.money(SELLER, "USDT") == (0, 0)


@pytest.mark.parametrize(("side", "account", "asset"), [(BUY, BUYER, "USDT"), (SELL, SELLER, "BTC")])
def test_a_cancel_frees_all_that_was_held(side: int, account: int, asset: str) -> None:
    market = market_of()
    before = market.money(account, asset)
    market.place(account, "a", side, 100, 7)
    market.cancel(account, "a")
    market.place(account, "b", side, 100, 7)
    market.apply(CancelAll(account))
    assert market.money(account, asset) == before


def test_an_order_that_expires_frees_what_it_held() -> None:
    market = market_of()
    market.place(BUYER, "a", BUY, 100, 10, time_in_force=GTD, expire_time_ns=START_NS + S)
    market.time_ns += S
    market.apply(Tick())
    assert market.money(BUYER, "USDT") == (USDT, 0)


def test_a_maker_that_gives_way_to_itself_frees_what_it_held() -> None:
    market = market_of()
    market.shard.funds.endow(BUYER, "BTC", BTC)
    market.place(BUYER, "ask", SELL, 100, 10)
    market.place(BUYER, "bid", BUY, 100, 4)
    assert market.money(BUYER, "BTC") == (BTC, 0)
    assert market.money(BUYER, "USDT")[1] == 400_800


def test_a_taker_that_gives_way_to_itself_holds_nothing() -> None:
    market = market_of()
    market.shard.funds.endow(BUYER, "BTC", BTC)
    market.place(BUYER, "ask", SELL, 100, 10)
    market.place(BUYER, "bid", BUY, 100, 4, self_trade_prevention=int(SelfTradePrevention.CANCEL_TAKER))
    assert market.money(BUYER, "USDT") == (USDT, 0)
    assert market.money(BUYER, "BTC") == (BTC - 1_000, 1_000)


def test_an_amend_holds_more_or_less() -> None:
    market = market_of()
    market.place(BUYER, "a", BUY, 100, 10)
    for price, quantity, held in ((0, 20, 2_004_000), (0, 5, 501_000), (200, 0, 1_002_000), (50, 0, 250_500)):
        market.amend(BUYER, "a", price=price, quantity=quantity)
        assert market.money(BUYER, "USDT") == (USDT - held, held)


def test_an_amend_of_a_sell_holds_more_or_less() -> None:
    market = market_of()
    market.place(SELLER, "a", SELL, 100, 10)
    for price, quantity, held in ((0, 20, 2_000), (200, 0, 2_000), (0, 5, 500)):
        market.amend(SELLER, "a", price=price, quantity=quantity)
        assert market.money(SELLER, "BTC") == (BTC - held, held)


def test_an_amend_that_trades_pays_and_holds_the_rest() -> None:
    market = market_of()
    market.place(SELLER, "ask", SELL, 100, 4)
    market.place(BUYER, "bid", BUY, 90, 10)
    market.amend(BUYER, "bid", price=110)
    paid, held = 400_000 + 800, 660_000 + 1_320
    assert market.money(BUYER, "USDT") == (USDT - paid - held, held)
    assert market.money(BUYER, "BTC") == (400, 0)


def test_an_account_that_is_in_two_markets_has_one_purse_of_what_they_share() -> None:
    market = market_of()
    market.apply(AddInstrument(FEES._replace(symbol="ETH-BTC", base_asset="ETH", quote_asset="BTC", quote_scale=2)))
    market.place(SELLER, "ask", SELL, 100, 10)
    market.symbol = "ETH-BTC"
    market.place(SELLER, "bid", BUY, 5, 10)
    assert market.money(SELLER, "BTC") == (BTC - 1_000 - 5_010, 6_010)


# ---------------------------------------------------------------- trades


def test_a_trade_pays_both_sides_and_the_house() -> None:
    market = market_of()
    market.place(SELLER, "ask", SELL, 100, 10)
    market.place(BUYER, "bid", BUY, 100, 10)
    assert fees(market) == [(1_000, 2_000)]
    assert market.money(BUYER, "USDT") == (USDT - 1_002_000, 0)
    assert market.money(BUYER, "BTC") == (1_000, 0)
    assert market.money(SELLER, "USDT") == (999_000, 0)
    assert market.money(SELLER, "BTC") == (BTC - 1_000, 0)
    assert market.money(HOUSE, "USDT") == (3_000, 0)


def test_a_maker_that_buys_gets_back_what_its_hold_had_too_much() -> None:
    market = market_of()
    market.place(BUYER, "bid", BUY, 100, 10)
    market.place(SELLER, "ask", SELL, 90, 4)
    # It pays the maker's fee, and held the taker's.
    assert market.money(BUYER, "USDT") == (USDT - 400_400 - 601_200, 601_200)


def test_a_better_price_frees_the_rest() -> None:
    market = market_of()
    market.place(SELLER, "cheap", SELL, 80, 5)
    market.place(SELLER, "dear", SELL, 100, 5)
    market.place(BUYER, "bid", BUY, 100, 10)
    assert market.money(BUYER, "USDT") == (USDT - 400_000 - 500_000 - 800 - 1_000, 0)


@pytest.mark.parametrize("time_in_force", [IOC, FOK])
def test_an_order_that_does_not_rest_holds_nothing_afterwards(time_in_force: int) -> None:
    market = market_of()
    market.place(SELLER, "ask", SELL, 100, 5)
    market.place(BUYER, "bid", BUY, 100, 10, time_in_force=time_in_force)
    paid = 501_000 if time_in_force == IOC else 0
    assert market.money(BUYER, "USDT") == (USDT - paid, 0)


def test_a_rebate_is_paid_by_the_house_from_the_takers_fee() -> None:
    market = market_of(REBATE)
    market.place(SELLER, "ask", SELL, 100, 10)
    market.place(BUYER, "bid", BUY, 100, 10)
    assert fees(market) == [(-1_000, 2_000)]
    assert market.money(SELLER, "USDT") == (1_001_000, 0)
    assert market.money(HOUSE, "USDT") == (1_000, 0)


def test_a_buy_with_a_rebate_holds_the_takers_fee_until_it_is_filled() -> None:
    market = market_of(REBATE)
    market.place(BUYER, "bid", BUY, 100, 10)
    assert market.money(BUYER, "USDT")[1] == 1_002_000
    market.place(SELLER, "ask", SELL, 100, 10)
    assert market.money(BUYER, "USDT") == (USDT - 999_000, 0)


def test_the_house_trades_and_gets_its_own_fees() -> None:
    market = market_of()
    market.shard.funds.endow(HOUSE, "BTC", BTC)
    market.place(HOUSE, "ask", SELL, 100, 10)
    market.place(BUYER, "bid", BUY, 100, 10)
    assert market.money(HOUSE, "USDT") == (1_002_000, 0)


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize(
    ("amount", "ppm", "fee"),
    [(999, 1_000, 0), (1_000, 1_000, 1), (1_999, 1_000, 1), (999, -1_000, 0), (1_999, -1_000, -1), (7, 0, 0)],
)
def test_fees_and_rebates_are_rounded_to_less(amount: int, ppm: int, fee: int) -> None:
    assert fee_of(amount, ppm) == fee


@pytest.mark.parametrize("maker_fee_ppm", [-1_999, 0, 1_999, 2_503])
def test_a_buy_that_is_filled_in_parts_never_costs_more_than_it_held(maker_fee_ppm: int) -> None:
    # With no more digits than the price, every fee is rounded.
    market = market_of(FEES._replace(quote_scale=0, base_scale=0, maker_fee_ppm=maker_fee_ppm))
    market.place(BUYER, "bid", BUY, 333, 100)
    held = market.money(BUYER, "USDT")[1]
    for n, quantity in enumerate((1, 2, 3, 5, 7, 11, 13, 58)):
        left = market.money(BUYER, "USDT")[1]
        free = market.money(BUYER, "USDT")[0]
        market.place(SELLER, f"s{n}", SELL, 333, quantity)
        assert left - market.money(BUYER, "USDT")[1] >= 333 * quantity + fees(market)[0][0]
        assert market.money(BUYER, "USDT")[0] >= free
    assert market.money(BUYER, "USDT")[1] == 0
    assert USDT - market.money(BUYER, "USDT")[0] <= held


def test_a_taker_with_just_enough_pays_many_makers() -> None:
    market = Market(FEES._replace(quote_scale=0, base_scale=0, taker_fee_ppm=2_503), is_rich=False)
    market.shard.funds.endow(SELLER, "BTC", 100)
    for n in range(100):
        market.place(SELLER, f"s{n}", SELL, 333, 1)
    market.shard.funds.endow(BUYER, "USDT", 33_300 + 83)
    assert market.place(BUYER, "bid", BUY, 333, 100).status == OrderStatus.FILLED
    # No fee on 333 is a whole unit: it keeps what it held for that on the sum.
    assert market.money(BUYER, "USDT") == (83, 0)


# ---------------------------------------------------------------- market orders


def test_a_market_buy_needs_what_the_edge_of_the_band_would_cost() -> None:
    market = Market(FEES._replace(band_bps=1_000, reference_price=100, tick_size=4), is_rich=False)
    market.shard.funds.endow(SELLER, "BTC", BTC)
    market.place(SELLER, "ask", SELL, 92, 10)
    # The edge is 110, and 108 the last tick below it.
    market.shard.funds.endow(BUYER, "USDT", 1_080_000 + 2_160 - 1)
    assert market.place(BUYER, "a", BUY, 0, 10, **AT_MARKET).status == OrderStatus.PENDING_FUNDS
    market.cancel(BUYER, "a")
    market.shard.funds.endow(BUYER, "USDT", 1)
    assert market.place(BUYER, "b", BUY, 0, 10, **AT_MARKET).status == OrderStatus.FILLED
    assert market.money(BUYER, "USDT") == (160_000 + 320, 0)


def test_a_market_buy_without_a_band_needs_what_it_would_cost_now() -> None:
    market = market_of()
    for n, price in enumerate((100, 110, 120)):
        market.place(SELLER, f"s{n}", SELL, price, 5)
    poor = 4
    market.shard.funds.endow(poor, "USDT", 10 * 110_000 + 2_200 - 1)
    assert market.place(poor, "a", BUY, 0, 10, **AT_MARKET).status == OrderStatus.PENDING_FUNDS
    market.cancel(poor, "a")
    market.shard.funds.endow(poor, "USDT", 1)
    assert market.place(poor, "b", BUY, 0, 10, **AT_MARKET).status == OrderStatus.FILLED
    assert market.trades == [(100, 5), (110, 5)]
    assert market.money(poor, "USDT") == (50_000 + 100, 0)


def test_a_market_buy_without_a_band_looks_past_its_own_orders() -> None:
    market = market_of()
    market.shard.funds.endow(BUYER, "BTC", BTC)
    market.place(BUYER, "own", SELL, 100, 5)
    market.place(SELLER, "ask", SELL, 110, 5)
    market.place(SELLER, "far", SELL, 120, 5)
    assert market.place(BUYER, "bid", BUY, 0, 5, **AT_MARKET).filled == 5
    assert market.trades == [(110, 5)]
    assert market.asks() == [("far", 120, 5)]


def test_a_market_buy_of_an_empty_book_needs_nothing() -> None:
    market = Market(FEES, is_rich=False)
    result = market.place(BUYER, "bid", BUY, 0, 5, **AT_MARKET)
    assert (result.status, result.close_reason) == (OrderStatus.CANCELLED, CloseReason.NOT_FILLED)
    assert not market.shard.funds.outbox


def test_a_market_sell_needs_its_quantity() -> None:
    market = market_of()
    market.place(BUYER, "bid", BUY, 100, 10)
    market.shard.funds.endow(4, "BTC", 999)
    assert market.place(4, "a", SELL, 0, 10, **AT_MARKET).status == OrderStatus.PENDING_FUNDS
    market.cancel(4, "a")
    market.shard.funds.endow(4, "BTC", 1)
    assert market.place(4, "b", SELL, 0, 10, **AT_MARKET).status == OrderStatus.FILLED


# ---------------------------------------------------------------- what must hold


def test_money_that_comes_or_goes_by_itself_is_found() -> None:
    market = market_of()
    market.place(BUYER, "bid", BUY, 100, 10)
    purse = market.shard.funds.purse(BUYER, "USDT")
    purse.available += 1
    with pytest.raises(AssertionError, match="USDT: there is 1 more in escrow than came from the ledger"):
        market.shard.validate()
    purse.available -= 2
    with pytest.raises(AssertionError, match="USDT: there is -1 more"):
        market.shard.validate()


def test_a_hold_that_no_order_needs_is_found() -> None:
    market = market_of()
    market.place(BUYER, "bid", BUY, 100, 10)
    trader = market.shard.books[SYMBOL].traders[BUYER]
    trader.quote_held += 5
    trader.quote.available -= 5
    with pytest.raises(AssertionError, match=r"holds \[0, 1002005\] .* need \[0, 1002000\]"):
        market.shard.validate()


def test_a_balance_below_zero_is_found() -> None:
    market = market_of()
    market.shard.funds.purse(BUYER, "USDT").available -= USDT + 1
    market.shard.funds.purse(SELLER, "USDT").available += USDT + 1
    with pytest.raises(AssertionError, match="account 2 has -1 USDT"):
        market.shard.validate()
