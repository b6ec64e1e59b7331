"""What the benchmarks over gRPC share: an exchange and an echo server of their own, and the messages they send."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from exchange.client import Client
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2

SYMBOL = "BENCH-USDT"
OPERATOR = 1
ASSET_SCALE = 6
TAKER_FEE_PPM, MAKER_FEE_PPM = 1_000, -200
RICH = "1000000000000000"
"""More than all orders of a benchmark together: once a market has its share of it, no order waits for money."""


@dataclass(frozen=True, slots=True)
class Targets:
    exchange: str
    echo: str
    metadata: tuple[tuple[str, str], ...]
    """Of the operator."""
    accounts: tuple[int, int]
    """One buys, the other sells."""


@contextmanager
def targets(journal: str = "file") -> Iterator[Targets]:
    """Start an exchange with one shard and an echo server, each in processes of its own."""
    echo = subprocess.Popen(
        [sys.executable, "-m", "exchange.cli.bench.echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert echo.stdout is not None
        port = echo.stdout.readline().strip()
        with (
            running(shards=1, journal=journal) as exchange,
            Client(exchange.address, exchange.operator_key, timeout=10) as operator,
        ):
            open_market(operator, SYMBOL)
            buyer, seller = (operator.create_account(name).account_id for name in ("buyer", "seller"))
            metadata = bearer(exchange.operator_key)
            make_rich(operator, exchange.address, metadata, (OPERATOR, buyer, seller))
            yield Targets(exchange.address, f"127.0.0.1:{port}", metadata, (buyer, seller))
    finally:
        echo.communicate("")


@contextmanager
def running(shards: int, journal: str = "file") -> Iterator[LocalExchange]:
    """Start an exchange in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
        # A standby does the work of a shard once more, on a core that the measured ones need here.
        config = ExchangeConfig(
            data_dir=Path(directory),
            port=0,
            shards=shards,
            standbys=False,
            journal=journal,
            snapshot_every_commands=1_000_000_000,
        )
        with LocalExchange(config) as exchange:
            yield exchange


def open_market(operator: Client, symbol: str, shard: str = "") -> None:
    """Create an instrument whose trades cost what they do on an exchange, and its assets."""
    for asset in symbol.split("-"):
        operator.create_asset(asset, ASSET_SCALE)
    operator.create_instrument(
        symbol,
        tick_size="0.01",
        lot_size="0.0001",
        max_open_orders=1_000_000,
        taker_fee_ppm=TAKER_FEE_PPM,
        maker_fee_ppm=MAKER_FEE_PPM,
        shard=shard,
    )


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def make_rich(operator: Client, address: str, metadata: tuple[tuple[str, str], ...], accounts: Sequence[int]) -> None:
    """Give accounts more than enough, and have the market hold its share of it. `metadata` is the operator's."""
    with grpc.insecure_channel(address) as channel:
        for account in accounts:
            for asset in SYMBOL.split("-"):
                operator.deposit(account, asset, RICH, reference=f"{account}-{asset}")
            _bring_money(channel, metadata, account)


def _bring_money(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], account: int) -> None:
    """Have an order of each side wait for the account's money, so that none of those measured has to."""
    trade = trading_pb2_grpc.TradingServiceStub(channel).Trade
    for side in (types_pb2.SIDE_BUY, types_pb2.SIDE_SELL):
        fields = {"instrument": SYMBOL, "client_order_id": f"first-{side}"}
        order = {**fields, "side": side, "type": types_pb2.ORDER_TYPE_LIMIT, "price": 1, "quantity": 1}
        # One after the other: a cancel would not wait with its order.
        for plan in (("place", {**order, "post_only": True}, account), ("cancel", fields, account)):
            request = trading_pb2.TradeRequest(commands=[command_message(plan)])
            (response,) = trade(iter([request]), metadata=metadata)
            assert response.results[0].outcome == types_pb2.OUTCOME_ACKNOWLEDGED, response


Plan = tuple[str, dict[str, Any], int]
"""A command before it is a message: "place" or "cancel", its fields, and the account it is for."""


def command_message(plan: Plan) -> trading_pb2.Command:
    """Return the message of a planned command."""
    kind, fields, account = plan
    return trading_pb2.Command(on_behalf_of=account, **{kind: fields})  # type: ignore[arg-type]  # as the kind says


class OrderFlow:
    """Seeded orders around a price: two thirds limit orders, of which a third trades, and one third cancels.

    With more than `live_max` that may be open, half of the commands cancel, so that the book grows no more.
    """

    def __init__(self, accounts: tuple[int, int], prefix: str, live_max: int = 1 << 40) -> None:
        self._chance = random.Random(7)
        self._live_max = live_max
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
        cancels = 1 / 2 if len(self._live) > self._live_max else 1 / 3
        if len(self._live) > 50 and self._chance.random() < cancels:
            at = self._chance.randrange(len(self._live))
            self._live[at], self._live[-1] = self._live[-1], self._live[at]
            name, account = self._live.pop()
            return "cancel", {"instrument": SYMBOL, "client_order_id": name}, account
        return "place", *self.place()
