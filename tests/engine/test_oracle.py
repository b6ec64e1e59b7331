"""The shard does what an obviously right one does, whatever it is told, and wherever it is stopped and restored."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import (
    AddInstrument,
    AmendOrder,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelSessions,
    Command,
    PlaceOrder,
    SetStage,
    Tick,
)
from exchange.engine.events import EventKind, OrderTraded
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.state import hash_of, restore, state_of
from exchange.engine.words import OrderStatus, Stage
from tests.engine.naive_shard import NaiveOrder, NaiveShard

MS = 1_000_000
NAMES = [f"o-{n}" for n in range(200)]
START_NS = 10**18
PLAIN = Instrument("BTC-USDT", "BTC", "USDT", 0, 0, 0)
STRICT = Instrument(
    "ETH-USDT", "ETH", "USDT", 0, 0, 0, 2, 5, 10, 60, band_bps=1_000, reference_price=100, max_open_orders=4
)


class Chance(Random):
    """What the parts of a command may be: mostly what makes sense, now and then what must be refused."""

    def pick(self, usual: Sequence[Any], rare: Sequence[Any] = (), one_in: int = 12) -> Any:
        return self.choice(rare) if rare and self.randrange(one_in) == 0 else self.choice(usual)

    def account(self) -> int:
        return self.randint(1, 3)

    def symbol(self) -> str:
        return str(self.pick(["BTC-USDT", "BTC-USDT", "ETH-USDT"], ["NO-SUCH"], 30))

    def name(self) -> str:
        return str(self.pick(NAMES, ["", "a b", "x" * 37, "ü", "x\n"], 40))

    def price(self) -> int:
        return int(self.pick(range(94, 108, 2), [-1, 0, 1, 99, 200, 2**63]))

    def quantity(self) -> int:
        return int(self.pick(range(10, 35, 5), [-5, 0, 3, 5, 65, 2**63]))

    def time_ns(self) -> int:
        return START_NS + MS * int(self.pick([1, 50, 500, 500, 3_000, 20_000]))

    def flag(self, one_in: int = 5) -> bool:
        return self.randrange(one_in) == 0

    def place(self) -> PlaceOrder:
        kind = self.pick([1, 1, 1, 1, 1, 1, 2], [3], 60)
        time_in_force = self.pick([0, 1, 1, 1, 1, 2, 3, 4, 4] if kind == 1 else [0, 0, 2, 3], [-1, 1, 4, 5], 40)
        return PlaceOrder(
            self.account(),
            self.name(),
            self.symbol(),
            self.pick([1, 2], [0, 3], 60),
            kind,
            time_in_force,
            self.price() if kind == 1 or self.flag(12) else 0,
            self.quantity(),
            self.flag(8 if kind == 1 else 30),
            self.pick([0, 1, 2, 3], [-1, 4], 60),
            self.time_ns() if (time_in_force == 4) != self.flag(30) else 0,
            self.randint(0, 3),
        )

    def target(self, known: list[NaiveOrder]) -> tuple[int, str, str, int]:
        """Account, instrument, client order id, order id of an order: mostly an open one, sometimes none at all."""
        if not known or self.flag(12):
            return self.account(), self.symbol(), *self.pick([(self.name(), 0), ("", self.randint(0, 60))])
        open_orders = [order for order in known if order.status == OrderStatus.OPEN]
        order = self.choice(open_orders if open_orders and not self.flag(8) else known)
        request = order.request
        names = self.pick([(request.client_order_id, 0), ("", order.order_id)])
        return request.account, request.instrument, *names

    def amend(self, known: list[NaiveOrder]) -> AmendOrder:
        quantity = self.pick([0, self.quantity()])
        open_quantity = self.quantity() if self.flag(20 if quantity else 2) else 0
        price = self.pick([0, self.price()])
        return AmendOrder(*self.target(known), price, quantity, open_quantity, self.flag(), self.flag())

    def again(self, known: list[NaiveOrder]) -> PlaceOrder:
        """An order sent again, perhaps by another session, perhaps with something changed."""
        if not known:
            return self.place()
        request = self.choice(known).request._replace(session=self.randint(0, 3))
        return request._replace(quantity=self.quantity()) if self.flag() else request

    def rarely(self) -> Command:
        match self.randrange(6):
            case 0:
                side, reason = self.pick([0, 0, 1, 2], [3]), self.pick([1, 8])
                return CancelAll(self.account(), self.pick(["", self.symbol()]), side, reason)
            case 1:
                return CancelSessions(self.randint(0, 2), self.randint(1, 4))
            case 2:
                return CancelAllAfter(self.account(), self.pick([0, self.time_ns(), self.time_ns()]))
            case 3:
                stage = self.pick([int(Stage.OPEN), int(Stage.LIMITED), *map(int, Stage)], [0, 7])
                return SetStage(stage, self.pick([0, 1, 3, 40], [-1]), "test")
            case 4:
                return AddInstrument(self.pick([PLAIN, STRICT, PLAIN._replace(tick_size=2)]))
            case _:
                return SetStage(int(Stage.OPEN))

    def command(self, known: list[NaiveOrder]) -> Command:
        """The next command, about the orders that are known or a new one."""
        match self.randrange(20):
            case 0 | 1 | 2 | 3:
                return self.amend(known)
            case 4 | 5:
                return CancelOrder(*self.target(known))
            case 6:
                return self.again(known)
            case 7:
                return self.rarely()
            case _:
                return self.place()


# A number makes a command of what is known by then; a failing example is made smaller by leaving commands out.
steps_ms = st.sampled_from([0, 0, 1, 30, 400, 5_000])
batches = st.lists(
    st.tuples(steps_ms, st.lists(st.integers(0, 2**32), min_size=1, max_size=20)), min_size=1, max_size=20
)

OPENING: list[Command] = [AddInstrument(PLAIN), AddInstrument(STRICT), SetStage(int(Stage.OPEN))]


def restored(shard: Shard) -> Shard:
    """A shard from the snapshot of another, packed and unpacked: tuples have become lists."""
    return restore(msgpack.unpackb(msgpack.packb(state_of(shard)), use_list=True))


def book_of(shard: Shard) -> list[tuple[int, ...]]:
    return [(o.order_id, o.price, o.open, o.quantity) for book in shard.books.values() for o in book.orders()]


def check(plan: list[tuple[int, list[int]]]) -> None:
    shard, copy, naive = Shard(), Shard(), NaiveShard()
    cancelled: set[int] = set()
    applied: list[tuple[int, list[Command]]] = []
    time_ns = START_NS
    for step_ms, seeds in [(0, []), *plan]:
        time_ns += step_ms * MS
        batch = [Chance(seed).command(naive.orders) for seed in seeds] if seeds else OPENING
        due_ns = shard.next_timer_ns()
        # As the host does: a tick comes first when one is due.
        batch = [Tick(), *batch] if due_ns is not None and due_ns <= time_ns else batch
        applied.append((time_ns, batch))
        results, events = shard.apply(time_ns, batch)
        assert (results, events) == naive.apply(time_ns, batch)
        assert copy.apply(time_ns, batch) == (results, events)

        shard.validate()
        sides = [naive.side(symbol, side) for symbol in naive.instruments for side in (1, 2)]
        assert book_of(shard) == [(o.order_id, o.price, o.open, o.quantity) for orders in sides for o in orders]
        assert shard.next_timer_ns() == naive.next_timer_ns()

        trades = [OrderTraded(*row) for row in events if row[0] == EventKind.TRADED]
        assert not any(trade.maker_order_id in cancelled for trade in trades)  # I8
        acknowledged = (r.order_id for r in results if r.status == OrderStatus.CANCELLED and not r.reject_reason)
        cancelled.update(acknowledged)

        copy = restored(copy)
        copy.validate()
        assert hash_of(copy) == hash_of(shard)
        assert copy.next_timer_ns() == shard.next_timer_ns()

    replayed = Shard()
    for time_ns, batch in applied:
        replayed.apply(time_ns, batch)
    assert hash_of(replayed) == hash_of(shard)
    assert state_of(replayed) == state_of(shard)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(batches)
def test_a_shard_does_what_the_naive_one_does_and_so_does_one_restored_after_every_batch(
    plan: list[tuple[int, list[int]]],
) -> None:
    check(plan)


@pytest.mark.parametrize("seed", range(8))
def test_and_they_agree_for_longer(seed: int) -> None:
    random = Random(seed)
    for _ in range(20):
        steps = [random.choice([0, 0, 1, 30, 400, 5_000]) for _ in range(random.randint(10, 25))]
        check([(step, [random.getrandbits(32) for _ in range(random.randint(1, 20))]) for step in steps])
