"""A real exchange on a real Ray, once for all tests of this folder that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.client import Client
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig

SYMBOL = "BTC-USDT"


def open_market(exchange: LocalExchange, symbol: str = SYMBOL) -> None:
    with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
        operator.create_instrument(
            symbol,
            base_asset=symbol.partition("-")[0],
            quote_asset="USDT",
            tick_size="0.01",
            lot_size="0.0001",
            max_quantity=1_000,
            quote_scale=8,
        )


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    config = ExchangeConfig(data_dir=Path(tmp_path_factory.mktemp("exchange")), port=0)
    with LocalExchange(config) as running:
        open_market(running)
        open_market(running, "ETH-USDT")
        yield running


@pytest.fixture
def new_client(exchange: LocalExchange) -> Iterator[object]:
    """Makes clients of accounts by name."""
    clients: list[Client] = []

    def make(name: str) -> Client:
        from exchange.client import Permission

        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            account = operator.create_account(name)
            key = operator.create_api_key(account.account_id, [Permission.READ, Permission.TRADE])
        client = Client(exchange.address, key.secret, timeout=10)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
