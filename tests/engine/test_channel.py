"""What goes between a shard and the ledger: asks and their answers, recalls, and money that lies idle."""

from __future__ import annotations

import pytest

from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask, Message, RecallFunds, Return, Seen
from exchange.engine.commands import Tick
from exchange.engine.events import EscrowChanged, EventKind
from exchange.engine.funds import IDLE_WALLETS_PER_TICK
from exchange.engine.words import OrderStatus
from tests.engine.market import BUY, SELL, START_NS, Market, S

WAITING, GRANTED, DENIED, UNAVAILABLE, DONE = (int(status) for status in AnswerStatus)


@pytest.fixture
def market() -> Market:
    """A market whose accounts have what they are given."""
    return Market(is_rich=False)


def outbox(market: Market) -> list[Message]:
    return list(market.shard.funds.outbox.values())


def grant(market: Market, account: int, amount: int) -> None:
    """Let an account have USDT from the ledger, and nothing else be under way."""
    n = market.shard.funds.next_n
    name = f"grant{n}"
    market.place(account, name, BUY, amount, 1)
    market.apply(AnswerFunds(n, GRANTED, amount))
    market.apply(AnswerFunds(n + 1, DENIED, 0))
    market.cancel(account, name)
    assert outbox(market) == []
    assert market.money(account, "USDT") == (amount, 0)


def live_until(market: Market, time_ns: int) -> None:
    """Tick whenever that is due, as the host does."""
    while (due_ns := market.shard.next_timer_ns()) is not None and due_ns <= time_ns:
        market.time_ns = due_ns
        market.apply(Tick())
    market.time_ns = time_ns


# ---------------------------------------------------------------- asks and answers


def test_a_message_is_kept_until_it_is_answered_and_then_done_with(market: Market) -> None:
    funds = market.shard.funds
    for n, name in enumerate("abc", 1):
        market.place(2, name, BUY, 100, n)
    assert [message.n for message in outbox(market)] == [1, 2, 3]
    assert funds.low == 1
    market.apply(AnswerFunds(2, DENIED, 0))
    assert funds.low == 1
    market.apply(AnswerFunds(1, DENIED, 0))
    assert funds.low == 3
    market.apply(AnswerFunds(3, DENIED, 0))
    assert funds.low == funds.next_n == 4


def test_an_answer_counts_once_and_one_to_no_message_not_at_all(market: Market) -> None:
    market.place(2, "a", BUY, 100, 1)
    for n in (1, 1, 99, 0, -1):
        market.apply(AnswerFunds(n, GRANTED, 100))
    assert market.money(2, "USDT") == (0, 100)


def test_what_is_no_answer_to_a_message_changes_nothing(market: Market) -> None:
    market.place(2, "a", BUY, 100, 1)
    for status in (WAITING, DONE, 9):
        market.apply(AnswerFunds(1, status, 100))
        assert outbox(market) == [Ask(1, 2, "USDT", 100, True)]
        assert len(market.shard.parked) == 1
    market.apply(AnswerFunds(1, GRANTED, 100))
    assert market.bids() == [("a", 100, 1)]
    market.apply(AnswerFunds(2, DENIED, 0))
    market.cancel(2, "a")
    market.apply(RecallFunds(1, 1, 2, "USDT", 100))
    market.apply(AnswerFunds(3, GRANTED, 100))
    assert outbox(market) == [Return(3, 2, "USDT", 100, 1)]
    market.apply(AnswerFunds(3, DONE, 0))
    assert outbox(market) == []
    assert market.money(2, "USDT") == (0, 0)


# ---------------------------------------------------------------- asking in advance


def test_an_order_that_leaves_less_than_it_took_asks_for_the_like_of_it(market: Market) -> None:
    market.shard.funds.endow(2, "USDT", 250)
    market.place(2, "a", BUY, 100, 1)
    assert outbox(market) == []
    market.place(2, "b", BUY, 100, 1)
    assert outbox(market) == [Ask(1, 2, "USDT", 100, False)]
    # One at a time.
    market.place(2, "c", BUY, 50, 1)
    assert len(outbox(market)) == 1
    market.apply(AnswerFunds(1, GRANTED, 100))
    assert market.events == [EscrowChanged(EventKind.ESCROW, market.shard.sequence, 2, "USDT", 100, 1)]
    assert market.money(2, "USDT") == (100, 250)
    market.place(2, "d", BUY, 100, 1)
    assert outbox(market) == [Ask(2, 2, "USDT", 100, False)]


