"""The gateway's copy of a shard equals the shard, whatever happens there."""

from __future__ import annotations

from typing import Any

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
    PlaceOrder,
    SetStage,
    Tick,
)
from exchange.engine.events import EventKind
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Stage
from exchange.gateway.replica import BookCopy, FeedBroken, ShardReplica
from exchange.runtime.codec import ShardType, unpack_dump
from exchange.runtime.feed import FeedBatch, unpack_batch
from exchange.runtime.messages import pack
from tests.gateway.money import rich_shard

SYMBOLS = ["BTC-USDT", "ETH-USDT"]
GTD = 4

accounts = st.integers(1, 3)
symbols = st.sampled_from(SYMBOLS)
sides = st.integers(1, 2)
prices = st.integers(97, 103)
quantities = st.integers(1, 20)
times = st.integers(10, 60)
# A command names no order yet: `named` gives each new one a name, and lets the others pick among those.
unnamed, picks = st.just(""), st.integers(0, 8)
# All fields are given: `builds` makes up those that are left out, defaults or not, and nearly every order is refused.
limits = st.builds(
    PlaceOrder,
    accounts,
    unnamed,
    symbols,
    sides,
    st.just(1),
    st.sampled_from([0, 1, 1, 2, 3]),
    prices,
    quantities,
    st.sampled_from([False, False, False, True]),
    st.integers(0, 3),
    st.just(0),
    st.integers(0, 2),
)
expiring = st.builds(
    PlaceOrder,
    accounts,
    unnamed,
    symbols,
    sides,
    st.just(1),
    st.just(GTD),
    prices,
    quantities,
    st.just(False),
    st.just(0),
    times,
    st.just(0),
)
markets = st.builds(
    PlaceOrder,
    accounts,
    unnamed,
    symbols,
    sides,
    st.just(2),
    st.just(0),
    st.just(0),
    quantities,
    st.just(False),
    st.integers(0, 3),
    st.just(0),
    st.just(0),
)
amends = st.builds(
    AmendOrder,
    st.just(0),
    unnamed,
    unnamed,
    picks,
    st.one_of(st.just(0), prices),
    st.one_of(st.just(0), quantities),
    st.just(0),
    st.booleans(),
    st.booleans(),
)
cancels = st.builds(CancelOrder, st.just(0), unnamed, unnamed, picks)
rarer: st.SearchStrategy[Any] = st.one_of(
    st.builds(CancelAll, accounts, st.sampled_from(["", *SYMBOLS]), st.integers(0, 2), st.just(1)),
    st.builds(CancelSessions, st.just(1), st.just(2)),
    st.builds(CancelAllAfter, accounts, times),
    st.just(SetStage(int(Stage.POST_ONLY))),
    st.just(SetStage(int(Stage.OPEN))),
)
# Not `one_of`, which counts a strategy once however often it is named.
mix = [*[limits] * 20, *[expiring] * 2, *[markets] * 3, *[amends] * 8, *[cancels] * 4, rarer, st.just(Tick())]
commands: st.SearchStrategy[Any] = st.sampled_from(mix).flatmap(lambda chosen: chosen)


def named(command: Any, placed: list[PlaceOrder]) -> Any:
    """Name a new order, or pick one of the latest for a command that needs one."""
    if isinstance(command, PlaceOrder):
        placed.append(command._replace(client_order_id=f"o{len(placed)}"))
        return placed[-1]
    if isinstance(command, AmendOrder | CancelOrder) and placed:
        order = placed[-1 - command.order_id % len(placed)]
        return command._replace(
            account=order.account, instrument=order.instrument, client_order_id=order.client_order_id, order_id=0
        )
    return command


def new_shard() -> tuple[Shard, FeedBatch]:
    shard = rich_shard("BTC", "ETH", "XRP", "USDT")
    instruments = [AddInstrument(Instrument(symbol, symbol[:3], "USDT", 2, 4, 6)) for symbol in SYMBOLS]
    return shard, advance(shard, 1, [*instruments, SetStage(int(Stage.OPEN))])


def advance(shard: Shard, time_ns: int, batch: list[Any], *, epoch: int = 1) -> FeedBatch:
    """Apply commands and return their events as a gateway gets them."""
    first = shard.sequence + 1
    applied = shard.apply(time_ns, batch)
    return unpack_batch(pack(FeedBatch(epoch, first, shard.sequence, shard.time_ns, list(applied.events))))


def order(name: str, side: int = 1, price: int = 100, quantity: int = 5, account: int = 1) -> PlaceOrder:
    return PlaceOrder(account, name, SYMBOLS[0], side, 1, 1, price, quantity)


def truth(shard: Shard) -> dict[str, Any]:
    """Every level of every book, with its orders in the order of their priority."""
    return {
        symbol: [
            (level.price, level.quantity, [(o.order_id, o.request.account, o.quantity, o.open) for o in level])
            for side in (book.bids, book.asks)
            for level in side
        ]
        for symbol, book in shard.books.items()
    }


def copied(replica: ShardReplica) -> dict[str, Any]:
    return {symbol: copied_levels(book) for symbol, book in replica.books.items()}


def copied_levels(book: BookCopy) -> list[Any]:
    levels = []
    for side, copy in ((1, book.bids), (2, book.asks)):
        for price, quantity, orders in copy.top(0):
            named = [(o.named, o.open) for o in book.orders.values()]
            queue = [(o, open_) for o, open_ in named if o.side == side and o.price == price]
            assert orders == len(queue)
            levels.append((price, quantity, [(o.order_id, o.account, o.quantity, open_) for o, open_ in queue]))
    return levels


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_command(self, book: BookCopy) -> None:
        self.told.append((book.sequence, list(book.bids.touched), list(book.asks.touched)))

    def on_stage(self) -> None:
        self.told.append("stage")

    def on_load(self) -> None:
        self.told.append("load")


