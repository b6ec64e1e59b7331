"""Orders, cancels, amends, movements, crashes and a bad network, in any order, around a ledger and two shards."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.engine.money_world import ACCOUNTS, IN_FLIGHT_MAX, LEDGER, MARKETS, MS, SCALES, SHARDS, SYMBOLS, S, World
from tests.engine.planted import REAL, Engine

_OPEN = 5
_INSUFFICIENT_FUNDS, _FUNDS_UNAVAILABLE = 301, 605

account = st.sampled_from((2, 3, 2, 3, 2, 4, 1))
asset = st.sampled_from(tuple(SCALES))
shard = st.sampled_from(SHARDS)
index = st.integers(0, 63)
# So that an account has enough for some orders and too little for others.
amount = st.integers(1, 40_000)
Draft = tuple[int, str, int, int, int, tuple[int, int], int]
draft = st.tuples(
    account,
    st.sampled_from(SYMBOLS),
    st.integers(1, 2),
    st.integers(7, 12),
    st.integers(1, 25),
    # Type and time in force: most are limit orders that may rest.
    st.sampled_from(((1, 1), (1, 1), (1, 1), (1, 1), (1, 2), (1, 3), (2, 0), (1, 4))),
    st.integers(0, 3),
)
TIMES_NS = (MS, 50 * MS, 450 * MS, 899 * MS, 900 * MS, 901 * MS, S, 2 * S, 5 * S, 10 * S, 21 * S)

counted: Counter[str] = Counter()
"""Of all examples: how many there were, and their steps; and what came up in them."""


class MoneyMachine(RuleBasedStateMachine):
    """Everything is checked after each record, by `World`; at the end it must come to rest, and serve who can pay."""

    engine: Engine = REAL

    @initialize(seed=st.integers(0, 2**32), rich=st.lists(st.tuples(account, asset, amount), max_size=12))
    def start(self, seed: int, rich: list[tuple[int, str, int]]) -> None:
        self.random = Random(seed)
        self.world = World(self.engine)
        self.movements = 0
        self.steps = 0
        deposits = [(2, "USDT", 300_000), (3, "BTC", 4_000), (3, "ETH", 2_000), *rich]
        for owner, symbol, units in deposits:
            self._deposit(owner, symbol, units)
        for symbol in SYMBOLS:
            self.world.place(2, symbol, 1, 9, 4)
            self.world.place(3, symbol, 2, 10, 4)
        self.world.flush(self.random)

    def _deposit(self, owner: int, symbol: str, units: int) -> None:
        self.movements += 1
        self.world.tell_ledger(self.engine.words.Deposit(owner, symbol, units, f"d{self.movements}"))

    # ---------------------------------------------------------------- clients

    @rule(owner=account, symbol=asset, units=amount)
    def deposit(self, owner: int, symbol: str, units: int) -> None:
        self.steps += 1
        self._deposit(owner, symbol, units)

    @rule(owner=account, symbol=asset, units=amount, part=st.integers(0, 4), again=st.booleans())
    def withdraw(self, owner: int, symbol: str, units: int, part: int, again: bool) -> None:
        """Take out some amount, or a part of all that the account has."""
        self.steps += 1
        self.movements += not again
        units = self.world.free(owner, symbol) * part // 3 or units
        self.world.tell_ledger(self.engine.words.Withdraw(owner, symbol, units, f"w{self.movements}"))

    @rule(owner=account, to=account, symbol=asset, units=amount)
    def transfer(self, owner: int, to: int, symbol: str, units: int) -> None:
        self.steps += 1
        self.movements += 1
        self.world.tell_ledger(self.engine.words.Transfer(owner, to, symbol, units, f"t{self.movements}"))

    def _place(self, order: Draft) -> None:
        owner, symbol, side, price, quantity, (kind, time_in_force), prevention = order
        self.world.place(
            owner,
            symbol,
            side,
            price if kind == 1 else 0,
            quantity,
            type=kind,
            time_in_force=time_in_force,
            self_trade_prevention=prevention,
            expire_time_ns=self.world.time_ns + 700 * MS if time_in_force == 4 else 0,
        )

    @rule(order=draft)
    def place(self, order: Draft) -> None:
        self.steps += 1
        self._place(order)

    @rule(orders=st.lists(draft, min_size=1, max_size=5))
    def place_several(self, orders: list[Draft]) -> None:
        self.steps += 1
        for order in orders:
            self._place(order)

    @rule(orders=st.lists(draft, min_size=1, max_size=5))
    def trade(self, orders: list[Draft]) -> None:
        """Place orders, each of which has its money before the next comes."""
        self.steps += 1
        for order in orders:
            self._place(order)
            self.world.flush(self.random)

    def _open_order(self, index: int) -> tuple[int, str, str] | None:
        orders = self.world.open_orders()
        return orders[index % len(orders)] if orders else None

    @rule(index=index)
    def cancel(self, index: int) -> None:
        self.steps += 1
        order = self._open_order(index)
        if order is not None:
            owner, symbol, name = order
            self.world.tell_shard(MARKETS[symbol][0], self.engine.commands.CancelOrder(owner, symbol, name))

    @rule(index=index, price=st.integers(0, 14), quantity=st.integers(0, 40), flags=st.integers(0, 3))
    def amend(self, index: int, price: int, quantity: int, flags: int) -> None:
        self.steps += 1
        order = self._open_order(index)
        if order is not None:
            owner, symbol, name = order
            command = self.engine.commands.AmendOrder(
                owner, symbol, name, 0, price, quantity, requeue=bool(flags & 1), cancel_on_fail=bool(flags & 2)
            )
            self.world.tell_shard(MARKETS[symbol][0], command)

    @rule(owner=account, shard=shard)
    def cancel_all(self, owner: int, shard: str) -> None:
        self.steps += 1
        self.world.tell_shard(shard, self.engine.commands.CancelAll(owner))

    @rule(owner=account, shard=shard, ns=st.sampled_from((300 * MS, S, 3 * S)))
    def switch(self, owner: int, shard: str, ns: int) -> None:
        """Cancel all orders of an account, also those that wait, when the time comes."""
        self.steps += 1
        self.world.tell_shard(shard, self.engine.commands.CancelAllAfter(owner, self.world.time_ns + ns))

    @rule(shard=shard, stage=st.sampled_from((2, 3, 4, 5, 5, 5)))
    def set_stage(self, shard: str, stage: int) -> None:
        self.steps += 1
        self.world.tell_shard(shard, self.engine.commands.SetStage(stage, 3))

    # ---------------------------------------------------------------- network

    @rule(shard=shard, is_up=st.booleans(), index=index, count=st.integers(1, 4))
    def deliver(self, shard: str, is_up: bool, index: int, count: int) -> None:
        self.steps += 1
        self.world.deliver(shard, is_up=is_up, first=index, count=count)

    @rule(shard=shard, is_up=st.booleans())
    def deliver_the_first(self, shard: str, is_up: bool) -> None:
        self.steps += 1
        self.world.deliver(shard, is_up=is_up, first=0, count=1)

    @rule(shard=shard, is_up=st.booleans(), index=index, count=st.integers(1, 2))
    def deliver_and_keep(self, shard: str, is_up: bool, index: int, count: int) -> None:
        self.steps += 1
        self.world.deliver(shard, is_up=is_up, first=index, count=count, keep=True)

    @rule(shard=shard, is_up=st.booleans(), index=index, count=st.integers(1, 3))
    def drop(self, shard: str, is_up: bool, index: int, count: int) -> None:
        self.steps += 1
        self.world.drop(shard, is_up=is_up, first=index, count=count)

    @rule(shard=shard)
    def resend(self, shard: str) -> None:
        self.steps += 1
        if len(self.world.up[shard]) + len(self.world.down[shard]) < IN_FLIGHT_MAX:
            self.world.resend(shard)

    @rule()
    def flush(self) -> None:
        self.steps += 1
        self.world.flush(self.random)

    @rule(name=st.sampled_from((LEDGER, *SHARDS)))
    def crash(self, name: str) -> None:
        self.steps += 1
        self.world.crash(name)

    # ---------------------------------------------------------------- time

    @rule(ns=st.sampled_from(TIMES_NS))
    def pass_time(self, ns: int) -> None:
        self.steps += 1
        self.world.pass_time(ns)

    @rule(ns=st.sampled_from(TIMES_NS), name=st.sampled_from((LEDGER, *SHARDS)))
    def pass_time_with_one_awake(self, ns: int, name: str) -> None:
        """The others notice later what is due."""
        self.steps += 1
        self.world.time_ns += ns
        self.world.tick(name)

    # ---------------------------------------------------------------- the end

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world, random = self.world, self.random
        world.settle(random)
        for name in SHARDS:
            world.tell_shard(name, self.engine.commands.SetStage(_OPEN))
        self._one_order()
        self._two_orders()
        self._two_that_fit()
        world.go_idle(random)
        world.settle(random)
        counted["examples"] += 1
        counted["steps"] += self.steps
        counted["moves"] += len(world.moved["ledger"])
        counted["trades"] += sum(book.trade_id for shard in SHARDS for book in world.machines[shard].books.values())
        counted["recalls"] += len(world.recalls_answered)

    def _can_afford(self, owner: int, symbol: str, side: int) -> tuple[int, int]:
        """Return the price and quantity of an order that takes most of the free money of an account."""
        base, quote, _, quantity_scale, _ = MARKETS[symbol][1]
        if side == 2:
            return 1_000, self.world.free(owner, base) // 10 ** (2 - quantity_scale)
        book = self.world.machines[MARKETS[symbol][0]].books[symbol]
        quantity = self.world.free(owner, quote)
        while quantity and book.cost(1, quantity) > self.world.free(owner, quote):
            # The first step takes the scales out, the others the fee.
            quantity -= max(1, quantity - quantity * self.world.free(owner, quote) // book.cost(1, quantity))
        return 1, quantity

    def _one_order(self) -> None:
        """What an account can pay from all that it has, it gets."""
        owner, symbol, side = self.random.choice(ACCOUNTS), self.random.choice(SYMBOLS), self.random.randint(1, 2)
        price, quantity = self._can_afford(owner, symbol, side)
        if quantity:
            name = self.world.place(owner, symbol, side, price, quantity)
            self.world.flush(self.random)
            assert self.world.reject_reason(owner, name) == 0, "an order was refused that its account can pay"
            counted["affordable orders"] += 1
            self.world.tell_shard(MARKETS[symbol][0], self.engine.commands.CancelOrder(owner, symbol, name))

    def _two_that_fit(self) -> None:
        """Two orders at once that an account can pay together both get their money, in one shard or in two."""
        owner = self.random.choice(ACCOUNTS)
        self.world.settle(self.random)
        price, quantity = self._can_afford(owner, "BTC-USDT", 1)
        first = quantity * self.random.randint(1, 9) // 10
        # ETH-USDT has one digit more in price and quantity.
        rest = self.random.choice(
            (("BTC-USDT", 1, price, quantity - first), ("ETH-USDT", 1, 1, (quantity - first) * 100))
        )
        if first and quantity - first:
            orders = [("BTC-USDT", 1, price, first), rest]
            self.random.shuffle(orders)
            ends = [(owner, self.world.place(owner, *order)) for order in orders]
            self.world.flush(self.random)
            reasons = [self.world.reject_reason(*end) for end in ends]
            assert reasons == [0, 0], f"an account could pay both of two orders: {reasons}"
            counted["pairs that fit"] += 1

    def _two_orders(self) -> None:
        """Of two orders in two shards that want the same money one gets it, and neither waits."""
        owner = self.random.choice(ACCOUNTS)
        self.world.settle(self.random)
        names = []
        for symbol, side in self.random.choice(((("BTC-USDT", 1), ("ETH-USDT", 1)), (("ETH-BTC", 1), ("BTC-USDT", 2)))):
            price, quantity = self._can_afford(owner, symbol, side)
            if quantity:
                names.append((symbol, side, price, quantity))
        if len(names) < 2:
            return
        ends = [(owner, self.world.place(owner, *order)) for order in names]
        self.world.flush(self.random)
        reasons = [self.world.reject_reason(*end) for end in ends]
        assert 0 in reasons, f"neither of two orders got the money that each could have had: {reasons}"
        assert set(reasons) <= {0, _INSUFFICIENT_FUNDS, _FUNDS_UNAVAILABLE}, reasons
        counted["rivals"] += 1
