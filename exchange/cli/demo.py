"""`exchange demo`: trade, kill -9 the shard in the middle, and prove from the clients' side that nothing was lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from rich.table import Table

from exchange.cli.output import console
from exchange.client import (
    AsyncClient,
    EvenkeelError,
    Execution,
    ExecutionType,
    OrderResult,
    OrderStatus,
    OutcomeUnknown,
    Permission,
    Side,
    TimeInForce,
)
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig

SYMBOL = "BTC-USDT"
TAKERS = 3
_TICK = Decimal("0.01")


@dataclass(slots=True)
class Trader:
    """One client with its account, and all that the exchange ever told it."""

    name: str
    client: AsyncClient
    acknowledged: dict[str, OrderResult] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: int = 0
    executions: list[Execution] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)

    async def place(self, client_order_id: str, side: Side, quantity: Decimal, price: Decimal, **terms: object) -> None:
        """Place an order and write down what was answered."""
        try:
            result = await self.client.place_order(
                SYMBOL,
                side,
                quantity,
                price,
                client_order_id=client_order_id,
                timeout=5.0,
                **terms,  # type: ignore[arg-type]
            )
        except OutcomeUnknown:
            self.unknown.add(client_order_id)
            return
        except EvenkeelError:
            self.refused += 1
            return
        self.answered_s.append(time.monotonic())
        if result.rejected:
            self.refused += 1
        else:
            self.acknowledged[client_order_id] = result

    async def listen(self) -> None:
        """Collect executions until cancelled."""
        async for execution in self.client.stream_executions():
            self.executions.append(execution)


def run(seconds: int) -> int:
    """Run the demo in a directory of its own; return the exit code: 0 if nothing was lost."""
    with tempfile.TemporaryDirectory(prefix="evenkeel-demo-") as directory:
        console.print("[bold]Evenkeel demo[/]: an exchange is started, traded on, and its shard killed with kill -9.")
        started_s = time.monotonic()
        with LocalExchange(ExchangeConfig(data_dir=Path(directory), port=0)) as exchange:
            console.print(f"exchange up on {exchange.address} after {time.monotonic() - started_s:.1f} s")
            return asyncio.run(_trade(exchange, seconds))


async def _trade(exchange: LocalExchange, seconds: int) -> int:
    async with AsyncClient(exchange.address, exchange.operator_key, timeout=5.0) as operator:
        await operator.create_instrument(
            SYMBOL,
            base_asset="BTC",
            quote_asset="USDT",
            tick_size=_TICK,
            lot_size=Decimal("0.0001"),
            max_quantity=100,
            quote_scale=8,
            band_bps=1_000,
            reference_price=60_000,
        )
        traders = [
            await _open_account(exchange, operator, name) for name in ("maker", *(f"taker-{n}" for n in range(TAKERS)))
        ]
        listeners = [asyncio.create_task(trader.listen()) for trader in traders]
        stop = asyncio.Event()
        work = [asyncio.create_task(_make(traders[0], stop))]
        work += [asyncio.create_task(_take(trader, n, stop)) for n, trader in enumerate(traders[1:])]
        await asyncio.sleep(seconds / 2)

        shard = next(c for c in (await operator.status()).components if SYMBOL in c.instruments)
        before = sum(len(trader.acknowledged) for trader in traders)
        console.print(f"{before:,} orders acknowledged; [bold red]kill -9[/] of {shard.name}, process {shard.pid}")
        killed_s = time.monotonic()
        os.kill(shard.pid, signal.SIGKILL)
        await asyncio.sleep(seconds / 2)
        stop.set()
        await asyncio.gather(*work)
        first = [min((s for s in t.answered_s if s > killed_s + 0.05), default=float("inf")) for t in traders]
        console.print(f"{shard.name} took orders again {min(first) - killed_s:.2f} s after the kill")
        after = next(c for c in (await operator.status()).components if c.name == shard.name)
        console.print(f"{after.name}: new process {after.pid}, epoch {shard.epoch} → {after.epoch}, {after.stage.name}")
        faults = [fault for trader in traders for fault in await _check(trader)]
        _summarise(traders, faults)
        for listener in listeners:
            listener.cancel()
        for trader in traders:
            await trader.client.aclose()
        return 1 if faults or after.pid == shard.pid else 0


async def _open_account(exchange: LocalExchange, operator: AsyncClient, name: str) -> Trader:
    account = await operator.create_account(name)
    key = await operator.create_api_key(account.account_id, [Permission.READ, Permission.TRADE])
    return Trader(name, AsyncClient(exchange.address, key.secret, timeout=5.0))


async def _make(trader: Trader, stop: asyncio.Event) -> None:
    """Quote both sides around a price that wanders, and take the old quotes away."""
    chance = random.Random(1)
    middle, number, quotes = Decimal(60_000), 0, []
    while not stop.is_set():
        middle += _TICK * chance.randint(-50, 50)
        places = []
        for side, sign in ((Side.BUY, -1), (Side.SELL, 1)):
            for step in range(1, 4):
                number += 1
                quotes.append(f"m{number}")
                price = middle + sign * step * _TICK * 100
                places.append(trader.place(f"m{number}", side, Decimal("0.5"), price, post_only=True))
        await asyncio.gather(*places)
        while len(quotes) > 24:
            try:
                await trader.client.cancel_order(SYMBOL, client_order_id=quotes.pop(0), timeout=5.0)
            except EvenkeelError:
                trader.refused += 1


async def _take(trader: Trader, number: int, stop: asyncio.Event) -> None:
    """Hit the quotes now and then."""
    chance = random.Random(100 + number)
    count = 0
    while not stop.is_set():
        count += 1
        side = chance.choice((Side.BUY, Side.SELL))
        price = Decimal(65_000) if side == Side.BUY else Decimal(55_000)
        quantity = Decimal(chance.randint(1, 4_000)) / 10_000
        await trader.place(f"t{number}-{count}", side, quantity, price, time_in_force=TimeInForce.IOC)
        await asyncio.sleep(chance.random() / 50)


async def _check(trader: Trader) -> list[str]:
    """Ask the exchange for every order, and compare it with what was acknowledged and with the executions."""
    orders = {
        order.client_order_id: order async for order in trader.client.list_orders(include_closed=True, page_size=1_000)
    }
    faults = [f"{trader.name}: acknowledged order {i} is lost" for i in trader.acknowledged if i not in orders]
    await asyncio.sleep(0.2)
    fills: dict[str, Decimal] = {}
    seen: set[tuple[int, str]] = set()
    for execution in trader.executions:
        if execution.type != ExecutionType.TRADE:
            continue
        if (execution.trade_id, execution.client_order_id) in seen:
            faults.append(f"{trader.name}: trade {execution.trade_id} was reported twice")
        seen.add((execution.trade_id, execution.client_order_id))
        fills[execution.client_order_id] = fills.get(execution.client_order_id, Decimal(0)) + execution.trade_quantity
    for client_order_id, order in orders.items():
        filled = fills.get(client_order_id, Decimal(0))
        if order.status != OrderStatus.REJECTED and filled != order.filled_quantity:
            faults.append(f"{trader.name}: {client_order_id} filled {order.filled_quantity}, executions say {filled}")
        first = trader.acknowledged.get(client_order_id)
        if first is not None and order.filled_quantity < first.filled_quantity:
            faults.append(f"{trader.name}: {client_order_id} lost a fill that was acknowledged")
    return faults


def _summarise(traders: list[Trader], faults: list[str]) -> None:
    table = Table("trader", "acknowledged", "unknown, settled", "refused", "executions", title="What the clients saw")
    for t in traders:
        counts = (len(t.acknowledged), len(t.unknown), t.refused, len(t.executions))
        table.add_row(t.name, *(f"{count:,}" for count in counts))
    console.print(table)
    for fault in faults[:20]:
        console.print(f"[red]{fault}[/]")
    total = sum(len(trader.acknowledged) for trader in traders)
    if not faults:
        console.print(f"[bold green]Nothing lost, nothing twice[/]: {total:,} acknowledged orders, all there.")
