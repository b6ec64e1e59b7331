"""What is wrong with the books is found, with evidence that says where; breaks are planted behind a machine's back."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.engine.channel import AnswerFunds, AskFunds, Return, ReturnFunds
from exchange.engine.commands import CancelAll
from exchange.engine.events import EscrowChanged, EventKind
from exchange.engine.funds import Purse
from exchange.supervisor.audit.words import AuditReport, Break
from tests.supervisor.books import BUY, GRANTED, SELL, Books, S

DENIED, DONE = 2, 4
SYMBOL = "BTC-USDT"


async def traded() -> Books:
    """Two accounts have traded on both shards, and the auditor has followed."""
    books = Books()
    await books.balanced()
    for shard, symbol in (("shard-0", SYMBOL), ("shard-0", "ETH-BTC"), ("shard-1", "ETH-USDT")):
        books.place(shard, symbol, 2, SELL, 10_000, 400)
        books.place(shard, symbol, 3, BUY, 10_000, 300)
        books.place(shard, symbol, 4, BUY, 9_000, 100)
    report = await books.balanced()
    assert report.trades == 3
    return books


def purse(books: Books, account: int, asset: str, shard: str = "shard-0") -> Purse:
    found: Purse = books.shards[shard].machine.funds.wallets[account].purses[asset]
    return found


def the_break(report: AuditReport, kind: str) -> Break:
    """Return the only break of a kind."""
    (found,) = [found for found in report.breaks if found.kind == kind]
    return found


def shards_of(report: AuditReport) -> set[str]:
    return {shard for found in report.breaks for shard in found.shards}


async def test_books_that_balance_say_where_all_money_is() -> None:
    books = await traded()
    # One order waits for a grant that is on its way.
    books.shards["shard-0"].apply(books.time_ns, [books.order(SYMBOL, 4, BUY, 9_900, 60_000)])
    books.ledger.apply(books.time_ns, books.to_ledger("shard-0"))
    report = await books.balanced()
    (usdt,) = [line for line in report.assets if line.asset == "USDT"]
    assert usdt.supply == 3 * 10**9
    assert usdt.under_way > 0
    assert set(usdt.escrow) == {"shard-0", "shard-1"}
    assert usdt.ledger + sum(usdt.escrow.values()) + usdt.under_way == usdt.supply
    assert report.orders == 6
    assert report.notes == []


async def test_a_fee_that_is_not_what_the_rates_make_is_found_where_it_is_charged() -> None:
    books = await traded()
    node = books.shards["shard-0"]

    def dearer(events: list[Any]) -> list[Any]:
        return [(*e[:-1], e[-1] + 1) if e[0] == EventKind.TRADED else e for e in events]

    node.tell = dearer  # type: ignore[method-assign]
    placed_at = node.machine.sequence + 1
    books.place("shard-0", SYMBOL, 3, BUY, 10_000, 100)
    await books.auditor.follow()
    # It does not take an audit.
    (found,) = books.auditor.breaks.values()
    # 100 x 0.0001 BTC at 100.00: 1 USDT, of which 2,500 ppm.
    assert (found.rule, found.kind, found.expected, found.found) == ("I3", "FEE", 2_500, 2_501)
    assert (found.accounts, found.asset, found.shards) == ((3,), "USDT", ("shard-0",))
    assert found.subject == "BTC-USDT trade 2 taker fee"
    assert found.sequences == (("shard-0", placed_at),)
    assert any("OrderTraded" in event and "taker_fee=2501" in event for event in found.events)
    # The state knows nothing of it: events and state differ.
    report = await books.audit()
    owned = [b for b in report.breaks if b.kind == "OWNED"]
    assert {(b.accounts, b.found - b.expected) for b in owned} == {((3,), 1), ((1,), -1)}
    assert shards_of(report) == {"shard-0"}
    # Each was told once; the books agree from here on.
    assert (await books.audit()).breaks == []


async def test_a_purse_that_changes_behind_its_back_is_found_with_the_account() -> None:
    books = await traded()
    purse(books, 3, "USDT").available += 7
    report = await books.audit()
    owned = the_break(report, "OWNED")
    assert (owned.rule, owned.accounts, owned.asset, owned.found - owned.expected) == ("I3", (3,), "USDT", 7)
    assert owned.sequences == (("shard-0", books.shards["shard-0"].machine.sequence),)
    assert any("EscrowChanged" in event and "account=3" in event for event in owned.events)
    escrow = the_break(report, "ESCROW")
    assert (escrow.shards, escrow.found - escrow.expected) == (("shard-0",), 7)
    assert shards_of(report) == {"shard-0"}
    (usdt,) = [line for line in report.assets if line.asset == "USDT"]
    assert usdt.difference == 7
    assert not report.is_balanced
    # What still stands is told again, and is the same break.
    known = set(books.auditor.breaks)
    assert [b.kind for b in (await books.audit()).breaks] == ["ESCROW"]
    assert set(books.auditor.breaks) == known


async def test_money_that_moves_between_two_purses_is_found_though_the_sums_are_right() -> None:
    books = await traded()
    purse(books, 3, "USDT").available += 7
    purse(books, 4, "USDT").available -= 7
    report = await books.audit()
    assert {(b.kind, b.accounts, b.found - b.expected) for b in report.breaks} == {
        ("OWNED", (3,), 7),
        ("OWNED", (4,), -7),
    }


async def test_a_grant_that_is_credited_twice_is_found_by_its_number() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    granted = EscrowChanged(int(EventKind.ESCROW), 0, 3, "USDT", 1_000, 1)

    def again(events: list[Any]) -> list[Any]:
        node.machine.funds.credit(3, "USDT", 1_000, books.time_ns)
        return [*events, granted._replace(sequence=node.machine.sequence)]

    node.tell = again  # type: ignore[method-assign]
    node.apply(books.time_ns, [CancelAll(9, "", 0, 1)])
    report = await books.audit()
    twice = the_break(report, "TWICE")
    assert (twice.shards, twice.accounts, twice.subject) == (("shard-0",), (3,), "message 1 in shard-0")
    under_way = the_break(report, "UNDER_WAY")
    assert (under_way.accounts, under_way.found - under_way.expected) == ((3,), 1_000)
    assert shards_of(report) == {"shard-0"}


async def test_a_grant_that_the_ledger_never_made_is_found_by_its_number() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    n = node.machine.funds.next_n
    node.apply(books.time_ns, [books.order(SYMBOL, 1, BUY, 10_000, 100), AnswerFunds(n, GRANTED, 5_000_000)])
    report = await books.audit()
    credited = the_break(report, "CREDITED")
    assert (credited.accounts, credited.asset, credited.found) == ((1,), "USDT", 5_000_000)
    assert credited.subject == f"message {n}"
    assert credited.sequences == (("shard-0", node.machine.sequence), ("ledger", books.ledger.machine.sequence))
    assert shards_of(report) == {"shard-0"}
    (usdt,) = [line for line in report.assets if line.asset == "USDT"]
    assert usdt.difference == 5_000_000


async def test_a_grant_that_changes_on_its_way_is_found() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    n = node.machine.funds.next_n
    node.apply(books.time_ns, [books.order(SYMBOL, 4, BUY, 9_900, 60_000)])
    books.ledger.apply(books.time_ns, books.to_ledger("shard-0"))
    (answer,) = [answer for answer in books.to_shard("shard-0") if answer.n == n]
    node.apply(books.time_ns, [answer._replace(amount=answer.amount + 11)])
    unequal = the_break(await books.audit(), "UNEQUAL")
    assert (unequal.accounts, unequal.found - unequal.expected) == ((4,), 11)


async def test_a_grant_that_vanishes_on_its_way_is_found() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    n = node.machine.funds.next_n
    node.apply(books.time_ns, [books.order(SYMBOL, 4, BUY, 9_900, 60_000)])
    books.ledger.apply(books.time_ns, books.to_ledger("shard-0"))
    await books.balanced()
    node.apply(books.time_ns, [AnswerFunds(n, DENIED, 0)])
    report = await books.audit()
    vanished = the_break(report, "VANISHED")
    assert (vanished.accounts, vanished.subject, vanished.found) == ((4,), f"message {n}", 0)
    (usdt,) = [line for line in report.assets if line.asset == "USDT"]
    assert usdt.difference == -vanished.expected < 0
    assert shards_of(report) == {"shard-0"}


async def test_a_return_that_vanishes_on_its_way_is_found() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    node.apply(books.time_ns, [CancelAll(3, "", 0, 1)])
    books.time_ns += 20 * S
    while not (returns := [m for m in node.machine.funds.outbox.values() if isinstance(m, Return)]):
        books.pass_time()
    report = await books.balanced()
    assert any(line.under_way for line in report.assets)
    node.apply(books.time_ns, [AnswerFunds(message.n, DONE, 0) for message in returns])
    vanished = [b for b in (await books.audit()).breaks if b.kind == "VANISHED"]
    assert {(b.accounts, b.asset, b.found) for b in vanished} == {((m.account,), m.asset, -m.amount) for m in returns}


async def test_what_the_ledger_takes_in_and_no_shard_gave_is_found() -> None:
    books = await traded()
    n = books.shards["shard-1"].machine.funds.next_n - 1
    asks = AskFunds("shard-1", n, n, 3, "USDT", 1, False)
    low = books.shards["shard-1"].machine.funds.low
    books.ledger.apply(books.time_ns, [ReturnFunds("shard-1", low, low + 5, 3, "USDT", 100, 0), asks])
    report = await books.audit()
    # So far it may be that the shard gave it after it was taken.
    assert {b.kind for b in report.breaks} == set()
    for _ in range(6):
        books.shards["shard-1"].machine.funds.give_back(purse(books, 2, "ETH", "shard-1"), 0, 0)
    taken = the_break(await books.audit(), "TAKEN")
    assert (taken.shards, taken.accounts, taken.expected) == (("shard-1",), (3,), -100)


@pytest.mark.parametrize(("is_buyer", "asset"), [(True, "USDT"), (False, "BTC")])
async def test_a_hold_that_is_not_what_the_orders_need_is_found(is_buyer: bool, asset: str) -> None:
    books = await traded()
    account = 4 if is_buyer else 2
    trader = books.shards["shard-0"].machine.books[SYMBOL].traders[account]
    if is_buyer:
        trader.quote_held += 3
        trader.quote.available -= 3
    else:
        trader.base_held += 3
        trader.base.available -= 3
    report = await books.audit()
    (found,) = report.breaks
    assert (found.rule, found.kind, found.accounts, found.asset) == ("I4", "HOLD", (account,), asset)
    assert (found.subject, found.found - found.expected) == (SYMBOL, 3)


async def test_a_hold_is_checked_too_by_an_auditor_that_has_just_begun() -> None:
    books = await traded()
    trader = books.shards["shard-0"].machine.books[SYMBOL].traders[4]
    trader.quote_held += 3
    trader.quote.available -= 3
    books.shards["shard-0"].restart(tail=0)
    # The state that comes back has holds as the orders need, hence more money than it had.
    books.begin_auditor()
    assert [b.kind for b in (await books.audit()).breaks] == ["ESCROW"]
    trader = books.shards["shard-0"].machine.books[SYMBOL].traders[4]
    trader.quote_held += 3
    books.begin_auditor()
    assert the_break(await books.audit(), "HOLD").accounts == (4,)


async def test_an_account_with_less_than_nothing_is_found() -> None:
    books = await traded()
    found_purse = purse(books, 4, "USDT")
    found_purse.available = -1
    report = await books.audit()
    negative = [b for b in report.breaks if b.kind == "NEGATIVE"]
    assert {(b.rule, b.accounts, b.found, b.subject) for b in negative} == {
        ("I4", (4,), -1, "available"),
        ("I4", (4,), -1, "free"),
    }


async def test_spending_what_is_not_there_is_found_while_it_happens() -> None:
    books = await traded()
    await books.audit()
    node = books.shards["shard-0"]
    # The engine believes that account 1 has money, of which nobody heard.
    node.machine.funds.endow(1, "BTC", 10**9)
    node.apply(books.time_ns, [books.order(SYMBOL, 1, SELL, 10_100, 100)])
    await books.auditor.follow()
    (found,) = books.auditor.breaks.values()
    assert (found.kind, found.accounts, found.asset, found.subject) == ("NEGATIVE", (1,), "BTC", "free")
    assert found.sequences == (("shard-0", node.machine.sequence),)
    assert any("OrderAccepted" in event for event in found.events)


async def test_a_balance_that_changes_in_the_ledger_is_found_and_involves_where_the_money_is() -> None:
    books = await traded()
    books.ledger.machine.balances.available[2]["BTC"] += 9
    report = await books.audit()
    balance = the_break(report, "BALANCE")
    assert (balance.accounts, balance.asset, balance.found - balance.expected) == ((2,), "BTC", 9)
    assert balance.shards == ("shard-0",)
    assert any("Moved" in event for event in balance.events)
    supply = the_break(report, "SUPPLY")
    assert (supply.shards, supply.found - supply.expected) == (("shard-0",), 9)


async def test_a_supply_that_no_deposit_made_is_found() -> None:
    books = await traded()
    books.ledger.machine.balances.supply["USDT"] += 1
    found = [b for b in (await books.audit()).breaks if b.kind == "SUPPLY"]
    assert {(b.subject, b.found - b.expected) for b in found} == {
        ("deposits less withdrawals", 1),
        ("balances and what is out", -1),
    }


async def test_what_was_missed_in_a_gap_is_still_checked_by_its_sums() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    n = node.machine.funds.next_n
    node.apply(books.time_ns, [books.order(SYMBOL, 1, BUY, 10_000, 100), AnswerFunds(n, GRANTED, 5_000_000)])
    node.restart(tail=0)
    report = await books.audit()
    assert "shard-0: the feed does not go on" in report.notes[0]
    under_way = the_break(report, "UNDER_WAY")
    assert (under_way.accounts, under_way.found - under_way.expected) == ((1,), 5_000_000)
    assert shards_of(report) == {"shard-0"}


async def test_a_gap_in_right_books_is_a_note_and_no_alarm() -> None:
    books = await traded()
    books.place("shard-0", SYMBOL, 3, BUY, 10_000, 50)
    books.deposit(3, ("USDT", 5))
    for node in books.nodes.values():
        node.restart(tail=0)
    # On the other shard nothing was missed.
    report = await books.balanced()
    assert len(report.notes) == 2
    assert report.cut["shard-0"] == (books.shards["shard-0"].machine.sequence,) * 2
    assert (await books.balanced()).notes == []


async def test_a_return_whose_answer_is_awaited_through_two_gaps_is_no_alarm() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    for _ in range(3):
        books.pass_time(11 * S)
    returns = books.to_ledger("shard-0")
    assert all(isinstance(command, ReturnFunds) and command.amount for command in returns)
    assert returns
    books.ledger.apply(books.time_ns, returns)
    await books.balanced()
    for _ in range(2):
        node.apply(books.time_ns, [books.order(SYMBOL, 4, BUY, 10_000, 50)])
        node.restart(tail=0)
        await books.balanced()
    books.settle()
    await books.balanced()


async def test_a_machine_that_is_away_makes_an_audit_incomplete_and_no_break() -> None:
    books = await traded()
    for name in ("shard-1", "ledger"):
        books.nodes[name].is_away = True
        report = await books.audit()
        assert (report.is_complete, report.is_balanced, report.breaks) == (False, False, [])
        assert report.unavailable == [name]
        books.nodes[name].is_away = False
        await books.balanced()


async def test_a_break_on_one_shard_is_found_while_another_is_away() -> None:
    books = await traded()
    books.shards["shard-1"].is_away = True
    purse(books, 3, "USDT").available += 7
    report = await books.audit()
    assert {b.kind for b in report.breaks} == {"OWNED", "ESCROW"}
    assert shards_of(report) == {"shard-0"}


async def test_a_feed_that_names_an_order_that_is_not_open_is_a_break() -> None:
    books = await traded()
    node = books.shards["shard-0"]
    node.tell = lambda events: [*events, (int(EventKind.CLOSED), node.machine.sequence, SYMBOL, 999, 1, 5)]  # type: ignore[method-assign]
    node.apply(books.time_ns, [CancelAll(9, "", 0, 1)])
    await books.auditor.follow()
    (found,) = books.auditor.breaks.values()
    assert (found.rule, found.kind, found.shards, found.subject) == (
        "I7",
        "FEED",
        ("shard-0",),
        "order or instrument 999",
    )
