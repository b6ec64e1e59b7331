"""What the benchmarks over gRPC share: an exchange and an echo server of their own, and the messages they send."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import grpc

from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.v1 import account_pb2, admin_pb2, admin_pb2_grpc, trading_pb2, types_pb2

SYMBOL = "BENCH-USDT"
ASSETS = {"BENCH": 4, "USDT": 6}
"""By scale."""
RICH = "1000000000000"
"""So much of each asset that no order is refused for want of money."""


@dataclass(frozen=True, slots=True)
class Targets:
    exchange: str
    echo: str
    metadata: tuple[tuple[str, str], ...]
    """Of the operator."""
    accounts: tuple[int, int]
    """One buys, the other sells."""


@contextmanager
def targets() -> Iterator[Targets]:
    """Start an exchange with one shard and an echo server, each in processes of its own."""
    echo = subprocess.Popen(
        [sys.executable, "-m", "exchange.cli.bench.echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert echo.stdout is not None
        port = echo.stdout.readline().strip()
        with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
            config = ExchangeConfig(data_dir=Path(directory), port=0, shards=1, snapshot_every_commands=1_000_000_000)
            with LocalExchange(config) as exchange:
                metadata = (("authorization", f"Bearer {exchange.operator_key}"),)
                with grpc.insecure_channel(exchange.address) as channel:
                    stub = admin_pb2_grpc.AdminServiceStub(channel)
                    for asset, scale in ASSETS.items():
                        message = account_pb2.Asset(symbol=asset, scale=scale)
                        stub.CreateAsset(admin_pb2.CreateAssetRequest(asset=message), metadata=metadata)
                    instrument = types_pb2.Instrument(
                        symbol=SYMBOL,
                        base_asset="BENCH",
                        quote_asset="USDT",
                        price_scale=2,
                        quantity_scale=4,
                        max_open_orders=1_000_000,
                    )
                    stub.CreateInstrument(admin_pb2.CreateInstrumentRequest(instrument=instrument), metadata=metadata)
                    buyer, seller = (
                        stub.CreateAccount(
                            admin_pb2.CreateAccountRequest(name=name), metadata=metadata
                        ).account.account_id
                        for name in ("buyer", "seller")
                    )
                    for number, (account, asset) in enumerate(product((buyer, seller), ASSETS)):
                        deposit = admin_pb2.DepositRequest(
                            account_id=account, asset=asset, amount=RICH, reference=f"bench-{number}"
                        )
                        stub.Deposit(deposit, metadata=metadata)
                yield Targets(exchange.address, f"127.0.0.1:{port}", metadata, (buyer, seller))
    finally:
        echo.communicate("")


Plan = tuple[str, dict[str, Any], int]
"""A command before it is a message: "place" or "cancel", its fields, and the account it is for."""


def command_message(plan: Plan) -> trading_pb2.Command:
    """Return the message of a planned command."""
    kind, fields, account = plan
    return trading_pb2.Command(on_behalf_of=account, **{kind: fields})  # type: ignore[arg-type]  # as the kind says


class OrderFlow:
    """Seeded orders around a price: two thirds limit orders, of which a third trades, and one third cancels."""

    def __init__(self, accounts: tuple[int, int], prefix: str) -> None:
        self._chance = random.Random(7)
        self._accounts = accounts
        self._prefix = prefix
        self._count = 0
        self._live: list[tuple[str, int]] = []

    def place(self) -> tuple[dict[str, Any], int]:
        """Return the fields of the next order, and the account it is for."""
        chance = self._chance
        self._count += 1
        buy = chance.random() < 0.5
        offset = chance.randint(-12, 40)
        order = {
            "instrument": SYMBOL,
            "client_order_id": f"{self._prefix}{self._count}",
            "side": types_pb2.SIDE_BUY if buy else types_pb2.SIDE_SELL,
            "type": types_pb2.ORDER_TYPE_LIMIT,
            "price": 100_000 + (-offset if buy else offset),
            "quantity": chance.randint(1, 100),
        }
        account = self._accounts[0 if buy else 1]
        self._live.append((f"{self._prefix}{self._count}", account))
        return order, account

    def command(self) -> Plan:
        """Return the next command of a stream."""
        if len(self._live) > 50 and self._chance.random() < 1 / 3:
            at = self._chance.randrange(len(self._live))
            self._live[at], self._live[-1] = self._live[-1], self._live[at]
            name, account = self._live.pop()
            return "cancel", {"instrument": SYMBOL, "client_order_id": name}, account
        return "place", *self.place()
