"""`exchange demo`: trade two markets from one balance, kill -9 a shard, and show that no order and no money is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from rich.table import Table

from exchange.cli.audit import show_audit
from exchange.cli.books import audit_books, check_books
from exchange.cli.output import console
from exchange.client import (
    AccountTier,
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

TAKERS = 3
HOUSE = 1
"""The account that fees go to: the operator's."""
TAKER_FEE_PPM, MAKER_FEE_PPM = 1_000, -200
_TICK = Decimal("0.01")
_SCALES = {"BTC": 8, "ETH": 8, "USDT": 8}


@dataclass(frozen=True, slots=True)
class Market:
    """An instrument of the demo: where its price starts, and the unit of its orders' sizes."""

    symbol: str
    price: int
    size: Decimal

    @property
    def step(self) -> Decimal:
        """Between two quotes of the maker."""
        return Decimal(self.price) / 60_000


MARKETS = (Market("BTC-USDT", 60_000, Decimal("0.5")), Market("ETH-USDT", 3_000, Decimal(10)))
MAKER_HAS = {"BTC": "200", "ETH": "4000", "USDT": "12000000"}
TAKER_HAS = {"BTC": "4", "ETH": "80", "USDT": "240000"}
"""Each account has one balance of each asset, and trades with it on both shards."""


