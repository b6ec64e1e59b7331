"""Each reason for which the engine refuses a command, with the commands that it refuses for it."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.engine.commands import AddInstrument, CancelAll, CancelOrder, Command, PlaceOrder, SetStage
from exchange.engine.events import OrderAccepted
from exchange.engine.words import OrderStatus, RejectReason, Stage
from tests.engine.market import BUY, FOK, GTC, GTD, INSTRUMENT, IOC, MARKET, SELL, START_NS, SYMBOL, Market

STRICT = INSTRUMENT._replace(
    tick_size=5,
    lot_size=10,
    min_quantity=20,
    max_quantity=100,
    band_bps=1_000,
    reference_price=1_000,
    max_open_orders=2,
)
GOOD = PlaceOrder(1, "x", SYMBOL, BUY, 1, GTC, 1_000, 50)
SENT_AS_MARKET = {"type": MARKET, "price": 0, "time_in_force": 0}
R = RejectReason

BAD_ORDERS: list[tuple[RejectReason, dict[str, Any]]] = [
    *((R.CLIENT_ORDER_ID_INVALID, {"client_order_id": name}) for name in ("", "a b", "x" * 37, "x\n", "é", "²", "٣")),
    *((R.SIDE_INVALID, {"side": side}) for side in (0, 3, -1)),
    *((R.ORDER_TYPE_INVALID, {"type": kind}) for kind in (0, 3)),
    *((R.TIME_IN_FORCE_INVALID, {"time_in_force": value}) for value in (-1, 5)),
    *((R.TIME_IN_FORCE_INVALID, SENT_AS_MARKET | {"time_in_force": value}) for value in (GTC, GTD)),
    *((R.PRICE_INVALID, {"price": price}) for price in (0, -5, 2**63)),
    (R.PRICE_INVALID, SENT_AS_MARKET | {"price": 1_000}),
    (R.PRICE_NOT_ON_TICK, {"price": 1_001}),
    (R.PRICE_OUTSIDE_BAND, {"price": 1_105}),
    (R.PRICE_OUTSIDE_BAND, {"side": SELL, "price": 895}),
    *((R.QUANTITY_INVALID, {"quantity": quantity}) for quantity in (0, -10, 2**63)),
    (R.QUANTITY_NOT_ON_LOT, {"quantity": 25}),
    (R.QUANTITY_TOO_SMALL, {"quantity": 10}),
    (R.QUANTITY_TOO_LARGE, {"quantity": 110}),
    (R.EXPIRE_TIME_INVALID, {"time_in_force": GTD}),
    (R.EXPIRE_TIME_INVALID, {"time_in_force": GTD, "expire_time_ns": START_NS}),
    (R.EXPIRE_TIME_INVALID, {"expire_time_ns": START_NS + 1}),
    *((R.POST_ONLY_INVALID, {"post_only": True, "time_in_force": value}) for value in (IOC, FOK)),
    (R.POST_ONLY_INVALID, SENT_AS_MARKET | {"post_only": True}),
    *((R.SELF_TRADE_PREVENTION_INVALID, {"self_trade_prevention": value}) for value in (-1, 4)),
    (R.INSTRUMENT_UNKNOWN, {"instrument": "NO-SUCH"}),
]


@pytest.mark.parametrize(("reason", "change"), BAD_ORDERS, ids=lambda value: getattr(value, "name", None))
def test_a_bad_order_is_refused_and_changes_nothing(reason: RejectReason, change: dict[str, Any]) -> None:
    market = Market(STRICT)
    result = market.apply(GOOD._replace(**change))
    assert (result.status, result.reject_reason, result.order_id) == (OrderStatus.REJECTED, reason, 0)
    assert market.events == []
    assert list(market.shard.books[SYMBOL].orders()) == []


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"client_order_id": "A-z_9" + "x" * 31},
        {"price": 5},
        {"price": 1_100},
        {"side": SELL, "price": 900},
        {"side": SELL, "price": 99_995},
        {"quantity": 20},
        {"quantity": 100},
        {"time_in_force": GTD, "expire_time_ns": START_NS + 1},
        {"post_only": True, "time_in_force": 0},
        {"self_trade_prevention": 3},
        SENT_AS_MARKET,
        SENT_AS_MARKET | {"time_in_force": FOK},
    ],
)
def test_an_order_at_the_edge_of_what_is_allowed_is_accepted(change: dict[str, Any]) -> None:
    market = Market(STRICT)
    market.endow(GOOD.account)
    assert market.apply(GOOD._replace(**change)).reject_reason == 0
    assert isinstance(market.events[0], OrderAccepted)


def test_an_account_has_only_so_many_open_orders_in_an_instrument() -> None:
    market = Market(STRICT)
    market.place(1, "a", BUY, 900, 20)
    market.place(1, "b", BUY, 900, 20)
    assert market.place(1, "c", BUY, 900, 20).reject_reason == R.TOO_MANY_OPEN_ORDERS
    assert market.place(2, "c", BUY, 900, 20).reject_reason == 0
    market.cancel(1, "a")
    assert market.place(1, "d", BUY, 900, 20).reject_reason == 0


def test_the_names_of_orders() -> None:
    market = Market()
    market.place(1, "x", BUY, 100, 1)
    assert market.place(1, "x", BUY, 101, 1).reject_reason == R.CLIENT_ORDER_ID_REUSED
    assert market.cancel(1, "y").reject_reason == R.ORDER_UNKNOWN
    assert market.cancel(1, "").reject_reason == R.ORDER_UNKNOWN
    market.cancel(1, "x")
    assert market.cancel(1, "x").reject_reason == R.ORDER_CLOSED
    assert market.amend(1, "x", price=5).reject_reason == R.ORDER_CLOSED
    assert market.place(1, "bad", BUY, 0, 1).reject_reason == R.PRICE_INVALID
    assert market.cancel(1, "bad").reject_reason == R.ORDER_UNKNOWN
    assert market.place(1, "z", BUY, 1, 1).reject_reason == 0
    market.place(2, "m", SELL, 100, 1)
    assert market.place(1, "p", BUY, 100, 1, post_only=True).reject_reason == R.WOULD_TAKE


def test_an_order_of_another_instrument_is_unknown() -> None:
    market = Market()
    market.apply(AddInstrument(INSTRUMENT._replace(symbol="ETH-USDT")))
    order_id = market.place(1, "x", BUY, 100, 1).order_id
    for command in (CancelOrder(1, "ETH-USDT", "x"), CancelOrder(1, "ETH-USDT", "", order_id)):
        assert market.apply(command).reject_reason == R.ORDER_UNKNOWN
    assert market.apply(CancelOrder(1, "NO-SUCH", "x")).reject_reason == R.INSTRUMENT_UNKNOWN


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (R.NOTHING_TO_AMEND, {}),
        (R.PRICE_INVALID, {"price": -5}),
        (R.PRICE_INVALID, {"price": 2**63}),
        (R.QUANTITY_INVALID, {"quantity": -10}),
        (R.QUANTITY_INVALID, {"open_quantity": -10}),
        (R.QUANTITY_INVALID, {"quantity": 30, "open_quantity": 30}),
        (R.QUANTITY_INVALID, {"quantity": 2**63}),
        (R.PRICE_NOT_ON_TICK, {"price": 901}),
        (R.PRICE_OUTSIDE_BAND, {"price": 1_105}),
        (R.QUANTITY_NOT_ON_LOT, {"quantity": 35}),
        (R.QUANTITY_TOO_SMALL, {"quantity": 10}),
        (R.QUANTITY_TOO_LARGE, {"quantity": 110}),
    ],
)
def test_a_bad_amend_is_refused_and_changes_nothing(reason: RejectReason, change: dict[str, int]) -> None:
    market = Market(STRICT)
    market.place(1, "a", BUY, 900, 50)
    result = market.amend(1, "a", **change)
    assert (result.status, result.reject_reason, result.open) == (OrderStatus.OPEN, reason, 50)
    assert market.events == []
    assert market.bids() == [("a", 900, 50)]


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        (R.INSTRUMENT_UNKNOWN, CancelAll(1, "NO-SUCH")),
        (R.SIDE_INVALID, CancelAll(1, side=3)),
        (R.MALFORMED, SetStage(9)),
        (R.INSTRUMENT_EXISTS, AddInstrument(INSTRUMENT._replace(tick_size=2))),
        (R.INSTRUMENT_INVALID, AddInstrument(INSTRUMENT._replace(symbol="ETH-USDT", tick_size=0))),
    ],
)
def test_a_bad_command_to_the_shard_is_refused(reason: RejectReason, command: Command) -> None:
    assert Market().apply(command).reject_reason == reason


def test_a_stage_refuses_with_its_own_reason() -> None:
    for stage in (Stage.REPLAYING, Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.HALTED):
        result = Market(stage=stage).place(1, "x", BUY, 100, 1)
        assert result.reject_reason == getattr(R, f"STAGE_{stage.name}")
        assert RejectReason(result.reject_reason).is_passing
    assert not R.ORDER_UNKNOWN.is_passing
