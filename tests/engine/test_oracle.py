"""The shard does what an obviously right one does, whatever it is told, and wherever it is stopped and restored."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.invariants.naive_shard import NaiveOrder, NaiveShard
from exchange.engine.channel import AnswerFunds, Ask, RecallFunds
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
from exchange.engine.state import ShardState, restore, state_of
from exchange.engine.words import OrderStatus, Stage

MS = 1_000_000
NAMES = [f"o-{n}" for n in range(200)]
START_NS = 10**18
PLAIN = Instrument("BTC-USDT", "BTC", "USDT", 0, 0, 3, maker_fee_ppm=1_001, taker_fee_ppm=2_503, base_scale=2)
STRICT = Instrument(
    "ETH-USDT",
    "ETH",
    "USDT",
    0,
    0,
    3,
    2,
    5,
    10,
    60,
    band_bps=1_000,
    reference_price=100,
    maker_fee_ppm=-703,
    taker_fee_ppm=1_507,
    max_open_orders=4,
    base_scale=2,
)
CROSS = Instrument(
    "ETH-BTC", "ETH", "BTC", 2, 1, 2, tick_size=2, lot_size=5, maker_fee_ppm=20_011, taker_fee_ppm=9_973, base_scale=2
)
SYMBOLS = [instrument.symbol for instrument in (PLAIN, STRICT, CROSS)]
POOR, HALVES, RICH = 2, 3, 4
"""Account 1 is the house; the ledger gives the others just what they ask for, half of it, or more than that."""
ENDOWED = [
    (account, asset, amount)
    for account, amount in ((1, 10**5), (HALVES, 3 * 10**4), (RICH, 10**7))
    for asset in ("ETH", "BTC", "USDT")
]
"""What accounts have from the start."""


class Chance(Random):
    """What the parts of a command may be: mostly what makes sense, now and then what must be refused."""

    now_ns = START_NS

    def pick(self, usual: Sequence[Any], rare: Sequence[Any] = (), one_in: int = 12) -> Any:
        return self.choice(rare) if rare and self.randrange(one_in) == 0 else self.choice(usual)

    def account(self) -> int:
        return self.randint(1, 4)

    def symbol(self) -> str:
        return str(self.pick([PLAIN.symbol, *SYMBOLS], ["NO-SUCH"], 30))

    def name(self) -> str:
        return str(self.pick(NAMES, ["", "a b", "x" * 37, "ü", "x\n"], 40))

    def price(self) -> int:
        return int(self.pick(range(94, 108, 2), [-1, 0, 1, 99, 200, 2**63]))

    def quantity(self) -> int:
        return int(self.pick(range(10, 35, 5), [-5, 0, 3, 5, 65, 2**63]))

    def time_ns(self) -> int:
        """Perhaps one at which a command that comes now has waited long enough."""
        from_ns = START_NS if self.flag(2) else self.now_ns
        return from_ns + MS * int(self.pick([1, 50, 500, 500, 1_000, 3_000, 20_000]))

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
        open_orders = [order for order in known if order.status in (OrderStatus.OPEN, OrderStatus.PENDING_FUNDS)]
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
                rate = self.pick([0, 1, 3, 40], [-1])
                return SetStage(stage, rate, "test", self.pick(["", self.symbol()]), self.pick([0, self.now_ns]))
            case 4:
                return AddInstrument(self.pick([PLAIN, STRICT, CROSS, PLAIN._replace(tick_size=2)]))
            case _:
                return SetStage(int(Stage.OPEN), instrument=self.pick(["", self.symbol()]))

    def answer(self, naive: NaiveShard) -> AnswerFunds:
        """The ledger's answer to a message, mostly to one that is not answered yet."""
        waiting = naive.funds.outbox()
        message = self.choice(waiting) if waiting and not self.flag(12) else None
        if message is None:
            return AnswerFunds(self.randint(0, len(naive.funds.messages) + 2), self.randint(0, 4), self.randint(0, 99))
        if not isinstance(message, Ask):
            return AnswerFunds(message.n, 4, 0)
        n, account, _, asked, _ = message
        match self.randrange(8):
            case 0 | 1:
                return AnswerFunds(n, 2, 0)
            case 2:
                return AnswerFunds(n, 3, 0)
            case 3:
                return AnswerFunds(n, 1, self.randint(0, asked))
            case _:
                return AnswerFunds(n, 1, asked * 20 if account == RICH else asked // 2 if account == HALVES else asked)

    def recall(self, naive: NaiveShard) -> RecallFunds:
        """The ledger's wish to have money back, mostly a new one."""
        funds = naive.funds
        # They may come in any order.
        m = max(funds.recalled, default=0) + self.pick([1, 1, 2, 3])
        low = self.pick([1, max(m - 2, 1), m])
        account, asset = self.account(), self.pick(["BTC", "ETH", "USDT"])
        amount = self.pick([0, 1, 10**3, 10**6, 10**12])
        waiting = [parked for parked in funds.parked if parked.part]
        if waiting and not self.flag(3):
            parked = self.choice(waiting)
            account, asset, amount = parked.account, parked.asset, self.randint(1, parked.part)
        return RecallFunds(self.randint(1, m) if self.flag() else m, low, account, asset, amount)

    def command(self, naive: NaiveShard) -> Command:
        """The next command, about the orders that are known or a new one, or the money for them."""
        known, self.now_ns = naive.orders, max(naive.time_ns, START_NS)
        if self.randrange(3) == 0 and naive.funds.outbox():
            return self.answer(naive)
        match self.randrange(24):
            case 20 | 21:
                return self.answer(naive)
            case 22:
                return self.recall(naive)
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
STEPS_MS = [0, 0, 0, 1, 1, 30, 30, 400, 400, 1_000, 5_000, 10_000]
batches = st.lists(
    st.tuples(st.sampled_from(STEPS_MS), st.lists(st.integers(0, 2**32), min_size=1, max_size=20)),
    min_size=1,
    max_size=20,
)

OPENING: list[Command] = [*map(AddInstrument, (PLAIN, STRICT, CROSS)), SetStage(int(Stage.OPEN))]


def restored(shard: Shard) -> Shard:
    """A shard from the snapshot of another, packed and unpacked: tuples have become lists."""
    return restore(ShardState(*msgpack.unpackb(msgpack.packb(state_of(shard)), use_list=False)))


def endowed(shard: Shard) -> Shard:
    for account, asset, amount in ENDOWED:
        shard.funds.endow(account, asset, amount)
    return shard


def book_of(shard: Shard) -> list[tuple[int, ...]]:
    return [(o.order_id, o.price, o.open, o.quantity) for book in shard.books.values() for o in book.orders()]


def outbox_of(shard: Shard) -> list[tuple[type, Any]]:
    return [(type(message), message) for message in shard.funds.outbox.values()]


def check_money(shard: Shard, naive: NaiveShard) -> None:
    """Both have the same, free and held, and say the same to the ledger."""
    funds = {
        (account, purse.asset): (purse.available, wallet.held(purse.asset))
        for account, wallet in shard.funds.wallets.items()
        for purse in wallet.purses.values()
    }
    theirs = naive.funds
    assert funds == {(a, asset): (theirs.free(a, asset), theirs.held(a, asset)) for a, asset in theirs.touched}
    assert outbox_of(shard) == [(type(message), message) for message in theirs.outbox()]
    assert shard.funds.low == min((message.n for message in theirs.outbox()), default=len(theirs.messages) + 1)
    assert list(shard.parked) == [parked.sequence for parked in theirs.parked]
    for asset in ("BTC", "ETH", "USDT"):  # I3
        have = sum(sum(amounts) for (_, a), amounts in funds.items() if a == asset)
        assert have == sum(amount for _, a, amount in theirs.came if a == asset)


def check(plan: list[tuple[int, list[int]]]) -> None:
    shard, copy, naive = endowed(Shard()), endowed(Shard()), NaiveShard()
    for account, asset, amount in ENDOWED:
        naive.funds.endow(account, asset, amount)
    cancelled: set[int] = set()
    applied: list[tuple[int, list[Command]]] = []
    time_ns = START_NS
    for step_ms, seeds in [(0, []), *plan]:
        time_ns += step_ms * MS
        batch = [Chance(seed).command(naive) for seed in seeds] if seeds else OPENING
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
        check_money(shard, naive)

        trades = [OrderTraded(*row) for row in events if row[0] == EventKind.TRADED]
        assert not any(trade.maker_order_id in cancelled for trade in trades)  # I8
        acknowledged = (r.order_id for r in results if r.status == OrderStatus.CANCELLED and not r.reject_reason)
        cancelled.update(acknowledged)

        copy = restored(copy)
        copy.validate()
        assert state_of(copy) == state_of(shard)
        assert outbox_of(copy) == outbox_of(shard)
        assert copy.next_timer_ns() == shard.next_timer_ns()

    replayed = endowed(Shard())
    for time_ns, batch in applied:
        replayed.apply(time_ns, batch)
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
        steps = [random.choice(STEPS_MS) for _ in range(random.randint(10, 25))]
        check([(step, [random.getrandbits(32) for _ in range(random.randint(1, 20))]) for step in steps])