def test_nothing_is_asked_for_in_advance_for_a_second_after_there_was_nothing(market: Market) -> None:
    market.shard.funds.endow(2, "BTC", 4)
    market.place(2, "a", SELL, 100, 2)
    market.place(2, "b", SELL, 100, 1)
    assert outbox(market) == []
    market.place(2, "c", SELL, 100, 1)
    assert outbox(market) == [Ask(1, 2, "BTC", 1, False)]
    market.apply(AnswerFunds(1, DENIED, 0))
    for step_ns, asks in ((S - 1, 0), (1, 1)):
        market.time_ns += step_ns
        market.cancel(2, "c")
        market.place(2, f"c{asks}", SELL, 100, 1)
        assert len(outbox(market)) == asks


# ---------------------------------------------------------------- recalls


def test_a_recall_gets_what_is_free_once(market: Market) -> None:
    market.shard.funds.endow(2, "USDT", 1_000)
    market.place(2, "a", BUY, 100, 4)
    # Half of what is free beyond goes along.
    market.apply(RecallFunds(1, 1, 2, "USDT", 401))
    assert market.events == [EscrowChanged(EventKind.ESCROW, market.shard.sequence, 2, "USDT", -500, 1)]
    assert outbox(market) == [Return(1, 2, "USDT", 500, 1)]
    for m, low in ((1, 1), (1, 2)):
        market.apply(RecallFunds(m, low, 2, "USDT", 401))
        assert market.money(2, "USDT") == (100, 400)
    market.apply(RecallFunds(2, 2, 2, "USDT", 500))
    assert outbox(market)[1:] == [Return(2, 2, "USDT", 100, 2)]
    # What rests stays, and a recall that finds nothing says so.
    market.apply(RecallFunds(3, 2, 2, "USDT", 500))
    assert outbox(market)[2:] == [Return(3, 2, "USDT", 0, 3)]
    assert market.events == []
    assert market.money(2, "USDT") == (0, 400)


def test_a_recall_that_is_settled_elsewhere_is_not_obeyed(market: Market) -> None:
    market.shard.funds.endow(2, "USDT", 1_000)
    market.apply(RecallFunds(5, 5, 2, "USDT", 100))
    for m in (3, 4, 5):
        market.apply(RecallFunds(m, 1, 2, "USDT", 100))
    assert outbox(market) == [Return(1, 2, "USDT", 100 + 450, 5)]
    market.apply(RecallFunds(7, 5, 2, "USDT", 100))
    market.apply(RecallFunds(6, 5, 2, "USDT", 100))
    assert [message.amount for message in outbox(market)] == [550, 100 + 175, 100 + 37]


def test_a_recall_of_nothing_gets_half_of_what_is_free(market: Market) -> None:
    market.shard.funds.endow(2, "USDT", 1_001)
    market.apply(RecallFunds(1, 1, 2, "USDT", 0))
    assert outbox(market) == [Return(1, 2, "USDT", 500, 1)]


def test_a_recall_of_what_was_never_here_is_answered(market: Market) -> None:
    market.apply(RecallFunds(1, 1, 77, "DOGE", 100))
    assert outbox(market) == [Return(1, 77, "DOGE", 0, 1)]


def test_a_recall_takes_first_what_is_free_and_then_from_who_waits_shortest(market: Market) -> None:
    funds = market.shard.funds
    for name, part in (("old", 300), ("new", 200)):
        funds.endow(2, "USDT", part)
        market.place(2, name, BUY, 100, 10)
    funds.endow(2, "USDT", 100)
    old, new = market.shard.parked.values()
    for m, amount, parts in ((1, 100, (300, 200)), (2, 100, (300, 100)), (3, 150, (250, 0)), (4, 999, (0, 0))):
        market.apply(RecallFunds(m, 1, 2, "USDT", amount))
        assert (old.part, new.part) == parts
    assert [m.amount for m in outbox(market) if isinstance(m, Return)] == [100, 100, 150, 250]
    # With its answer a command asks for what it lacks then.
    market.apply(AnswerFunds(1, GRANTED, 700))
    assert outbox(market)[-1] == Ask(7, 2, "USDT", 300, True)
    market.apply(AnswerFunds(7, GRANTED, 300))
    assert market.bids() == [("old", 100, 10)]


