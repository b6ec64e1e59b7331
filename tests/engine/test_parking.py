"""Commands that wait for money from the ledger: how they come to wait, and how that ends."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.engine import parking
from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask, Return
from exchange.engine.commands import AddInstrument, CancelAll, CancelAllAfter, CancelSessions, SetStage, Tick
from exchange.engine.events import EscrowChanged, EventKind, OrderAccepted, ParkedResolved, Result
from exchange.engine.words import CloseReason, OrderStatus, RejectReason, Stage
from tests.engine.market import BUY, FOK, GTD, INSTRUMENT, IOC, MARKET, SELL, START_NS, SYMBOL, Market, S, brief

GRANTED, DENIED, UNAVAILABLE = int(AnswerStatus.GRANTED), int(AnswerStatus.DENIED), int(AnswerStatus.UNAVAILABLE)
PENDING, OPEN, FILLED, CANCELLED, REJECTED = (
    OrderStatus.PENDING_FUNDS,
    OrderStatus.OPEN,
    OrderStatus.FILLED,
    OrderStatus.CANCELLED,
    OrderStatus.REJECTED,
)
R = RejectReason


class Ledger(Market):
    """A market whose accounts have what they are given, and what the ledger may say to its shard."""

    def __init__(self, **more: Any) -> None:
        super().__init__(is_rich=False, **more)

    def give(self, account: int, asset: str, amount: int) -> None:
        self.shard.funds.endow(account, asset, amount)

    def grant(self, n: int, amount: int) -> None:
        self.apply(AnswerFunds(n, GRANTED, amount))

    @property
    def outbox(self) -> list[Ask | Return]:
        return list(self.shard.funds.outbox.values())

    @property
    def resolved(self) -> list[tuple[int, int, int, int, int]]:
        """What the last command told of commands that have waited: their sequence, status, open, and the reasons."""
        told = [event for event in self.events if isinstance(event, ParkedResolved)]
        return [(e.parked_sequence, e.status, e.open, e.reject_reason, e.close_reason) for e in told]

    def tick_at(self, time_ns: int) -> Result:
        self.time_ns = time_ns
        return self.apply(Tick())


@pytest.fixture
def market() -> Ledger:
    return Ledger()


# ---------------------------------------------------------------- waiting for money


def test_an_order_that_lacks_money_waits_and_asks_for_what_is_missing(market: Ledger) -> None:
    market.give(2, "USDT", 300)
    result = market.place(2, "a", BUY, 100, 10)
    assert result == (3, "a", 0, PENDING, 0, 10, 0, 0, False, 0)
    assert market.events == []
    assert market.outbox == [Ask(1, 2, "USDT", 700, True)]
    assert market.money(2, "USDT") == (0, 300)
    assert market.bids() == []


def test_a_grant_lets_it_come_anew(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.give(3, "USDT", 100)
    market.place(3, "b", BUY, 100, 1)
    market.time_ns += 5
    market.grant(1, 1_500)
    assert market.events == [
        EscrowChanged(EventKind.ESCROW, 5, 2, "USDT", 1_500, 1),
        OrderAccepted(EventKind.ACCEPTED, 5, SYMBOL, 3, 2, "a", BUY, 100, 10),
        ParkedResolved(EventKind.RESOLVED, 5, SYMBOL, 2, 3, "a", 3, OPEN, 0, 10, 0, 0),
    ]
    # Behind what came to rest meanwhile, and known by the sequence of its command.
    assert market.bids() == [("b", 100, 1), ("a", 100, 10)]
    order = market.shard.find(2, SYMBOL, "", 3)
    assert order is not None
    assert (order.create_time_ns, order.update_time_ns, order.priority) == (START_NS, START_NS + 5, 5)
    assert market.money(2, "USDT") == (500, 1_000)


def test_it_trades_at_once_if_it_can(market: Ledger) -> None:
    market.give(3, "BTC", 10)
    market.place(2, "a", BUY, 100, 10)
    market.place(3, "ask", SELL, 90, 10)
    market.grant(1, 1_000)
    assert market.resolved == [(3, FILLED, 0, 0, 0)]
    assert market.trades == [(90, 10)]
    assert market.money(2, "USDT") == (100, 0)


def test_a_grant_of_too_little_is_bound_and_the_rest_asked_for(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.grant(1, 400)
    assert market.resolved == []
    assert market.outbox == [Ask(2, 2, "USDT", 600, True)]
    assert market.money(2, "USDT") == (0, 400)
    market.grant(2, 600)
    assert market.resolved == [(3, OPEN, 10, 0, 0)]


def test_money_that_comes_by_itself_meanwhile_counts_when_the_answer_comes(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.give(2, "USDT", 1_000)
    market.apply(AnswerFunds(1, DENIED, 0))
    assert market.resolved == [(3, OPEN, 10, 0, 0)]


def test_two_orders_ask_each_for_its_own(market: Ledger) -> None:
    market.give(2, "USDT", 300)
    market.place(2, "a", BUY, 100, 10)
    market.place(2, "b", BUY, 100, 5)
    assert [(m.n, m.amount) for m in market.outbox] == [(1, 700), (2, 500)]
    market.grant(2, 500)
    assert market.bids() == [("b", 100, 5)]
    market.grant(1, 700)
    assert market.bids() == [("b", 100, 5), ("a", 100, 10)]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"time_in_force": IOC}, (CANCELLED, 0, 0, CloseReason.NOT_FILLED)),
        ({"time_in_force": FOK}, (CANCELLED, 0, 0, CloseReason.NOT_FILLED)),
        ({"post_only": True}, (REJECTED, 0, R.WOULD_TAKE, 0)),
        ({"time_in_force": GTD, "expire_time_ns": START_NS + 1}, (REJECTED, 0, R.EXPIRE_TIME_INVALID, 0)),
        ({"time_in_force": GTD, "expire_time_ns": START_NS + 2}, (OPEN, 6, 0, 0)),
    ],
)
def test_an_order_is_what_it_said_when_it_goes_on(
    market: Ledger, more: dict[str, Any], expected: tuple[int, ...]
) -> None:
    market.place(2, "a", BUY, 100, 10, **more)
    market.give(3, "BTC", 4)
    market.place(3, "ask", SELL, 100, 4)
    market.time_ns += 1
    market.grant(1, 1_000)
    assert market.resolved == [(3, *expected)]
    paid = 400 if more.get("time_in_force") in (IOC, GTD) and expected[0] != REJECTED else 0
    assert sum(market.money(2, "USDT")) == 1_000 - paid


def test_a_market_order_is_protected_by_the_prices_there_are_when_it_goes_on(market: Ledger) -> None:
    market.give(3, "BTC", 10)
    market.place(3, "s1", SELL, 100, 5)
    market.place(2, "a", BUY, 0, 5, type=MARKET, time_in_force=0)
    market.cancel(3, "s1")
    market.place(3, "s2", SELL, 110, 5)
    market.grant(1, 500)
    # It costs more now, and asks again.
    assert [m.amount for m in market.outbox] == [50]
    market.grant(2, 50)
    assert market.trades == [(110, 5)]


# ---------------------------------------------------------------- no money


def test_an_order_without_money_is_refused_for_good(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.apply(AnswerFunds(1, DENIED, 0))
    assert market.resolved == [(3, REJECTED, 0, R.INSUFFICIENT_FUNDS, 0)]
    repeat = market.place(2, "a", BUY, 100, 10)
    assert (repeat.sequence, repeat.reject_reason, repeat.duplicate) == (3, R.INSUFFICIENT_FUNDS, True)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_order_whose_money_did_not_come_in_time_may_be_sent_again(market: Ledger, is_late: bool) -> None:
    market.place(2, "a", BUY, 100, 10)
    if is_late:
        market.tick_at(START_NS + S)
    else:
        market.apply(AnswerFunds(1, UNAVAILABLE, 0))
    assert market.resolved == [(3, REJECTED, 0, R.FUNDS_UNAVAILABLE, 0)]
    again = market.place(2, "a", BUY, 50, 2)
    assert (again.status, again.duplicate) == (PENDING, False)


def test_the_deadline_frees_what_was_bound_and_a_late_grant_is_kept(market: Ledger) -> None:
    market.give(2, "USDT", 300)
    market.place(2, "a", BUY, 100, 10)
    assert market.shard.next_timer_ns() == START_NS + S
    market.tick_at(START_NS + S - 1)
    assert market.resolved == []
    market.tick_at(START_NS + S)
    assert market.money(2, "USDT") == (300, 0)
    assert market.outbox == [Ask(1, 2, "USDT", 700, True)]
    market.grant(1, 700)
    assert market.money(2, "USDT") == (1_000, 0)
    assert market.resolved == []


def test_the_deadline_is_the_last_chance_and_counts_from_the_beginning(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.time_ns += S // 2
    market.grant(1, 400)
    market.give(2, "USDT", 600)
    market.tick_at(START_NS + S)
    assert market.resolved == [(3, OPEN, 10, 0, 0)]


def test_only_so_many_commands_wait(market: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_MAX", 2)
    market.place(2, "a", BUY, 100, 1)
    market.place(2, "b", BUY, 100, 1)
    assert market.place(2, "c", BUY, 100, 1).reject_reason == R.FUNDS_UNAVAILABLE
    # Its name is free, once there is room.
    market.cancel(2, "a")
    result = market.place(2, "c", BUY, 100, 1)
    assert (result.status, result.duplicate) == (PENDING, False)


def test_the_stage_of_the_moment_decides_when_it_goes_on(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.apply(SetStage(int(Stage.CANCEL_ONLY)))
    market.grant(1, 1_000)
    assert market.resolved == [(3, REJECTED, 0, R.STAGE_CANCEL_ONLY, 0)]
    assert market.money(2, "USDT") == (1_000, 0)


# ---------------------------------------------------------------- orders that wait


def test_a_repeat_of_an_order_that_waits_is_told_that_it_waits(market: Ledger) -> None:
    first = market.place(2, "a", BUY, 100, 10)
    repeat = market.place(2, "a", BUY, 100, 10, session=9)
    assert repeat == first._replace(duplicate=True)
    assert market.place(2, "a", BUY, 101, 10).reject_reason == R.CLIENT_ORDER_ID_REUSED
    assert len(market.outbox) == 1


def test_a_repeat_of_an_order_that_has_waited_is_told_what_became_of_it(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    market.grant(1, 1_000)
    repeat = market.place(2, "a", BUY, 100, 10)
    assert repeat == (3, "a", 3, OPEN, 0, 10, 0, 0, True, 0)


def test_an_order_that_waits_can_be_cancelled_but_not_amended(market: Ledger) -> None:
    market.give(2, "USDT", 300)
    market.place(2, "a", BUY, 100, 10)
    assert market.amend(2, "a", price=90).reject_reason == R.ORDER_PENDING_FUNDS
    result = market.cancel(2, "a")
    assert brief(result) == (CANCELLED, 0, 0, 0, CloseReason.REQUESTED)
    assert market.resolved == [(3, CANCELLED, 0, 0, CloseReason.REQUESTED)]
    assert market.money(2, "USDT") == (300, 0)
    assert market.cancel(2, "a").reject_reason == R.ORDER_CLOSED
    assert market.place(2, "a", BUY, 100, 10) == (3, "a", 3, CANCELLED, 0, 0, 0, CloseReason.REQUESTED, True, 0)
    # The answer finds nobody who waits for it: no fill after a cancel.
    market.grant(1, 700)
    assert market.resolved == []
    assert market.bids() == []
    assert market.shard.next_timer_ns() == START_NS + 10 * S


def test_an_order_that_waits_has_no_id_yet(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10)
    assert market.cancel(2, "", 3).reject_reason == R.ORDER_UNKNOWN
    market.grant(1, 1_000)
    assert market.cancel(2, "", 3).status == CANCELLED


def test_a_mass_cancel_takes_what_waits(market: Ledger) -> None:
    market.apply(AddInstrument(INSTRUMENT._replace(symbol="ETH-USDT", base_asset="ETH")))
    market.give(2, "USDT", 100)
    market.place(2, "open", BUY, 100, 1)
    for account, name, side in ((2, "bid", BUY), (2, "ask", SELL), (3, "other", BUY)):
        market.place(account, name, side, 100, 10)
    market.symbol = "ETH-USDT"
    market.place(2, "eth", BUY, 100, 10)
    assert market.apply(CancelAll(2, SYMBOL, BUY)).cancelled_orders == 2
    assert market.apply(CancelAll(2, SYMBOL)).cancelled_orders == 1
    assert market.apply(CancelAll(2)).cancelled_orders == 1
    assert [parked.command.client_order_id for parked in market.shard.parked.values()] == ["other"]


def test_the_end_of_its_session_takes_an_order_that_waits(market: Ledger) -> None:
    for session, name in ((0, "none"), (5, "five"), (6, "six")):
        market.place(2, name, BUY, 100, 10, session=session)
    assert market.apply(CancelSessions(0, 5)).cancelled_orders == 1
    assert market.resolved == [(4, CANCELLED, 0, 0, CloseReason.DISCONNECTED)]
    market.grant(3, 1_000)
    assert market.apply(CancelSessions(6, 6)).cancelled_orders == 1
    assert market.bids() == []


def test_the_dead_mans_switch_takes_an_order_that_waits(market: Ledger) -> None:
    market.apply(CancelAllAfter(2, START_NS + S // 2))
    market.place(2, "a", BUY, 100, 10)
    assert market.tick_at(START_NS + S // 2).cancelled_orders == 1
    assert market.resolved == [(4, CANCELLED, 0, 0, CloseReason.DEAD_MANS_SWITCH)]


def test_a_switch_that_fires_when_an_order_has_waited_long_enough_cancels_it_once(market: Ledger) -> None:
    assert market.place(1, "a", BUY, 100, 1).status == PENDING
    market.apply(CancelAllAfter(1, START_NS + S))
    assert market.tick_at(START_NS + S).cancelled_orders == 1
    assert market.shard.next_timer_ns() is None


def test_an_order_that_expires_is_watched_from_when_it_rests(market: Ledger) -> None:
    market.place(2, "a", BUY, 100, 10, time_in_force=GTD, expire_time_ns=START_NS + 3 * S)
    market.grant(1, 1_000)
    assert market.tick_at(START_NS + 3 * S).cancelled_orders == 1
    assert market.money(2, "USDT") == (1_000, 0)


# ---------------------------------------------------------------- amends that wait


@pytest.fixture
def rested() -> Ledger:
    """A bid for 10 at 100 of an account that has no more."""
    market = Ledger()
    market.give(2, "USDT", 1_000)
    market.place(2, "a", BUY, 100, 10)
    market.apply(AnswerFunds(1, DENIED, 0))
    return market


def test_an_amend_that_needs_more_waits_and_the_order_stays_as_it_is(rested: Ledger) -> None:
    result = rested.amend(2, "a", price=110)
    assert result == (5, "a", 3, PENDING, 0, 10, 0, 0, False, 0)
    assert rested.bids() == [("a", 100, 10)]
    assert rested.outbox == [Ask(2, 2, "USDT", 100, True)]
    rested.give(3, "BTC", 4)
    rested.place(3, "ask", SELL, 100, 4)
    assert rested.trades == [(100, 4)]
    rested.grant(2, 100)
    assert rested.bids() == [("a", 110, 6)]
    assert rested.resolved == [(5, OPEN, 6, 0, 0)]
    assert rested.money(2, "USDT") == (40, 660)


def test_an_amend_of_an_order_that_closes_meanwhile_is_told_so(rested: Ledger) -> None:
    rested.amend(2, "a", price=110)
    rested.cancel(2, "a")
    rested.grant(2, 100)
    assert rested.resolved == [(5, CANCELLED, 0, R.ORDER_CLOSED, CloseReason.REQUESTED)]
    assert rested.money(2, "USDT") == (1_100, 0)


@pytest.mark.parametrize(
    ("status", "reason"), [(DENIED, R.INSUFFICIENT_FUNDS), (UNAVAILABLE, R.FUNDS_UNAVAILABLE), (0, R.FUNDS_UNAVAILABLE)]
)
@pytest.mark.parametrize("cancel_on_fail", [False, True])
def test_an_amend_without_money_leaves_the_order_unless_told_to_cancel(
    rested: Ledger, status: int, reason: int, cancel_on_fail: bool
) -> None:
    rested.amend(2, "a", quantity=20, cancel_on_fail=cancel_on_fail)
    if status:
        rested.apply(AnswerFunds(2, status, 0))
    else:
        rested.tick_at(START_NS + S)
    if cancel_on_fail:
        assert rested.resolved == [(5, CANCELLED, 0, reason, CloseReason.AMEND_FAILED)]
        assert rested.bids() == []
        assert rested.money(2, "USDT") == (1_000, 0)
    else:
        assert rested.resolved == [(5, OPEN, 10, reason, 0)]
        assert rested.bids() == [("a", 100, 10)]
        assert rested.money(2, "USDT") == (0, 1_000)


def test_an_amend_that_cannot_wait_leaves_the_order(rested: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_MAX", 0)
    assert brief(rested.amend(2, "a", quantity=20)) == (OPEN, 0, 10, R.FUNDS_UNAVAILABLE, 0)
