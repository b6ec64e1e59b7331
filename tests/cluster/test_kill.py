"""Processes are killed with SIGKILL, one kind after the other, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from exchange.client import Client, EvenkeelError, Side
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.settings import opening_at_once, restarting_freely
from tests.cluster.money import open_market, open_rich_account

pytestmark = pytest.mark.cluster
SYMBOL = "BTC-USDT"


def test_kill_9_of_shard_ledger_and_gateway_loses_nothing(tmp_path: Path) -> None:
    # Gateways that come back start with a dump that a child of the shard makes.
    config = ExchangeConfig(
        data_dir=tmp_path, port=0, shards=1, dump_at_once_orders_max=0, settings=restarting_freely(opening_at_once())
    )
    known: set[str] = set()
    with LocalExchange(config) as exchange:
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
            _, secret = open_rich_account(operator, "survivor")
        for round_, victim in enumerate(("shard-0", "ledger", "gateway-0")):
            with Client(exchange.address, secret, timeout=10) as client:
                placed = [client.place_order(SYMBOL, Side.BUY, "1", "5").client_order_id for _ in range(5)]
                before = {c.name: c for c in exchange.status().components}[victim]
                os.kill(before.pid, signal.SIGKILL)
                until(partial(_replaced, exchange, victim, before.pid))
            # The gateway too is where it was, although it may take any free port.
            assert (tmp_path / "address").read_text() == exchange.address + "\n"
            with Client(exchange.address, secret, timeout=10) as client:
                until(lambda: client.place_order(SYMBOL, Side.BUY, "1", "5", timeout=10).accepted)
                known = {order.client_order_id for order in client.list_orders()}
                assert set(placed) <= known
                assert len(known) == (round_ + 1) * 6
        open_orders = len(known)
    # A second start on the same directory carries on.
    with LocalExchange(config) as exchange, Client(exchange.address, secret, timeout=10) as client:
        assert len(list(client.list_orders())) == open_orders
        machines = {c.name: c for c in exchange.status().components if c.sequence}
        assert set(machines) == {"ledger", "shard-0"}
        for machine in machines.values():
            # As the clean stop left it; a shard has journaled its start since.
            assert len(machine.state_hash) == 32
            assert 0 < machine.state_hash_sequence <= machine.sequence


def _replaced(exchange: LocalExchange, name: str, pid: int) -> bool:
    component = {c.name: c for c in exchange.status().components}[name]
    return component.state == 2 and component.pid not in (0, pid)


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
