"""An audit of a real exchange: right while trading goes on, and an alarm when money comes from nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import ray

from exchange.client import Audit, Client, ComponentState, OrderStatus, Permission, Side, Stage, StageForbids
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.engine.channel import AnswerFunds, AnswerStatus
from exchange.engine.commands import PlaceOrder
from exchange.ray_calls import NAMESPACE, RayPeer
from exchange.runtime.messages import LinkBatch, ReplyStatus, pack, unpack, unpack_replies
from exchange.runtime.rows import rows_segment
from exchange.settings import opening_at_once

pytestmark = pytest.mark.cluster
_AT_EASE = (ComponentState.UP, "")
MARKETS = ("BTC-USDT", "ETH-USDT")
"""On the first shard and on the second."""


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    directory = Path(tmp_path_factory.mktemp("audited"))
    config = ExchangeConfig(data_dir=directory, port=0, audit_interval_s=1.0, settings=opening_at_once())
    with LocalExchange(config) as running:
        with Client(running.address, running.operator_key, timeout=10) as operator:
            for asset, scale in (("BTC", 8), ("ETH", 6), ("USDT", 6)):
                operator.create_asset(asset, scale)
            for symbol in MARKETS:
                operator.create_instrument(
                    symbol,
                    tick_size="0.01",
                    lot_size="0.0001",
                    max_quantity=1_000,
                    maker_fee_ppm=-200,
                    taker_fee_ppm=900,
                )
        yield running


@pytest.fixture
def operator(exchange: LocalExchange) -> Iterator[Client]:
    with Client(exchange.address, exchange.operator_key, timeout=30) as client:
        yield client


def new_trader(exchange: LocalExchange, operator: Client, name: str) -> Client:
    account = operator.create_account(name).account_id
    for asset, amount in (("BTC", 100), ("ETH", 1_000), ("USDT", 100_000)):
        operator.deposit(account, asset, amount, reference=f"{name}-{asset}")
    key = operator.create_api_key(account, [Permission.READ, Permission.TRADE])
    return Client(exchange.address, key.secret, timeout=10)


def audit_by_command(exchange: LocalExchange) -> tuple[int, dict[str, object]]:
    """Return the exit code of `exchange audit --json` and what it printed."""
    command = [sys.executable, "-c", "from exchange.cli import main; main()", "audit", "--json"]
    where = ["--address", exchange.address, "--key", exchange.operator_key]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, done.stderr
    shown: dict[str, object] = json.loads(done.stdout)
    return done.returncode, shown


def niceness_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


def until(seen: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < give_up_s, "not so after a minute"


def test_the_books_balance_while_trading_goes_on(exchange: LocalExchange, operator: Client) -> None:
    traders = [new_trader(exchange, operator, name) for name in ("alice", "bob")]
    is_over = threading.Event()
    failures: list[BaseException] = []

    def trade() -> None:
        try:
            for i in count():
                if is_over.is_set():
                    return
                for symbol in MARKETS:
                    seller, buyer = traders if i % 2 else traders[::-1]
                    seller.place_order(symbol, Side.SELL, quantity="0.02", price="100.01")
                    buyer.place_order(symbol, Side.BUY, quantity="0.01", price="100.03")
                    buyer.place_order(symbol, Side.BUY, quantity="0.01", price="99.00")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=trade)
    thread.start()
    audits: list[Audit] = []
    try:
        # Until some of them have followed trades event by event.
        while sum(audit.trades > 20 for audit in audits) < 3:
            audits.append(operator.audit())
        code, shown = audit_by_command(exchange)
    finally:
        is_over.set()
        thread.join()
        for trader in traders:
            trader.close()
    assert not failures, failures[0]
    assert all(audit.balanced and audit.complete and not audit.breaks for audit in audits)
    assert any(audit.orders for audit in audits)
    supply = {asset.asset: asset.supply for asset in audits[-1].assets}
    assert supply == {"BTC": 200, "ETH": 2_000, "USDT": 200_000}
    assert (code, shown["balanced"]) == (0, True)
    # It may be slow to answer on a busy machine, but it has nothing to say.
    until(lambda: [(c.state, c.detail) for c in operator.status().components if c.name == "auditor"] == [_AT_EASE])
    niceness = {c.name.partition("-")[0]: niceness_of(c.pid) for c in operator.status().components}
    assert niceness == {"ledger": 0, "shard": 0, "gateway": 0, "auditor": 15}


def test_an_auditor_that_was_killed_begins_anew_and_nobody_notices(exchange: LocalExchange, operator: Client) -> None:
    before = next(c for c in operator.status().components if c.name == "auditor")
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: next(c for c in operator.status().components if c.name == "auditor").incarnation > before.incarnation)
    assert operator.audit().balanced


@pytest.mark.parametrize("kind", ["shard", "ledger"])
def test_a_machine_that_was_killed_has_the_books_that_it_had(
    exchange: LocalExchange, operator: Client, kind: str
) -> None:
    with new_trader(exchange, operator, f"before-{kind}") as trader:
        trader.place_order("BTC-USDT", Side.SELL, quantity="0.5", price="120")
        assert operator.audit().balanced
        trader.place_order("BTC-USDT", Side.SELL, quantity="0.5", price="121")
        before = next(c for c in operator.status().components if c.name.startswith(kind))
        os.kill(before.pid, signal.SIGKILL)
        incarnation = before.incarnation
        until(lambda: any(c.incarnation > incarnation for c in operator.status().components if c.name == before.name))
        trader.place_order("BTC-USDT", Side.SELL, quantity="0.5", price="122", timeout=30)
    audits: list[Audit] = []
    while not (audits and audits[-1].complete):
        audits.append(operator.audit())
        assert audits[-1].breaks == ()
    assert audits[-1].balanced
    # It came back with its feed, so nothing was missed.
    assert all(audit.notes == () for audit in audits)


def test_money_that_the_ledger_never_granted_stops_the_shard_that_credited_it(
    exchange: LocalExchange, operator: Client
) -> None:
    with new_trader(exchange, operator, "honest") as trader:
        # So that shard and ledger have spoken before, whatever ran before this test.
        trader.place_order("BTC-USDT", Side.SELL, quantity="0.5", price="123")
        assert operator.audit().balanced
    status = {c.name: c for c in operator.status().components}
    shard = next(c for c in status.values() if "BTC-USDT" in c.instruments)
    other = next(c for c in status.values() if "ETH-USDT" in c.instruments)
    forger = operator.create_account("forger").account_id
    key = operator.create_api_key(forger, [Permission.READ, Permission.TRADE])
    host = ray.get_actor(f"{shard.name}.{shard.incarnation}", namespace=NAMESPACE)
    money = asyncio.run(RayPeer(shard.name, shard.incarnation).query(pack(("money",))))
    next_n = unpack(money)[-1]
    # In one record: an order that asks the ledger for money, and an answer that the ledger never gave.
    order = PlaceOrder(forger, "forged", "BTC-USDT", int(Side.BUY), 1, 1, 5_000, 10_000)
    forged = [order, AnswerFunds(next_n, int(AnswerStatus.GRANTED), 77_000_000)]
    batch = LinkBatch("forger", 1, 1, [rows_segment(forged)])
    (reply,) = unpack_replies(ray.get(host.submit.remote(pack(batch))))
    assert reply.status == ReplyStatus.PARKED

    # Nobody asks: the auditor finds it by itself.
    until(lambda: {c.name: c for c in operator.status().components}[shard.name].stage == Stage.CANCEL_ONLY)
    components = {c.name: c for c in operator.status().components}
    assert components[other.name].stage == Stage.OPEN
    assert f"I3 CREDITED {shard.name} account {forger} USDT" in components["auditor"].detail
    with Client(exchange.address, key.secret, timeout=10) as client:
        with pytest.raises(StageForbids):
            client.place_order("BTC-USDT", Side.BUY, quantity="1", price="50", timeout=0.5)
        cancelled = client.cancel_order("BTC-USDT", client_order_id="forged")
        assert cancelled.status == OrderStatus.CANCELLED

    code, shown = audit_by_command(exchange)
    assert (code, shown["balanced"]) == (1, False)
    audit = operator.audit()
    (found,) = audit.breaks
    assert (found.kind, found.account_ids, found.shards) == ("CREDITED", (forger,), (shard.name,))
    assert found.found == 77
    assert found.subject == f"message {next_n}"
    assert next(row for row in audit.assets if row.asset == "USDT").difference == 77

    # What an operator has opened again stays open, though the break still stands.
    operator.resume(shard=shard.name, reason="looked into")
    until(lambda: {c.name: c for c in operator.status().components}[shard.name].stage == Stage.OPEN)
    assert [b.kind for b in operator.audit().breaks] == ["CREDITED"]
    assert [b.kind for b in operator.audit().breaks] == ["CREDITED"]
    assert {c.name: c for c in operator.status().components}[shard.name].stage == Stage.OPEN
