"""Fifty times kill -9 of the shard, at random moments under load: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from exchange.cli.books import check_books
from exchange.client import (
    AsyncClient,
    EvenkeelError,
    ExecutionType,
    OrderResult,
    OrderStatus,
    OutcomeUnknown,
    Permission,
    Side,
)
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.runtime.machine import state_hash
from exchange.runtime.recovery import recover
from exchange.runtime.storage import KINDS, open_storage
from exchange.settings import opening_at_once, restarting_freely

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1_500)]
SYMBOL = "BTC-USDT"
KILLS = 50
TRADERS = 4
DEPOSITS = {"BTC": "20000", "USDT": "2000000"}


class Trader:
    def __init__(self, client: AsyncClient, number: int) -> None:
        self.client = client
        self.number = number
        self.chance = random.Random(number)
        self.acknowledged: dict[str, OrderResult] = {}
        self.unknown: list[str] = []
        self.cancelled: set[str] = set()
        self.trades: Counter[tuple[int, str]] = Counter()
        self.filled: dict[str, Decimal] = {}

    async def trade(self, stop: asyncio.Event) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            name = f"t{self.number}-{count}"
            side = self.chance.choice((Side.BUY, Side.SELL))
            price = Decimal(self.chance.randint(9_950, 10_050)) / 100
            quantity = Decimal(self.chance.randint(1, 50)) / 10
            try:
                result = await self.client.place_order(SYMBOL, side, quantity, price, client_order_id=name, timeout=8.0)
                if not result.rejected:
                    self.acknowledged[name] = result
                if result.status == OrderStatus.OPEN and self.chance.random() < 0.5:
                    cancel = await self.client.cancel_order(SYMBOL, client_order_id=name, timeout=8.0)
                    if cancel.status == OrderStatus.CANCELLED:
                        self.cancelled.add(name)
            except OutcomeUnknown:
                self.unknown.append(name)
            except EvenkeelError:
                await asyncio.sleep(0)

    async def listen(self) -> None:
        async for execution in self.client.stream_executions():
            if execution.type == ExecutionType.TRADE:
                name = execution.client_order_id
                self.trades[execution.trade_id, name] += 1
                self.filled[name] = self.filled.get(name, Decimal(0)) + execution.trade_quantity


async def run(exchange: LocalExchange) -> tuple[list[Trader], list[float]]:
    async with AsyncClient(exchange.address, exchange.operator_key, timeout=10) as operator:
        for asset in DEPOSITS:
            await operator.create_asset(asset, 8)
        await operator.create_instrument(
            SYMBOL,
            tick_size="0.01",
            lot_size="0.1",
            max_open_orders=100_000,
            maker_fee_ppm=-200,
            taker_fee_ppm=1_000,
        )
        traders = []
        for number in range(TRADERS):
            account = await operator.create_account(f"trader-{number}")
            for asset, amount in DEPOSITS.items():
                await operator.deposit(account.account_id, asset, amount, reference=f"{number}-{asset}")
            key = await operator.create_api_key(account.account_id, [Permission.READ, Permission.TRADE])
            traders.append(Trader(AsyncClient(exchange.address, key.secret, timeout=10), number))
        stop = asyncio.Event()
        listeners = [asyncio.create_task(trader.listen()) for trader in traders]
        work = [asyncio.create_task(trader.trade(stop)) for trader in traders]
        chance = random.Random(50)
        back_s = []
        pid = 0
        for _ in range(KILLS):
            while True:
                shard = next(c for c in (await operator.status()).components if c.name == "shard-0")
                if shard.state.name == "UP" and shard.pid not in (0, pid):
                    break
                await asyncio.sleep(0.02)
            before = sum(len(trader.acknowledged) for trader in traders)
            while sum(len(trader.acknowledged) for trader in traders) < before + chance.randint(5, 120):
                await asyncio.sleep(0.005)
            pid = shard.pid
            killed_s = time.monotonic()
            before = sum(len(trader.acknowledged) for trader in traders)
            os.kill(pid, signal.SIGKILL)
            while sum(len(trader.acknowledged) for trader in traders) <= before + TRADERS:
                await asyncio.sleep(0.005)
            back_s.append(time.monotonic() - killed_s)
        stop.set()
        await asyncio.gather(*work)
        for trader in traders:
            await check(trader)
        assert not await check_books(operator)
        for listener in listeners:
            listener.cancel()
        for trader in traders:
            await trader.client.aclose()
        return traders, back_s


async def check(trader: Trader) -> None:
    orders = {o.client_order_id: o async for o in trader.client.list_orders(include_closed=True, page_size=1_000)}
    lost = [name for name in trader.acknowledged if name not in orders]
    assert not lost, f"acknowledged and lost: {lost[:5]}"
    assert all(count == 1 for count in trader.trades.values()), "a trade was reported twice"
    for _ in range(1_000):
        if all(trader.filled.get(n, Decimal(0)) == o.filled_quantity for n, o in orders.items() if o.filled_quantity):
            break
        await asyncio.sleep(0.01)
    for name, order in orders.items():
        assert order.status != OrderStatus.REJECTED or name not in trader.acknowledged
        assert trader.filled.get(name, Decimal(0)) == order.filled_quantity, f"{name}: executions do not add up"
        assert name not in trader.cancelled or order.status == OrderStatus.CANCELLED


def test_fifty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    config = ExchangeConfig(data_dir=tmp_path, port=0, shards=1, settings=restarting_freely(opening_at_once()))
    with LocalExchange(config) as exchange:
        traders, back_s = asyncio.run(run(exchange))
    # Snapshot and journal, and the journal alone, must give the same state.
    kind = KINDS["shard"]
    journal, snapshots = open_storage(tmp_path, "shard-0")
    whole = recover(kind, journal, snapshots)
    replayed = recover(kind, journal, open_storage(tmp_path, "no-snapshots")[1])
    whole.machine.validate()  # type: ignore[attr-defined]
    assert replayed.machine.sequence == whole.machine.sequence
    assert state_hash(kind, replayed.machine) == state_hash(kind, whole.machine)
    acknowledged = sum(len(trader.acknowledged) for trader in traders)
    back_s.sort()
    print(
        f"\n{KILLS} kills, {acknowledged:,} acknowledged orders: 0 lost, 0 doubled, hash equal; "
        f"orders again after {back_s[len(back_s) // 2]:.2f} s (median), {back_s[-1]:.2f} s (worst)"
    )
