"""Whatever happens on machines that are right, the auditor says that they are."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AmendOrder, CancelAll, CancelOrder, PlaceOrder
from exchange.engine.ledger_words import Transfer, Withdraw
from tests.supervisor.books import ASSETS, INSTRUMENTS, Books, S

SEEDS = st.integers(0, 2**32)


class People:
    """Does at random what people, carriers and supervisors may do."""

    def __init__(self, books: Books, seed: int) -> None:
        self.books = books
        self.chance = Random(seed)
        self.placed: list[tuple[str, PlaceOrder]] = []
        self.trades = 0
        self.kinds = (
            (30, self.trade),
            (50, lambda: self.books.carry_some(self.chance)),
            (3, self.move),
            (3, self.pass_time),
            (1, self.restart),
        )

    def act(self) -> None:
        weights = [weight for weight, _ in self.kinds]
        self.chance.choices([act for _, act in self.kinds], weights)[0]()

    def trade(self) -> None:
        shard = self.chance.choice(list(self.books.shards))
        commands = [self.command(shard) for _ in range(self.chance.randint(1, 6))]
        books = self.books.shards[shard].machine.books.values()
        before = sum(book.trade_id for book in books)
        self.books.shards[shard].apply(self.books.time_ns, commands)
        self.trades += sum(book.trade_id for book in books) - before

    def command(self, shard: str) -> Any:
        chance = self.chance
        here = [order for where, order in self.placed if where == shard]
        kind = chance.random()
        if here and kind < 0.15:
            order = chance.choice(here)
            return CancelOrder(order.account, order.instrument, order.client_order_id)
        if here and kind < 0.4:
            order = chance.choice(here[-20:])
            price = chance.choice([0, self.price(order.instrument)])
            more = (0, chance.randint(1, 40) * 10) if chance.random() < 0.5 else (chance.randint(1, 40) * 10, 0)
            requeue, cancel_on_fail = chance.random() < 0.2, chance.random() < 0.2
            name = order.client_order_id
            return AmendOrder(order.account, order.instrument, name, 0, price, *more, requeue, cancel_on_fail)
        if kind < 0.43:
            return CancelAll(chance.randint(1, 4), "", 0, 1)
        symbol = chance.choice(INSTRUMENTS[shard]).symbol
        order_type, time_in_force = chance.choice([(1, 1)] * 6 + [(1, 2), (1, 3), (2, 0)])
        price = self.price(symbol) if order_type == 1 else 0
        account, side = chance.randint(1, 4), chance.randint(1, 2)
        order = self.books.order(symbol, account, side, price, chance.randint(1, 40) * 10)
        prevention = chance.choice([0, 1, 2, 3])
        order = order._replace(type=order_type, time_in_force=time_in_force, self_trade_prevention=prevention)
        self.placed.append((shard, order))
        return order

    def price(self, symbol: str) -> int:
        return self.chance.randint(1, 8) * (10 if symbol == "ETH-BTC" else 5) + 1_000 * 10

    def move(self) -> None:
        chance, books = self.chance, self.books
        account, asset = chance.randint(1, 4), chance.choice(list(ASSETS))
        amount = chance.choice([1, 10**5, 10**7])
        books.deposit(account, (asset, amount))
        to = account % 4 + 1
        command: Any = chance.choice(
            [Withdraw(account, asset, amount, f"w{books.time_ns}"), Transfer(account, to, asset, amount, "t")]
        )
        books.ledger.apply(books.time_ns, [command])

    def pass_time(self) -> None:
        self.books.pass_time(self.chance.choice([S // 10, S, 11 * S]))

    def restart(self) -> None:
        node = self.chance.choice(list(self.books.nodes.values()))
        node.restart(tail=self.chance.choice([None, None, 0, 3]))


async def check(seed: int, steps: int) -> int:
    chance = Random(seed)
    books = Books(deposit=chance.choice([10**5, 10**7, 10**9]))
    people = People(books, seed)
    for _ in range(steps):
        people.act()
        what = chance.random()
        if what < 0.1:
            await books.auditor.follow()
        elif what < 0.2:
            away = chance.choice(list(books.nodes.values())) if chance.random() < 0.3 else None
            if away is not None:
                away.is_away = True
                assert (await books.audit()).breaks == []
                away.is_away = False
            await books.balanced()
    await books.balanced()
    return people.trades


@settings(max_examples=40, deadline=None)
@given(SEEDS)
async def test_no_trading_movement_or_restart_makes_an_alarm(seed: int) -> None:
    await check(seed, 60)


@pytest.mark.parametrize("seed", range(3))
async def test_nor_do_many(seed: int) -> None:
    assert await check(seed, 1_500) > 50
