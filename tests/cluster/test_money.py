"""One balance over two shards, for real: money follows the orders, comes back for withdrawals, and adds up to the last
digit, also after a shard was killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from exchange.client import (
    BalanceChange,
    BalanceChangeReason,
    Client,
    EvenkeelError,
    InsufficientFunds,
    OrderStatus,
    RejectReason,
    Side,
)
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.settings import opening_at_once, restarting_freely
from tests.cluster.money import open_market, open_rich_account

pytestmark = pytest.mark.cluster
BTC, ETH = "BTC-USDT", "ETH-USDT"
USDT = "USDT"


def test_money_follows_orders_comes_back_for_withdrawals_and_adds_up(tmp_path: Path) -> None:
    config = ExchangeConfig(data_dir=tmp_path, port=0, shards=2, settings=restarting_freely(opening_at_once()))
    with LocalExchange(config) as exchange, Client(exchange.address, exchange.operator_key, timeout=10) as operator:
        for number, symbol in enumerate((BTC, ETH)):
            open_market(operator, symbol, shard=f"shard-{number}", maker_fee_ppm=-200, taker_fee_ppm=1_000)
        alice_id, alice_key = open_rich_account(operator, "alice", {USDT: "1001"})
        bob_id, bob_key = open_rich_account(operator, "bob", {"BTC": "2", "ETH": "20"})
        accounts = (1, alice_id, bob_id)
        deposited = {USDT: Decimal(1001), "BTC": Decimal(2), "ETH": Decimal(20)}
        with (
            Client(exchange.address, alice_key, timeout=10) as alice,
            Client(exchange.address, bob_key, timeout=10) as bob,
        ):
            _trade_on_both(operator, alice, bob, alice_id)
            _check_sum(operator, accounts, deposited)
            _kill(exchange, "shard-1")
            # The market that is up goes on.
            assert alice.place_order(BTC, Side.BUY, "0.1", "10").status == OrderStatus.OPEN
            until(lambda: not operator.balances(alice_id).unavailable_shards)
            until(lambda: alice.place_order(ETH, Side.BUY, "0.1", "10").status == OrderStatus.OPEN)
            _check_sum(operator, accounts, deposited)
            alice.cancel_all_orders()
            left = alice.balances().total(USDT)
            assert alice.balances().available(USDT) == left
            until(lambda: bool(operator.withdraw(alice_id, USDT, left, reference="all").entry.change))
            assert alice.balances().total(USDT) == 0
            _check_sum(operator, accounts, {**deposited, USDT: deposited[USDT] - left})


def _trade_on_both(operator: Client, alice: Client, bob: Client, alice_id: int) -> None:
    """Have alice buy on both shards from one balance that covers it, and not a lot more."""
    with alice.stream_balances() as changes:
        totals = {balance.asset: balance.total for balance in next(changes).balances}
        assert bob.place_order(BTC, Side.SELL, "1", "400").status == OrderStatus.OPEN
        assert bob.place_order(ETH, Side.SELL, "10", "50").status == OrderStatus.OPEN
        assert alice.place_order(BTC, Side.BUY, "1", "400").status == OrderStatus.FILLED
        # Half of what was free went along to shard-0: shard-1 gets it from there.
        assert alice.place_order(ETH, Side.BUY, "10", "50").status == OrderStatus.FILLED
        refused = alice.place_order(ETH, Side.BUY, "3", "50")
        assert refused.reject_reason == RejectReason.INSUFFICIENT_FUNDS
        told: list[BalanceChange] = []
        while len(told) < 6:
            told += next(changes).changes
    assert {(c.source, c.reason) for c in told} == {
        (shard, reason)
        for shard in ("shard-0", "shard-1")
        for reason in (BalanceChangeReason.TRADE, BalanceChangeReason.FEE)
    }
    for change in told:
        totals[change.asset] = totals.get(change.asset, Decimal(0)) + change.change
    # 900 paid, and 0.1 % of it.
    assert totals == {USDT: Decimal("100.1"), "BTC": Decimal(1), "ETH": Decimal(10)}
    assert {balance.asset: balance.total for balance in alice.balances()} == totals
    assert bob.balances().total(USDT) == Decimal("900.18"), "with a rebate of 0.02 %"
    assert operator.balances(1).total(USDT) == Decimal("0.72"), "the house has the rest"
    # What lies idle in both shards comes back for a withdrawal, what an order holds does not.
    assert alice.place_order(ETH, Side.BUY, "1", "50", client_order_id="holds").status == OrderStatus.OPEN
    assert alice.balances().of(USDT).markets == {ETH: Decimal("50.05")}
    with pytest.raises(InsufficientFunds):
        operator.withdraw(alice_id, USDT, "50.06", reference="too-much")
    assert alice.cancel_order(ETH, client_order_id="holds").status == OrderStatus.CANCELLED
    assert operator.transfer(1, USDT, "100.1", reference="there", from_account_id=alice_id).entry.available == 0
    operator.transfer(alice_id, USDT, "100.1", reference="and-back", from_account_id=1)


def _check_sum(operator: Client, accounts: tuple[int, ...], deposited: dict[str, Decimal]) -> None:
    sums: dict[str, Decimal] = {}
    for account in accounts:
        for balance in operator.balances(account):
            sums[balance.asset] = sums.get(balance.asset, Decimal(0)) + balance.total
    assert sums == deposited


def _kill(exchange: LocalExchange, name: str) -> None:
    os.kill({c.name: c for c in exchange.status().components}[name].pid, signal.SIGKILL)


def until(seen: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Ask again until it is so; a minute without is a failure, however slow the machine."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        try:
            if seen():
                return
        except EvenkeelError:
            pass
        assert time.monotonic() < give_up_s, "not so after a minute"
