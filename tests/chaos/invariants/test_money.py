"""Money that is made, lost, moved twice or charged wrongly is found (I3, I4), by arithmetic of the checker's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chaos.invariants.commands import Other
from chaos.invariants.findings import Findings
from chaos.invariants.money import LedgerMoney, Moved, ShardMoney, check_money
from chaos.invariants.replay import KINDS, Step
from exchange.engine.channel import AskFunds, ReturnFunds
from exchange.engine.ledger import Ledger
from exchange.engine.ledger_words import CreateAccount, CreateAsset, Deposit, Transfer, Withdraw
from exchange.runtime.rows import LEDGER_COMMANDS
from tests.chaos.invariants.synthetic import SHARD, SpoiltKind, SyntheticRun

ACCEPTED, TRADED, CLOSED, ESCROW = 1, 2, 3, 7
Events = list[tuple[Any, ...]]


def texts(findings: Findings, rule: str) -> str:
    return "\n".join(str(violation) for violation in findings.violations if violation.rule == rule)


@pytest.fixture
def run(tmp_path: Path) -> SyntheticRun:
    run = SyntheticRun(tmp_path)
    run.write()
    return run


# ---------------------------------------------------------------- a shard


def test_the_money_of_a_true_history_is_all_there(run: SyntheticRun) -> None:
    findings = run.check()
    assert not findings.violations, str(findings)
    assert findings.checked["I3 trades whose fees are right"] > 10
    assert findings.checked["I4 balances of shards that agree with what open orders need"] >= 4


def test_a_fee_that_no_rate_makes_is_found(run: SyntheticRun) -> None:
    def charge_more(events: Events) -> Events:
        return [(*e[:-1], e[-1] + 1) if e[0] == TRADED else e for e in events]

    assert "expected (0, 0)" in texts(run.check(SpoiltKind(charge_more)), "I3")


def test_escrow_that_nobody_granted_is_found(run: SyntheticRun) -> None:
    def credit_more(events: Events) -> Events:
        return [(*e[:4], e[4] + 7, e[5]) if e[0] == ESCROW else e for e in events]

    findings = run.check(SpoiltKind(credit_more))
    assert "under message 1 with the command" in texts(findings, "I3")
    assert "free, expected" in texts(findings, "I4")


def test_a_message_that_moves_money_twice_is_found(run: SyntheticRun) -> None:
    def credit_twice(events: Events) -> Events:
        return [again for e in events for again in ([e, e] if e[0] == ESCROW else [e])]

    assert "message 1 moved money twice" in texts(run.check(SpoiltKind(credit_twice)), "I3")


def test_orders_that_need_more_than_there_is_are_found(run: SyntheticRun) -> None:
    def credit_nothing(events: Events) -> Events:
        return [e for e in events if e[0] != ESCROW]

    assert "its open orders need" in texts(run.check(SpoiltKind(credit_nothing)), "I4")


def test_a_hold_that_a_closed_order_leaves_behind_is_found(run: SyntheticRun) -> None:
    def close_none(events: Events) -> Events:
        return [e for e in events if e[0] != CLOSED]

    assert "of which open orders need" in texts(run.check(SpoiltKind(close_none)), "I4")


# ---------------------------------------------------------------- the ledger


class LedgerRun:
    """A ledger whose commands and events go to the checker, spoilt on the way if that is asked for."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.money = LedgerMoney(self.findings)
        self.ledger = Ledger()
        self._n = 0

    def do(self, *commands: Any, spoil: Any = None) -> None:
        for command in commands:
            self._n += 1
            events: Sequence[Any] = self.ledger.apply(self._n, [command]).events
            events = spoil(events) if spoil is not None else events
            ours = Other(LEDGER_COMMANDS.index(type(command)), tuple(command))
            self.money.step(Step(self._n, 1, self._n, ours, None, list(events), f"record {self._n}"))

    def compare(self) -> None:
        self.money.compare(KINDS["ledger"].pack_state(self.ledger), "the end")


@pytest.fixture
def ledger() -> LedgerRun:
    run = LedgerRun()
    run.do(CreateAccount("house"), CreateAccount("a"), CreateAccount("b"), CreateAsset("USDT", 6))
    run.do(Deposit(2, "USDT", 1_000, "d1"))
    return run


