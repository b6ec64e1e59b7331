"""`grants`: how many orders wait for money when accounts trade two markets on two shards from one balance each.

An order whose market lacks the money waits for the ledger. A client sees that afterwards: an order's id is the sequence
of its command, and the sequence of its execution NEW is that of the command which let it in. For most the two are the
same; an order that has waited came in with the ledger's answer, so much later as the times of the two say.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import grpc
import uvloop

from exchange.cli.bench import Figure
from exchange.cli.bench.live import bearer, open_market, running
from exchange.client import AccountTier, Client, Permission
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2

MARKETS = ("AAA-USDT", "BBB-USDT")
ACCOUNTS = 8
DEPOSITS = {"USDT": "30000", "AAA": "30", "BBB": "30"}
"""Some ten times what an account's open orders hold of each: so money matters, and is there."""
COMMANDS_PER_MESSAGE = 10
MESSAGES_PER_S = 50
"""Of each account, so that all together send 4,000 commands a second, each account as steadily as it can."""
WARM_UP_S = 5.0
MEASURED_S = 20.0
OPEN_ORDERS_MAX = 30
WAITED_PERCENT_MAX = 1.0
_UNPAID = (types_pb2.REJECT_REASON_FUNDS_UNAVAILABLE, types_pb2.REJECT_REASON_INSUFFICIENT_FUNDS)


@dataclass(slots=True)
class _Account:
    """One account's client: what it sent, and what it was told."""

    metadata: tuple[tuple[str, str], ...]
    number: int
    chance: random.Random
    sent: int = 0
    open: dict[str, list[str]] = field(default_factory=lambda: {symbol: [] for symbol in MARKETS})
    placed_from: int = 0
    """Orders whose number is at least this were sent after the warm-up."""
    orders: int = 0
    refused: int = 0
    waited: list[trading_pb2.Execution] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def message(self, symbol: str) -> trading_pb2.TradeRequest:
        """Return orders around a price, a third of which trade, and cancels of the oldest that are too many."""
        chance = self.chance
        request = trading_pb2.TradeRequest(request_id=1, deadline_ms=5_000)
        mine = self.open[symbol]
        for _ in range(COMMANDS_PER_MESSAGE):
            if len(mine) > OPEN_ORDERS_MAX:
                cancel = request.commands.add().cancel
                cancel.instrument, cancel.client_order_id = symbol, mine.pop(0)
                continue
            self.sent += 1
            place = request.commands.add().place
            place.instrument, place.client_order_id = symbol, str(self.sent)
            buys = chance.random() < 0.5
            place.side = types_pb2.SIDE_BUY if buys else types_pb2.SIDE_SELL
            place.type = types_pb2.ORDER_TYPE_LIMIT
            offset = chance.randint(-12, 40)
            place.price, place.quantity = 10_000 + (-offset if buys else offset), chance.randint(100, 2_000)
            mine.append(place.client_order_id)
        return request

    def is_measured(self, client_order_id: str) -> bool:
        """Whether an order was sent after the warm-up."""
        return bool(self.placed_from) and int(client_order_id) >= self.placed_from

    async def trade(self, stub: trading_pb2_grpc.TradingServiceAsyncStub, started_s: float) -> None:
        """Send at a steady pace until the time is over, the markets in turn; count what was refused for money."""
        call = stub.Trade(metadata=self.metadata)

        async def send() -> None:
            messages = int((WARM_UP_S + MEASURED_S) * MESSAGES_PER_S)
            for n in range(messages):
                due_s = started_s + (n + self.number / ACCOUNTS) / MESSAGES_PER_S
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
                if not self.placed_from and due_s - started_s >= WARM_UP_S:
                    self.placed_from = self.sent + 1
                await call.write(self.message(MARKETS[n % len(MARKETS)]))
            await call.done_writing()

        sender = asyncio.create_task(send())
        async for response in call:
            assert isinstance(response, trading_pb2.TradeResponse)
            for result in response.results:
                assert result.outcome != types_pb2.OUTCOME_UNKNOWN
                is_unpaid = result.reject_reason in _UNPAID or result.status == types_pb2.ORDER_STATUS_PENDING_FUNDS
                self.refused += is_unpaid and self.is_measured(result.client_order_id)
        await sender
        self.ended.set()

    async def listen(self, stub: trading_pb2_grpc.TradingServiceAsyncStub) -> None:
        """Count the orders that came in, and keep those that had waited."""
        async for response in stub.StreamExecutions(trading_pb2.StreamExecutionsRequest(), metadata=self.metadata):
            for execution in response.executions:
                if execution.type == trading_pb2.EXECUTION_TYPE_NEW:
                    self.orders += self.is_measured(execution.client_order_id)
                    if execution.sequence != execution.order_id:
                        self.waited.append(execution)


def measure() -> Figure:
    """Return the share of orders that waited after the warm-up, in percent; reference: the most that is meant to be."""
    with running(shards=2) as exchange:
        keys = []
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            for number, symbol in enumerate(MARKETS):
                open_market(operator, symbol, f"shard-{number}")
            for number in range(ACCOUNTS):
                account = operator.create_account(f"trader-{number}").account_id
                operator.set_account_tier(account, AccountTier.UNLIMITED)
                for asset, amount in DEPOSITS.items():
                    operator.deposit(account, asset, amount, reference=f"{number}-{asset}")
                keys.append(operator.create_api_key(account, [Permission.READ, Permission.TRADE]).secret)
        return uvloop.run(_measure(exchange.address, keys))


async def _measure(address: str, keys: list[str]) -> Figure:
    accounts = [_Account(bearer(key), number, random.Random(number)) for number, key in enumerate(keys)]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = trading_pb2_grpc.TradingServiceStub(channel)
        listeners = [asyncio.create_task(account.listen(stub)) for account in accounts]
        started_s = time.monotonic() + 0.5
        await asyncio.gather(*(account.trade(stub, started_s) for account in accounts))
        took_s = time.monotonic() - started_s
        await asyncio.sleep(1.0)
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        early: list[float] = []
        late: list[float] = []
        for account in accounts:
            for execution in account.waited:
                is_late = account.is_measured(execution.client_order_id)
                (late if is_late else early).append(await _waited_ms(stub, account, execution))
    orders, refused = sum(account.orders for account in accounts), sum(account.refused for account in accounts)
    value = 100 * (len(late) + refused) / (orders + refused)
    detail = (
        f"{len(late)} of {orders:,} orders waited, {_times(late)}; in the warm-up {len(early)}, {_times(early)}; "
        f"{refused} not paid; {sum(account.sent for account in accounts) / took_s:,.0f} orders and as many cancels a "
        f"second, {ACCOUNTS} accounts, 2 shards; reference: the most that is meant to be"
    )
    return Figure("grants", value, "% of orders", WAITED_PERCENT_MAX, value / WAITED_PERCENT_MAX, detail)


async def _waited_ms(
    stub: trading_pb2_grpc.TradingServiceAsyncStub, account: _Account, execution: trading_pb2.Execution
) -> float:
    """Return how long an order waited by the shard's clock: from its command to what let it in."""
    request = trading_pb2.GetOrderRequest(instrument=execution.instrument, client_order_id=execution.client_order_id)
    order = (await stub.GetOrder(request, metadata=account.metadata)).order
    return (execution.time_ns - order.create_time_ns) / 1e6


def _times(waited_ms: list[float]) -> str:
    if not waited_ms:
        return "no wait to time"
    ordered = sorted(waited_ms)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
