"""The engine's speed, next to a bare price-time loop that runs the same commands in the same process."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from statistics import median
from time import perf_counter

from exchange.cli.bench import Figure
from exchange.cli.bench.flow import INSTRUMENT, OrderFlow, open_shard
from exchange.compiled import described
from exchange.engine import shard as engine_module
from exchange.engine.commands import Command, PlaceOrder
from exchange.engine.words import OrderType, Side, TimeInForce

_BUY = int(Side.BUY)
_MARKET = int(OrderType.MARKET)
_GTC = int(TimeInForce.GTC)
_ANY_PRICE = 1 << 62

Trade = tuple[str, str, int, int]
"""Taker, maker, price, quantity."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the cyclic collector off, as a shard's host does: it would walk all that rests in the books."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def bare_matching(commands: Sequence[Command]) -> list[Trade]:
    """Match limit, market, IOC orders and cancels by price and time, and do nothing else.

    The reference for the engine: levels in a dictionary, each a deque; prices in a heap; an index for cancels, whose
    orders leave their queues when they come to the front. No checks, results, events, accounts or levels' totals.
    """
    bids: dict[int, deque[list[int | str]]] = {}
    asks: dict[int, deque[list[int | str]]] = {}
    bid_keys: list[int] = []
    ask_keys: list[int] = []
    index: dict[str, list[int | str]] = {}
    trades: list[Trade] = []
    for command in commands:
        if type(command) is not PlaceOrder:
            cancelled = index.pop(command.client_order_id, None)  # type: ignore[union-attr]  # the flow has no others
            if cancelled is not None:
                cancelled[1] = 0
            continue
        _, order_id, _, side, kind, time_in_force, price, left, _, _, _, _ = command
        if side == _BUY:
            own, own_keys, opposite, opposite_keys, sign = bids, bid_keys, asks, ask_keys, 1
            limit = _ANY_PRICE if kind == _MARKET else price
        else:
            own, own_keys, opposite, opposite_keys, sign = asks, ask_keys, bids, bid_keys, -1
            limit = _ANY_PRICE if kind == _MARKET else -price
        while left and opposite_keys and opposite_keys[0] <= limit:
            best_price = opposite_keys[0] * sign
            queue = opposite[best_price]
            while queue and left:
                maker = queue[0]
                maker_left: int = maker[1]  # type: ignore[assignment]
                if maker_left > left:
                    maker[1] = maker_left - left
                    trades.append((order_id, maker[0], best_price, left))  # type: ignore[arg-type]
                    left = 0
                    break
                queue.popleft()
                if maker_left:
                    left -= maker_left
                    trades.append((order_id, maker[0], best_price, maker_left))  # type: ignore[arg-type]
                    del index[maker[0]]  # type: ignore[arg-type]
            if not queue:
                del opposite[best_price]
                heappop(opposite_keys)
        if left and time_in_force == _GTC:
            order: list[int | str] = [order_id, left]
            index[order_id] = order
            level = own.get(price)
            if level is None:
                level = own[price] = deque()
                heappush(own_keys, -price * sign)
            level.append(order)
    return trades


def measure(*, commands: int = 200_000, rounds: int = 5, batch: int = 100, seed: int = 1) -> Figure:
    """Measure commands per second through a shard, and through the bare loop in turn; the medians are compared."""
    flow = OrderFlow(seed).commands(commands)
    batches = [flow[at : at + batch] for at in range(0, commands, batch)]
    engine_s, bare_s = [], []
    trades = 0
    for _ in range(rounds):
        shard = open_shard()
        with no_collection():
            start_s = perf_counter()
            bare_trades = bare_matching(flow)
            bare_s.append(perf_counter() - start_s)
            start_s = perf_counter()
            for time_ns, part in enumerate(batches, 2):
                shard.apply(time_ns, part)
            engine_s.append(perf_counter() - start_s)
        trades = shard.books[INSTRUMENT.symbol].trade_id
        if trades != len(bare_trades):
            raise RuntimeError(f"the engine made {trades} trades, the bare loop {len(bare_trades)}: expected the same")
    engine, bare = commands / median(engine_s), commands / median(bare_s)
    return Figure(
        "engine",
        engine,
        "commands/s",
        reference=bare,
        ratio=engine / bare,
        detail=(
            f"{described(engine_module)}; {commands:,} commands, {trades / commands:.2f} trades each, "
            f"in batches of {batch}; median of {rounds}; "
            "reference: a bare dict-and-deque loop on the same commands"
        ),
    )