@dataclass(slots=True)
class Trader:
    """One client with its account, and all that the exchange ever told it."""

    name: str
    account_id: int
    client: AsyncClient
    acknowledged: dict[str, OrderResult] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: int = 0
    executions: list[Execution] = field(default_factory=list)
    answered_s: dict[str, list[float]] = field(default_factory=lambda: {m.symbol: [] for m in MARKETS})

    async def place(
        self, symbol: str, client_order_id: str, side: Side, quantity: Decimal, price: Decimal, **terms: object
    ) -> None:
        """Place an order and write down what was answered."""
        try:
            result = await self.client.place_order(
                symbol,
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
        self.answered_s[symbol].append(time.monotonic())
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
        console.print("[bold]Evenkeel demo[/]: an exchange is started, traded on, and a shard killed with kill -9.")
        started_s = time.monotonic()
        with LocalExchange(ExchangeConfig(data_dir=Path(directory), port=0, shards=len(MARKETS))) as exchange:
            console.print(f"exchange up on {exchange.address} after {time.monotonic() - started_s:.1f} s")
            return asyncio.run(_trade(exchange, seconds))


async def _trade(exchange: LocalExchange, seconds: int) -> int:
    async with AsyncClient(exchange.address, exchange.operator_key, timeout=5.0) as operator:
        await _open_markets(operator)
        traders = [await _open_account(exchange, operator, "maker", MAKER_HAS)]
        traders += [await _open_account(exchange, operator, f"taker-{n}", TAKER_HAS) for n in range(TAKERS)]
        listeners = [asyncio.create_task(trader.listen()) for trader in traders]
        stop = asyncio.Event()
        work = [asyncio.create_task(_make(traders[0], market, stop)) for market in MARKETS]
        work += [asyncio.create_task(_take(trader, n, stop)) for n, trader in enumerate(traders[1:])]
        await asyncio.sleep(seconds / 2)

        symbol = MARKETS[0].symbol
        shard = next(c for c in (await operator.status()).components if symbol in c.instruments)
        before = sum(len(trader.acknowledged) for trader in traders)
        console.print(f"{before:,} orders acknowledged; [bold red]kill -9[/] of {shard.name}, process {shard.pid}")
        killed_s, killed_ns = time.monotonic(), time.time_ns()
        os.kill(shard.pid, signal.SIGKILL)
        await asyncio.sleep(seconds / 2)
        stop.set()
        await asyncio.gather(*work)
        again_s = min(s for t in traders for s in (*t.answered_s[symbol], float("inf")) if s > killed_s + 0.05)
        console.print(f"{shard.name} took orders again {again_s - killed_s:.2f} s after the kill")
        after = next(c for c in (await operator.status()).components if c.name == shard.name)
        console.print(f"{after.name}: new process {after.pid}, epoch {shard.epoch} → {after.epoch}, {after.stage.name}")
        await _show_stages(operator, shard.name, killed_ns)
        faults = [fault for trader in traders for fault in await _check(trader)]
        _summarise(traders, faults)
        faults += await _show_books(operator, traders)
        for listener in listeners:
            listener.cancel()
        for trader in traders:
            await trader.client.aclose()
        return 1 if faults or after.pid == shard.pid else 0


async def _show_stages(operator: AsyncClient, shard: str, killed_ns: int) -> None:
    """Show how the shard opened again: cancels first, then what only adds to the book, then orders along a ramp."""
    for event in await operator.events():
        if event.component == shard and event.kind == "stage" and event.time_ns > killed_ns:
            console.print(f"  {(event.time_ns - killed_ns) / 1e9:5.2f} s  {event.detail}")


async def _open_markets(operator: AsyncClient) -> None:
    """Create the assets, and a market on each shard."""
    for asset, scale in _SCALES.items():
        await operator.create_asset(asset, scale)
    for number, market in enumerate(MARKETS):
        await operator.create_instrument(
            market.symbol,
            tick_size=_TICK,
            lot_size=Decimal("0.0001"),
            band_bps=1_000,
            reference_price=market.price,
            maker_fee_ppm=MAKER_FEE_PPM,
            taker_fee_ppm=TAKER_FEE_PPM,
            shard=f"shard-{number}",
        )


async def _open_account(
    exchange: LocalExchange, operator: AsyncClient, name: str, deposits: Mapping[str, str]
) -> Trader:
    account = await operator.create_account(name)
    await operator.set_account_tier(account.account_id, AccountTier.MAKER)
    for asset, amount in deposits.items():
        await operator.deposit(account.account_id, asset, amount, reference=f"{name}-{asset}")
    key = await operator.create_api_key(account.account_id, [Permission.READ, Permission.TRADE])
    return Trader(name, account.account_id, AsyncClient(exchange.address, key.secret, timeout=5.0))


async def _make(trader: Trader, market: Market, stop: asyncio.Event) -> None:
    """Quote both sides around a price that wanders, and take the old quotes away."""
    chance = random.Random(market.price)
    middle, number, quotes = Decimal(market.price), 0, []
    while not stop.is_set():
        middle += (market.step * chance.randint(-50, 50) / 100).quantize(_TICK)
        places = []
        for side, sign in ((Side.BUY, -1), (Side.SELL, 1)):
            for step in range(1, 4):
                number += 1
                name = f"{market.symbol}-{number}"
                quotes.append(name)
                price = (middle + sign * step * market.step).quantize(_TICK)
                places.append(trader.place(market.symbol, name, side, market.size, price, post_only=True))
        await asyncio.gather(*places)
        while len(quotes) > 24:
            try:
                await trader.client.cancel_order(market.symbol, client_order_id=quotes.pop(0), timeout=5.0)
            except EvenkeelError:
                trader.refused += 1


async def _take(trader: Trader, number: int, stop: asyncio.Event) -> None:
    """Hit the quotes of both markets now and then."""
    chance = random.Random(100 + number)
    count = 0
    while not stop.is_set():
        count += 1
        market = chance.choice(MARKETS)
        side = chance.choice((Side.BUY, Side.SELL))
        price = market.price * (Decimal("1.05") if side == Side.BUY else Decimal("0.95"))
        quantity = (market.size * chance.randint(1, 2_000) / 10_000).quantize(Decimal("0.0001"))
        await trader.place(
            market.symbol,
            f"t{number}-{count}",
            side,
            max(quantity, Decimal("0.0001")),
            price.quantize(_TICK),
            time_in_force=TimeInForce.IOC,
        )
        await asyncio.sleep(chance.random() / 50)


async def _check(trader: Trader) -> list[str]:
    """Ask the exchange for every order, and compare it with what was acknowledged and with the executions."""
    orders = {
        order.client_order_id: order async for order in trader.client.list_orders(include_closed=True, page_size=1_000)
    }
    faults = [f"{trader.name}: acknowledged order {i} is lost" for i in trader.acknowledged if i not in orders]
    await asyncio.sleep(0.2)
    fills: dict[str, Decimal] = {}
    seen: set[tuple[str, int, str]] = set()
    for execution in trader.executions:
        if execution.type != ExecutionType.TRADE:
            continue
        trade = execution.instrument, execution.trade_id, execution.client_order_id
        if trade in seen:
            faults.append(f"{trader.name}: trade {execution.trade_id} was reported twice")
        seen.add(trade)
        fills[execution.client_order_id] = fills.get(execution.client_order_id, Decimal(0)) + execution.trade_quantity
    for client_order_id, order in orders.items():
        filled = fills.get(client_order_id, Decimal(0))
        if order.status != OrderStatus.REJECTED and filled != order.filled_quantity:
            faults.append(f"{trader.name}: {client_order_id} filled {order.filled_quantity}, executions say {filled}")
        first = trader.acknowledged.get(client_order_id)
        if first is not None and order.filled_quantity < first.filled_quantity:
            faults.append(f"{trader.name}: {client_order_id} lost a fill that was acknowledged")
    return faults


async def _show_books(operator: AsyncClient, traders: list[Trader]) -> list[str]:
    """Show who has what and what was paid in fees, and check that it adds up."""
    table = Table("account", *_SCALES, "fees paid", title="Who has what, available and held")
    paid = {t.account_id: sum((e.fee for e in t.executions), Decimal(0)) for t in traders}
    for name, account_id in (("house", HOUSE), *((t.name, t.account_id) for t in traders)):
        balances = await operator.balances(account_id)
        fees = f"{paid[account_id]:f}" if account_id in paid else ""
        table.add_row(name, *(f"{balances.total(asset):f}" for asset in _SCALES), fees)
    console.print(table)
    faults = await check_books(operator)
    house = (await operator.balances(HOUSE)).total("USDT")
    if house != sum(paid.values()):
        faults.append(f"fees: the house has {house:f}, the executions say {sum(paid.values()):f}")
    audit, broken = await audit_books(operator)
    show_audit(audit, False)
    faults += broken
    for fault in faults:
        console.print(f"[red]{fault}[/]")
    if not faults:
        console.print(
            "[bold green]The books balance[/]: all accounts together have what was deposited, to the last digit."
        )
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
