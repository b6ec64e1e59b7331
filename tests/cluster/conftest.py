"""A real exchange on a real Ray, once for all tests of this folder that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.client import Client
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from tests.cluster.money import RICH, open_market, open_rich_account


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    config = ExchangeConfig(data_dir=Path(tmp_path_factory.mktemp("exchange")), port=0)
    with LocalExchange(config) as running:
        with Client(running.address, running.operator_key, timeout=10) as operator:
            open_market(operator, "BTC-USDT")
            open_market(operator, "ETH-USDT")
            # For tests that trade with the operator's own key.
            for asset, amount in RICH.items():
                operator.deposit(1, asset, amount, reference=f"operator-{asset}")
        yield running


@pytest.fixture
def new_client(exchange: LocalExchange) -> Iterator[object]:
    """Makes clients of accounts by name, each with money enough."""
    clients: list[Client] = []

    def make(name: str) -> Client:
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            _, secret = open_rich_account(operator, name)
        client = Client(exchange.address, secret, timeout=10)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