@given(st.lists(st.lists(commands, min_size=1, max_size=6), min_size=10, max_size=25), st.integers(0, 25))
@settings(max_examples=150, deadline=None)
def test_the_copy_equals_the_shard_after_every_batch(batches: list[list[Any]], load_at: int) -> None:
    shard, first = new_shard()
    replica, late = ShardReplica("shard-0"), ShardReplica("shard-0")
    replica.set_away(False)
    replica.apply(first)
    placed: list[PlaceOrder] = []
    for index, batch in enumerate(batches):
        if index == load_at:
            late.load(unpack_dump(ShardType().dump(shard, 1)))
        sent = advance(shard, index * 3, [named(command, placed) for command in batch])
        replica.apply(sent)
        replica.apply(sent)
        assert copied(replica) == truth(shard)
        assert (replica.sequence, replica.time_ns, replica.stage) == (shard.sequence, shard.time_ns, shard.stage)
        if late.is_loaded:
            late.apply(sent)
            assert copied(late) == truth(shard)


def test_a_batch_that_leaves_a_gap_is_refused_and_changes_nothing() -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.apply(first)
    advance(shard, 2, [order("lost")])
    with pytest.raises(FeedBroken, match="expected 4, was 5"):
        replica.apply(advance(shard, 3, [order("late")]))
    assert replica.sequence == 3
    assert not replica.books[SYMBOLS[0]].orders


def test_batches_of_a_fenced_writer_are_dropped() -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.apply(first)
    replica.apply(advance(shard, 2, [order("one")], epoch=3))
    known = copied(replica)
    replica.apply(advance(shard, 3, [order("two")], epoch=2))
    assert copied(replica) == known
    assert (replica.epoch, replica.sequence) == (3, 4)


def test_a_batch_that_contradicts_the_copy_makes_it_load_anew() -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.load(unpack_dump(ShardType().dump(shard, 1)))
    closed = (int(EventKind.CLOSED), 4, SYMBOLS[0], 77, 1, 5)
    with pytest.raises(FeedBroken, match="no order or instrument 77"):
        replica.apply(first._replace(first_sequence=4, last_sequence=4, events=[closed]))
    loaded = [replica.is_loaded]
    advance(shard, 2, [order("one")])
    replica.load(unpack_dump(ShardType().dump(shard, 1)))
    assert [*loaded, replica.is_loaded] == [False, True]
    assert copied(replica) == truth(shard)


def test_while_the_shard_is_away_its_last_book_stands_as_replaying() -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.set_away(False)
    replica.apply(first)
    replica.apply(advance(shard, 2, [order("one")]))
    notes = Notes()
    replica.books[SYMBOLS[0]].watch(notes)
    replica.set_away(True)
    replica.set_away(True)
    assert replica.stage == Stage.REPLAYING
    assert copied(replica) == truth(shard)
    replica.set_away(False)
    assert replica.stage == Stage.OPEN
    assert notes.told == ["stage", "stage"]


def test_a_watcher_is_told_of_each_command_that_touched_its_book() -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.set_away(False)
    replica.apply(first)
    notes = Notes()
    book = replica.books[SYMBOLS[0]]
    book.watch(notes)
    elsewhere = order("x")._replace(instrument=SYMBOLS[1])
    replica.apply(advance(shard, 2, [order("one"), elsewhere, order("two", 2, 100, 2, 2), SetStage(int(Stage.HALTED))]))
    assert notes.told == [(4, [100], []), (6, [100], []), "stage"]
    replica.load(unpack_dump(ShardType().dump(shard, 1)))
    assert notes.told[3:] == ["load"]
    book = replica.books[SYMBOLS[0]]
    book.unwatch(notes)
    replica.apply(advance(shard, 3, [SetStage(int(Stage.OPEN)), order("three")]))
    assert notes.told[4:] == []
    assert not book.bids.touched, "nobody listens, yet it was written down"


def test_of_an_instruments_stage_and_its_shards_the_stricter_one_is_told_and_only_to_whom_it_concerns() -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.set_away(False)
    replica.apply(first)
    here, elsewhere = Notes(), Notes()
    replica.books[SYMBOLS[0]].watch(here)
    replica.books[SYMBOLS[1]].watch(elsewhere)
    halt = SetStage(int(Stage.HALTED), 0, "news", SYMBOLS[0])
    limit = SetStage(int(Stage.LIMITED), 9, "ramp", next_stage_time_ns=77)
    replica.apply(advance(shard, 2, [halt]))
    assert (here.told, elsewhere.told) == (["stage"], [])
    replica.apply(advance(shard, 3, [limit, limit]))
    assert (here.told, elsewhere.told) == (["stage"], ["stage"])
    again = ShardReplica("shard-0")
    again.set_away(False)
    again.load(unpack_dump(ShardType().dump(shard, 1)))
    for copy in (replica, again):
        halted, limited = map(copy.stage_of, SYMBOLS[:2])
        assert (halted.stage, halted.reason) == (Stage.HALTED, "news")
        assert limited[1:] == (Stage.LIMITED, 9, "ramp", 3, 77)
    replica.set_away(True)
    assert replica.stage_of(SYMBOLS[0]).stage == Stage.REPLAYING


def test_each_instrument_is_told_once() -> None:
    shard, first = new_shard()
    told: list[str] = []
    replica = ShardReplica("shard-0")
    replica.on_instrument = told.append
    replica.apply(first)
    replica.load(unpack_dump(ShardType().dump(shard, 1)))
    replica.apply(advance(shard, 2, [AddInstrument(Instrument("XRP-USDT", "XRP", "USDT", 2, 4, 6))]))
    assert told == [*SYMBOLS, "XRP-USDT"]