def test_deposits_transfers_grants_and_returns_add_up(ledger: LedgerRun) -> None:
    ledger.do(Transfer(2, 3, "USDT", 100, "t1"), Withdraw(3, "USDT", 40, "w1"))
    ledger.do(AskFunds(SHARD, 1, 1, 2, "USDT", 500, True), ReturnFunds(SHARD, 2, 2, 2, "USDT", 20, 0))
    ledger.compare()
    granted = ledger.money.moved[SHARD, 1].change
    shard = ShardMoney(SHARD, ledger.findings)
    shard.total[2, "USDT"] = granted - 20 - 5
    shard.moved = {
        1: Moved(2, "USDT", granted, "here"),
        2: Moved(2, "USDT", -20, "here"),
        3: Moved(2, "USDT", -5, "here"),  # on its way
    }
    check_money(ledger.money, {SHARD: shard}, ledger.findings)
    assert not ledger.findings.violations, str(ledger.findings)
    assert ledger.findings.checked["I3 assets whose sum is what came in less what went out"] == 1


def test_a_deposit_that_is_entered_with_more_is_found(ledger: LedgerRun) -> None:
    def more(events: Sequence[Any]) -> list[Any]:
        return [e._replace(entry=e.entry._replace(change=e.entry.change + 1)) for e in events]

    ledger.do(Deposit(3, "USDT", 10, "d2"), spoil=more)
    assert "asked for was (3, 'USDT', 10, 0)" in texts(ledger.findings, "I3")


def test_a_deposit_that_is_entered_twice_is_found(ledger: LedgerRun) -> None:
    ledger.do(Deposit(3, "USDT", 10, "d2"), spoil=lambda events: [*events, *events])
    assert "the reference 'd2' moved money twice" in texts(ledger.findings, "I3")


def test_a_transfer_that_one_side_does_not_pay_is_found(ledger: LedgerRun) -> None:
    ledger.do(Transfer(2, 3, "USDT", 100, "t1"), spoil=lambda events: events[1:])
    assert "did not pay" in texts(ledger.findings, "I3")


def test_a_grant_that_nobody_asked_for_is_found(ledger: LedgerRun) -> None:
    def to_another(events: Sequence[Any]) -> list[Any]:
        return [e._replace(body=e.body._replace(account=3)) for e in events]

    ledger.do(AskFunds(SHARD, 1, 1, 2, "USDT", 500, True), spoil=to_another)
    assert "for message 1 of shard-0" in texts(ledger.findings, "I3")
    assert "account 3 has -" in texts(ledger.findings, "I4")


def test_money_that_arrives_as_another_amount_is_found(ledger: LedgerRun) -> None:
    ledger.do(AskFunds(SHARD, 1, 1, 2, "USDT", 500, True))
    shard = ShardMoney(SHARD, ledger.findings)
    shard.total[2, "USDT"] = 1
    shard.moved = {1: Moved(2, "USDT", 1, "here")}
    check_money(ledger.money, {SHARD: shard}, ledger.findings)
    assert "message 1 moved" in texts(ledger.findings, "I3")
    assert "deposits less withdrawals 1000" in texts(ledger.findings, "I3")


def test_a_return_that_no_shard_made_is_found(ledger: LedgerRun) -> None:
    ledger.do(AskFunds(SHARD, 1, 1, 2, "USDT", 500, True), ReturnFunds(SHARD, 2, 2, 2, "USDT", 20, 0))
    shard = ShardMoney(SHARD, ledger.findings)
    granted = ledger.money.moved[SHARD, 1]
    shard.moved, shard.total[2, "USDT"] = {1: granted}, granted.change
    check_money(ledger.money, {SHARD: shard}, ledger.findings)
    assert "which shard-0 never gave" in texts(ledger.findings, "I3")


def test_a_state_that_has_other_balances_is_found(ledger: LedgerRun) -> None:
    ledger.ledger.balances.available[2]["USDT"] += 1
    ledger.compare()
    assert "account 2 has 1001 USDT, expected 1000" in texts(ledger.findings, "I3")