def test_a_recall_leaves_what_others_wait_with(market: Market) -> None:
    funds = market.shard.funds
    funds.endow(2, "BTC", 3)
    funds.endow(3, "USDT", 300)
    market.place(2, "ask", SELL, 200, 10)
    market.place(3, "bid", BUY, 100, 10)
    market.apply(RecallFunds(1, 1, 2, "USDT", 100))
    assert [parked.part for parked in market.shard.parked.values()] == [3, 300]


# ---------------------------------------------------------------- money that lies idle


def test_money_that_lies_idle_goes_back(market: Market) -> None:
    grant(market, 2, 100)
    live_until(market, START_NS + 20 * S - 1)
    assert outbox(market) == []
    live_until(market, START_NS + 20 * S)
    assert outbox(market)[0][1:] == (2, "USDT", 100, 0)
    assert market.money(2, "USDT") == (0, 0)
    assert market.shard.next_timer_ns() is None


def test_it_is_looked_for_on_the_full_second(market: Market) -> None:
    market.time_ns += 123
    grant(market, 2, 100)
    assert market.shard.next_timer_ns() == START_NS + 11 * S


def test_the_money_of_who_trades_stays(market: Market) -> None:
    grant(market, 2, 100)
    for n in range(1, 12):
        live_until(market, START_NS + n * 5 * S)
        market.place(2, f"o{n}", BUY, n, 1)
        if n % 2:
            market.cancel(2, f"o{n - 1}")
    assert [m for m in outbox(market) if isinstance(m, Return)] == []


def test_what_orders_hold_stays_and_what_they_free_goes_back_later(market: Market) -> None:
    grant(market, 2, 100)
    market.place(2, "a", BUY, 60, 1)
    live_until(market, START_NS + 45 * S)
    (returned,) = (m for m in outbox(market) if isinstance(m, Return))
    assert returned.amount == 40
    assert market.money(2, "USDT") == (0, 60)
    market.cancel(2, "a")
    live_until(market, START_NS + 65 * S)
    assert market.money(2, "USDT") == (0, 0)


def test_what_trades_bring_goes_back_too(market: Market) -> None:
    market.shard.funds.endow(3, "BTC", 1)
    grant(market, 2, 100)
    market.place(3, "ask", SELL, 100, 1)
    market.place(2, "bid", BUY, 100, 1)
    live_until(market, START_NS + 40 * S)
    assert [m[1:] for m in outbox(market) if isinstance(m, Return)] == [(2, "BTC", 1, 0)]


def test_money_that_a_waiting_command_has_bound_flows_back_too_once_it_lies_idle(market: Market) -> None:
    grant(market, 2, 100)
    market.time_ns = START_NS + 10 * S - 1
    assert market.place(2, "b", BUY, 101, 1).status == OrderStatus.PENDING_FUNDS
    # It is looked at while all of it is bound.
    live_until(market, START_NS + 10 * S)
    market.apply(AnswerFunds(3, DENIED, 0))
    live_until(market, START_NS + 30 * S)
    assert outbox(market) == [Return(4, 2, "USDT", 100, 0)]


def test_the_house_keeps_its_money(market: Market) -> None:
    grant(market, 1, 100)
    assert market.shard.next_timer_ns() is None


def test_one_tick_looks_at_so_many_wallets(market: Market) -> None:
    accounts = IDLE_WALLETS_PER_TICK + 1
    for account in range(2, accounts + 2):
        grant(market, account, 100)
    market.time_ns = START_NS + 10 * S
    for left in (1, 0):
        market.apply(Tick())
        assert sum(wallet.due_ns == START_NS + 10 * S for wallet in market.shard.funds.idle) == left
    assert len(market.shard.funds.idle) == accounts


# ---------------------------------------------------------------- numbers that were seen


def test_numbers_below_the_lowest_of_interest_count_as_seen() -> None:
    seen = Seen()
    seen.add(2)
    seen.add(4)
    assert [n for n in range(1, 6) if n in seen] == [2, 4]
    seen.advance(4)
    assert [n for n in range(1, 6) if n in seen] == [1, 2, 3, 4]
    seen.advance(2)
    assert seen.low == 4
    assert list(seen.numbers) == [4]
