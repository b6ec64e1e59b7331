"""The ends of waiting for money: answers that are none, answers that say no, deadlines that come together."""

from __future__ import annotations

from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask
from exchange.engine.commands import Tick
from exchange.engine.words import OrderStatus, RejectReason
from tests.engine.market import BUY, Market, S

GRANTED, DENIED, UNAVAILABLE, DONE = (int(status) for status in list(AnswerStatus)[1:])
PENDING = OrderStatus.PENDING_FUNDS


def test_what_is_no_answer_to_a_message_changes_nothing() -> None:
    market = Market(is_rich=False)
    market.place(2, "a", BUY, 100, 1)
    for status in (AnswerStatus.WAITING, AnswerStatus.DONE, 9):
        market.apply(AnswerFunds(1, int(status), 100))
        assert list(market.shard.funds.outbox.values()) == [Ask(1, 2, "USDT", 100, True)]
        assert len(market.shard.parked) == 1
    market.apply(AnswerFunds(1, GRANTED, 100))
    assert market.bids() == [("a", 100, 1)]


def test_a_denied_order_asks_for_less_when_something_has_come_in_meanwhile() -> None:
    """The ledger has 100: it grants 40 and a share of the rest, after which it has less than the next 50."""
    market = Market(is_rich=False)
    market.place(2, "a", BUY, 40, 1)
    market.place(2, "b", BUY, 50, 1)
    market.apply(AnswerFunds(1, GRANTED, 70))
    market.apply(AnswerFunds(2, DENIED, 0))
    assert list(market.shard.funds.outbox.values())[-1] == Ask(4, 2, "USDT", 20, True)
    market.apply(AnswerFunds(4, GRANTED, 20))
    assert market.bids() == [("b", 50, 1), ("a", 40, 1)]


def test_a_denied_order_is_refused_when_nothing_has_come_in() -> None:
    market = Market(is_rich=False)
    market.place(2, "a", BUY, 40, 1)
    market.apply(AnswerFunds(1, DENIED, 0))
    assert not market.shard.parked
    assert market.place(2, "a", BUY, 40, 1).reject_reason == RejectReason.INSUFFICIENT_FUNDS


def test_orders_that_have_waited_long_enough_do_not_share_a_priority() -> None:
    market = Market(is_rich=False)
    market.place(2, "a", BUY, 200, 1)
    market.apply(AnswerFunds(1, GRANTED, 200))
    market.place(2, "b", BUY, 100, 1)
    market.place(2, "c", BUY, 100, 1)
    market.cancel(2, "a")
    market.time_ns += S
    market.apply(Tick())
    assert market.bids() == [("b", 100, 1)]
    assert market.shard.next_timer_ns() == market.time_ns
    market.apply(Tick())
    assert market.bids() == [("b", 100, 1), ("c", 100, 1)]
