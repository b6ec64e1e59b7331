"""An account has one balance over ledger and shards, right at any moment, and its stream tells every change of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

import grpc
import pytest

from exchange.engine.channel import RecallFunds
from exchange.engine.commands import CancelAll, Tick
from exchange.engine.ledger_words import EndWaits, Transfer, Withdraw
from exchange.gateway.balance_stream import encode_balances
from exchange.v1 import account_pb2
from tests.gateway.money_world import ALICE, BOB, HOUSE, MARKETS, SCALES, World

BUY, SELL = 1, 2
S = 1_000_000_000
Totals = dict[str, Decimal]


class Ended(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code


class Context:
    def time_remaining(self) -> None: ...

    async def abort(self, code: grpc.StatusCode, message: str, trailers: Any) -> None:
        raise Ended(code, message)


async def balances(world: World, account: int) -> dict[str, Any]:
    found = await world.hub.balances(account)
    return {balance.asset: balance for balance in encode_balances(found, world.ledger_copy.assets)}


async def totals(world: World, account: int) -> Totals:
    found = await balances(world, account)
    return {asset: Decimal(b.total) for asset, b in found.items() if Decimal(b.total)}


def stream(world: World, account: int, after: Mapping[str, int] | None = None) -> AsyncIterator[Any]:
    return world.hub.stream(account, after or {}, Context())


async def read_on(world: World, source: AsyncIterator[Any], known: dict[str, int]) -> list[Any]:
    """Read until the stream is as far as the gateway is; return the changes, and move `known` on."""
    now = {"ledger": world.ledger_copy.sequence, **world.executions.sequences()}
    changes: list[Any] = []
    async with asyncio.timeout(30):
        while any(known.get(name, -1) < sequence for name, sequence in now.items()):
            message = await anext(source)
            changes += message.changes
            known.update(message.sequences)
    return changes


def added(changes: list[Any], to: Totals) -> Totals:
    result = dict(to)
    for change in changes:
        result[change.asset] = result.get(change.asset, Decimal(0)) + Decimal(change.change)
    return result


def without_nothing(amounts: Totals) -> Totals:
    return {asset: amount for asset, amount in amounts.items() if amount}


# ---------------------------------------------------------------- balances


async def test_money_on_its_way_to_a_shard_is_counted_once() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    thousand = {"USDT": Decimal(1_000)}
    world.places("shard-0", ALICE, BUY, 10_000, 20_000)
    assert await totals(world, ALICE) == thousand
    answers = world.asks("shard-0", fed=False)
    assert await totals(world, ALICE) == thousand, "the gateway does not know of the grant"
    world.feed("ledger")
    assert await totals(world, ALICE) == thousand, "granted, and not there yet"
    world.hears("shard-0", answers, fed=False)
    found = (await balances(world, ALICE))["USDT"]
    # 2 at 100.00, and the fee of a taker on that.
    assert (found.held, found.available, found.total) == ("200.200000", "799.800000", "1000.000000")
    assert [(m.instrument, m.held) for m in found.markets] == [("BTC-USDT", "200.200000")]
    world.hears("shard-0", answers)
    assert await totals(world, ALICE) == thousand, "an answer that comes twice"


async def test_money_on_its_way_back_is_counted_once() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    world.places("shard-0", ALICE, BUY, 10_000, 10_000)
    world.settle()
    world.does("shard-0", CancelAll(ALICE, ""), RecallFunds(1, 1, ALICE, "USDT", 300_000_000))
    thousand = {"USDT": Decimal(1_000)}
    assert await totals(world, ALICE) == thousand, "sent, and not arrived"
    world.asks("shard-0", fed=False)
    assert await totals(world, ALICE) == thousand, "arrived, and the gateway does not know"
    world.feed("ledger")
    assert await totals(world, ALICE) == thousand
    world.asks("shard-0")
    assert await totals(world, ALICE) == thousand, "a return that comes twice"


async def test_no_order_is_refused_for_money_that_is_on_its_way_to_its_own_shard() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 30_000_000_000)
    # 1,001 each: the first grants leave too little in the ledger for the last, which it refuses by the feed.
    names = [world.places("shard-0", ALICE, BUY, 10_000, 100_000).client_order_id for _ in range(8)]
    answers = world.asks("shard-0")
    world.hears("shard-0", [])
    world.hears("shard-0", answers)
    world.settle()
    orders = [world.shards["shard-0"].find(ALICE, "BTC-USDT", name, 0) for name in names]
    assert all(order is not None and order.level is not None for order in orders)
    assert (await balances(world, ALICE))["USDT"].total == "30000.000000"


async def test_what_an_account_has_in_a_shard_that_is_away_is_left_out_and_said_so() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    for name in MARKETS:
        world.places(name, ALICE, BUY, 10_000, 10_000)
        world.settle()
    world.peers["shard-1"].is_away = True
    found = await world.hub.balances(ALICE)
    assert found.unavailable == ["shard-1"]
    assert set(found.of["USDT"].held) == {"BTC-USDT"}
    assert found.of["USDT"].total < 1_000_000_000
    assert set(found.sequences) == {"ledger", *MARKETS}
    world.peers["shard-1"].is_away = False
    assert await totals(world, ALICE) == {"USDT": Decimal(1_000)}


async def test_a_shard_where_the_account_never_was_is_not_asked() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    for peer in world.peers.values():
        peer.is_away = True
    assert (await world.hub.balances(ALICE)).unavailable == []


# ---------------------------------------------------------------- the stream


async def test_a_trade_tells_what_was_bought_what_was_paid_and_the_fee_to_each_side_and_to_the_house() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    world.deposit(BOB, "BTC", 500_000_000)
    streams = {account: stream(world, account) for account in (HOUSE, ALICE, BOB)}
    known = {account: dict((await anext(source)).sequences) for account, source in streams.items()}
    world.places("shard-0", BOB, SELL, 10_000, 20_000)
    world.settle()
    world.places("shard-0", ALICE, BUY, 10_000, 15_000)
    world.settle()
    told = {}
    for account, source in streams.items():
        changes = await read_on(world, source, known[account])
        told[account] = [(c.asset, c.change, account_pb2.BalanceChangeReason.Name(c.reason)[22:]) for c in changes]
        assert {c.source for c in changes} == {"shard-0"}
        assert {(c.instrument, c.trade_id) for c in changes} == {("BTC-USDT", 1)}
        assert all(bool(c.client_order_id) == (account != HOUSE) for c in changes)
    assert told == {
        ALICE: [("BTC", "1.50000000", "TRADE"), ("USDT", "-150.000000", "TRADE"), ("USDT", "-0.150000", "FEE")],
        BOB: [("BTC", "-1.50000000", "TRADE"), ("USDT", "150.000000", "TRADE"), ("USDT", "0.030000", "FEE")],
        HOUSE: [("USDT", "0.120000", "FEE")],
    }


async def test_balances_and_the_changes_after_them_add_up_wherever_a_stream_begins_and_goes_on() -> None:
    world, chance = World(), random.Random(11)
    accounts = (HOUSE, ALICE, BOB)
    for account in accounts:
        for asset in SCALES:
            world.deposit(account, asset, 10_000_000_000)
    sources: dict[int, AsyncIterator[Any]] = {}
    known: dict[int, dict[str, int]] = {account: {} for account in accounts}
    sums: dict[int, Totals] = {}
    for step in range(400):
        await _something(world, chance, accounts)
        account = chance.choice(accounts)
        if account not in sources:
            sources[account] = source = stream(world, account)
            first = await anext(source)
            sums[account] = {balance.asset: Decimal(balance.total) for balance in first.balances}
            known[account] = dict(first.sequences)
        elif step % 3 == 0:
            sums[account] = added(await read_on(world, sources[account], known[account]), sums[account])
        elif step % 7 == 0:
            sources[account] = stream(world, account, known[account])
    world.settle()
    for name in ("ledger", *MARKETS):
        world.feed(name)
    everything: Counter[str] = Counter()
    for account in accounts:
        changes = await read_on(world, sources[account], known[account])
        have = await totals(world, account)
        assert without_nothing(added(changes, sums[account])) == have, f"account {account}"
        everything.update({asset: int(total * 10 ** SCALES[asset]) for asset, total in have.items()})
    assert everything == world.ledger.balances.supply
    assert sum(shard.books[MARKETS[name]].trade_id for name, shard in world.shards.items()) > 20


async def _something(world: World, chance: random.Random, accounts: tuple[int, ...]) -> None:
    """Let one thing happen, its messages left on the way or carried, feeds lagging or not."""
    name, account, fed = chance.choice(list(MARKETS)), chance.choice(accounts), chance.random() < 0.7
    match chance.randrange(10):
        case 0:
            world.does(name, CancelAll(account, ""), fed=fed)
        case 1:
            amount = chance.randint(1, 500_000_000)
            world.does_ledger(Withdraw(account, "USDT", amount, f"w{world.ledger.sequence}"), fed=fed)
        case 2:
            other = chance.choice([a for a in accounts if a != account])
            amount = chance.randint(1, 500_000_000)
            world.does_ledger(Transfer(account, other, "USDT", amount, f"t{world.ledger.sequence}"), fed=fed)
        case 3:
            world.asks(name, fed=fed)
        case 4:
            world.hears(name, world.asks(name, fed=fed), fed=fed)
        case 5:
            world.now_ns += S
            world.does(name, Tick(), fed=fed)
            world.does_ledger(EndWaits(), fed=fed)
        case 6:
            world.feed(name)
            world.feed("ledger")
        case _:
            side, price, quantity = chance.choice((BUY, SELL)), chance.randint(9_900, 10_100), chance.randint(1, 9_000)
            world.places(name, account, side, price, quantity, fed=fed)
    for source in ("ledger", *MARKETS):
        if chance.random() < 0.2:
            world.feed(source)


async def test_a_stream_that_goes_on_says_where_each_source_stands_and_no_balances() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    after = {"ledger": world.ledger.sequence, "shard-0": 2}
    source = stream(world, ALICE, after)
    first = await anext(source)
    assert not first.balances
    assert dict(first.sequences) == {**after, "shard-1": 2}


async def test_a_silent_stream_says_how_far_it_is_so_that_it_can_go_on_from_there() -> None:
    world = World()
    source = stream(world, ALICE)
    await anext(source)
    for _ in range(5):
        world.deposit(BOB, "USDT", 1)
    message = await anext(source)
    assert (list(message.changes), dict(message.sequences)) == ([], {"ledger": world.ledger.sequence})


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ({"shard-7": 1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"shard-0": 1}, grpc.StatusCode.OUT_OF_RANGE),
        ({"ledger": 1}, grpc.StatusCode.OUT_OF_RANGE),
    ],
)
async def test_to_go_on_after_what_is_not_held_is_refused(after: dict[str, int], code: grpc.StatusCode) -> None:
    with pytest.raises(Ended) as ended:
        await anext(stream(World(), ALICE, after))
    assert ended.value.code == code


async def test_a_copy_loaded_anew_ends_the_stream_because_something_may_be_missing() -> None:
    world = World()
    world.deposit(ALICE, "USDT", 1_000_000_000)
    source = stream(world, ALICE)
    await anext(source)
    world.executions.reset("shard-1")
    with pytest.raises(Ended, match="OUT_OF_RANGE: shard-1 was loaded anew"):
        await anext(source)
