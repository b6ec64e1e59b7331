"""I2: a command takes effect at most once per account and client order id, and its repeat gets the first outcome."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.engine import remembered
from exchange.engine.commands import AmendOrder, CancelOrder, Command, PlaceOrder, Tick
from exchange.engine.events import Result
from exchange.engine.state import restore, state_of
from exchange.engine.words import OrderStatus, RejectReason
from tests.engine.market import BUY, GTC, IOC, LIMIT, SELL, SYMBOL, Market, S

MINUTE = 60 * S


def first_and_repeat(market: Market, *order: Any, **more: Any) -> tuple[Result, Result]:
    return market.place(*order, **more), market.place(*order, **more)


def test_a_repeat_changes_nothing_and_gets_the_first_outcome() -> None:
    market = Market()
    first, repeat = first_and_repeat(market, 1, "x", BUY, 100, 5)
    assert repeat == first._replace(duplicate=True)
    assert market.events == []
    assert market.bids() == [("x", 100, 5)]


def test_the_first_outcome_stays_whatever_becomes_of_the_order() -> None:
    market = Market()
    market.place(2, "ask", SELL, 100, 2)
    first = market.place(1, "x", BUY, 100, 5)
    assert (first.status, first.filled, first.open) == (OrderStatus.OPEN, 2, 3)
    steps: list[Command] = [
        PlaceOrder(2, "more", SYMBOL, SELL, LIMIT, GTC, 100, 1),
        AmendOrder(1, SYMBOL, "x", 0, 0, 10),
        AmendOrder(1, SYMBOL, "x", 0, 90, 0),
        CancelOrder(1, SYMBOL, "x"),
    ]
    for step in steps:
        assert market.apply(step).reject_reason == 0
        assert market.place(1, "x", BUY, 100, 5) == first._replace(duplicate=True)


def test_an_order_that_closed_at_once_repeats_so() -> None:
    market = Market()
    market.place(2, "ask", SELL, 100, 2)
    first, repeat = first_and_repeat(market, 1, "x", BUY, 100, 5, time_in_force=IOC)
    assert (first.status, first.filled) == (OrderStatus.CANCELLED, 2)
    assert repeat == first._replace(duplicate=True)
    market.place(2, "ask2", SELL, 100, 2)
    first, repeat = first_and_repeat(market, 1, "y", BUY, 100, 2)
    assert first.status == OrderStatus.FILLED
    assert repeat == first._replace(duplicate=True)


def test_a_refused_order_stays_refused() -> None:
    market = Market()
    first, repeat = first_and_repeat(market, 1, "x", BUY, 0, 5)
    assert first.reject_reason == RejectReason.PRICE_INVALID
    assert repeat == first._replace(duplicate=True)


def test_the_same_id_for_another_order_is_refused() -> None:
    market = Market()
    market.place(1, "x", BUY, 100, 5)
    for other in ((BUY, 100, 6), (BUY, 101, 5), (SELL, 100, 5)):
        assert market.place(1, "x", *other).reject_reason == RejectReason.CLIENT_ORDER_ID_REUSED
    assert market.place(1, "x", BUY, 100, 5, post_only=True).reject_reason == RejectReason.CLIENT_ORDER_ID_REUSED
    assert market.place(2, "x", BUY, 100, 6).reject_reason == 0
    # The first is still what counts.
    assert market.place(1, "x", BUY, 100, 5).duplicate


def test_the_session_is_not_part_of_the_order() -> None:
    market = Market()
    market.place(1, "x", BUY, 100, 5, session=1)
    assert market.place(1, "x", BUY, 100, 5, session=2).duplicate


def test_a_repeat_is_known_after_a_restart() -> None:
    market = Market()
    results = [
        market.place(1, "open", BUY, 100, 5),
        market.place(1, "refused", BUY, 0, 5),
        market.place(2, "taker", SELL, 100, 1, time_in_force=IOC),
    ]
    market.shard = restore(state_of(market.shard))
    repeats = [
        market.place(1, "open", BUY, 100, 5),
        market.place(1, "refused", BUY, 0, 5),
        market.place(2, "taker", SELL, 100, 1, time_in_force=IOC),
    ]
    assert repeats == [result._replace(duplicate=True) for result in results]


def closed_order(market: Market, name: str) -> None:
    market.place(1, name, BUY, 100, 5)
    market.cancel(1, name)


def test_a_closed_order_is_remembered_for_ten_minutes() -> None:
    market = Market()
    closed_order(market, "x")
    market.time_ns += 10 * MINUTE
    assert market.place(1, "x", BUY, 100, 5).duplicate
    market.time_ns += 1
    assert not market.place(1, "x", BUY, 100, 5).duplicate


def test_an_open_order_is_remembered_for_ever() -> None:
    market = Market()
    market.place(1, "x", BUY, 100, 5)
    market.time_ns += 1_000 * MINUTE
    assert market.place(1, "x", BUY, 100, 5).duplicate
    # The ten minutes begin when it closes.
    market.cancel(1, "x")
    market.time_ns += 10 * MINUTE
    assert market.place(1, "x", BUY, 100, 5).duplicate


def test_only_so_many_closed_orders_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "CLOSED_KEPT_MAX", 20)
    market = Market()
    for n in range(50):
        closed_order(market, f"o{n}")
        market.time_ns += S
    market.apply(Tick())
    assert len(market.shard.closed) == 20
    assert market.place(1, "o30", BUY, 100, 5).duplicate
    assert not market.place(1, "o29", BUY, 100, 5).duplicate


def test_but_those_of_the_last_ten_seconds_always_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "CLOSED_KEPT_MAX", 5)
    market = Market()
    for n in range(50):
        closed_order(market, f"o{n}")
    market.time_ns += 10 * S
    assert market.place(1, "o0", BUY, 100, 5).duplicate
    market.time_ns += 1
    market.shard.apply(market.time_ns, [Tick()] * 10)
    assert len(market.shard.closed) == 5


def test_what_is_forgotten_is_found_by_no_name() -> None:
    market = Market()
    order_id = market.place(1, "x", BUY, 100, 5).order_id
    market.cancel(1, "x")
    assert market.cancel(1, "", order_id).reject_reason == RejectReason.ORDER_CLOSED
    market.time_ns += 10 * MINUTE + 1
    assert market.cancel(1, "", order_id).reject_reason == RejectReason.ORDER_UNKNOWN
    assert market.cancel(1, "x").reject_reason == RejectReason.ORDER_UNKNOWN


def test_forgetting_is_spread_over_the_commands() -> None:
    market = Market()
    for n in range(100):
        closed_order(market, f"o{n}")
    market.time_ns += 11 * MINUTE
    market.apply(Tick())
    assert 0 < 100 - len(market.shard.closed) < 20
    market.shard.apply(market.time_ns, [Tick()] * 100)
    assert len(market.shard.closed) == 0
