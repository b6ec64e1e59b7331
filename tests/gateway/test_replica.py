"""The gateway's copy of a shard equals the shard, whatever happens there."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AddInstrument, AmendOrder, CancelAll, CancelOrder, PlaceOrder, SetStage, Tick
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Stage
from exchange.gateway.book_stream import BookView, checksum
from exchange.gateway.replica import ShardReplica
from exchange.runtime.codec import ShardType, unpack_dump
from exchange.runtime.feed import FeedBatch, unpack_batch
from exchange.runtime.messages import pack

SYMBOL = "BTC-USDT"
NAMES = [f"o{n}" for n in range(12)]

accounts = st.integers(1, 3)
names = st.sampled_from(NAMES)
prices = st.integers(95, 105)
quantities = st.integers(1, 20)
places = st.builds(
    PlaceOrder,
    accounts,
    names,
    st.just(SYMBOL),
    st.integers(1, 2),
    st.just(1),
    st.sampled_from([0, 1, 2, 3]),
    prices,
    quantities,
    st.just(False),
    st.integers(0, 3),
)
amends = st.builds(
    AmendOrder,
    accounts,
    st.just(SYMBOL),
    names,
    st.just(0),
    prices,
    quantities,
    st.just(0),
    st.booleans(),
    st.booleans(),
)
cancels = st.builds(CancelOrder, accounts, st.just(SYMBOL), names)
commands = st.one_of(places, places, places, amends, cancels, st.builds(CancelAll, accounts), st.just(Tick()))


def new_shard() -> tuple[Shard, FeedBatch]:
    shard = Shard()
    instrument = Instrument(SYMBOL, "BTC", "USDT", 2, 4, 6)
    applied = shard.apply(1, [AddInstrument(instrument), SetStage(int(Stage.OPEN))])
    return shard, FeedBatch(1, 1, shard.sequence, 1, list(applied.events))


def advance(shard: Shard, time_ns: int, batch: list[Any]) -> FeedBatch:
    first = shard.sequence + 1
    applied = shard.apply(time_ns, batch)
    sent = pack(FeedBatch(1, first, shard.sequence, shard.time_ns, list(applied.events)))
    return unpack_batch(sent)


def book_of(shard: Shard) -> tuple[Any, Any, Any]:
    book = shard.books[SYMBOL]
    sides = [[(level.price, level.quantity, level.orders) for level in side] for side in (book.bids, book.asks)]
    orders = {o.order_id: (o.request.account, o.price, o.quantity, o.open) for o in book.orders()}
    return sides[0], sides[1], orders


def copy_of(replica: ShardReplica) -> tuple[Any, Any, Any]:
    book = replica.books[SYMBOL]
    orders = {i: (o.account, o.price, o.quantity, o.open) for i, o in book.orders.items()}
    return book.bids.top(0), book.asks.top(0), orders


@given(st.lists(st.lists(commands, min_size=1, max_size=5), max_size=25), st.integers(0, 25))
@settings(max_examples=150, deadline=None)
def test_the_copy_equals_the_shard_after_every_batch(batches: list[list[Any]], load_at: int) -> None:
    shard, first = new_shard()
    replica, late = ShardReplica("shard-0"), ShardReplica("shard-0")
    replica.apply(first)
    for index, batch in enumerate(batches):
        if index == load_at:
            late.load(unpack_dump(ShardType().dump(shard, 1)))
        sent = advance(shard, index + 2, batch)
        replica.apply(sent)
        replica.apply(sent)
        assert copy_of(replica) == book_of(shard)
        if late.is_loaded:
            late.apply(sent)
            assert copy_of(late) == book_of(shard)


@given(st.lists(commands, max_size=60), st.sampled_from([0, 1, 5, 50]))
@settings(max_examples=150, deadline=None)
async def test_a_reader_can_follow_the_book_through_every_command(batch: list[Any], depth: int) -> None:
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.apply(first)
    reader = BookView(replica, SYMBOL, depth).subscribe()
    sides: tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]] = ({}, {})
    sequence = 0
    await reader.next()
    for number, command in enumerate(batch):
        before = replica.books[SYMBOL].bids.top(depth), replica.books[SYMBOL].asks.top(depth)
        replica.apply(advance(shard, number + 2, [command]))
        after = replica.books[SYMBOL].bids.top(depth), replica.books[SYMBOL].asks.top(depth)
        if before == after:
            continue
        (update,) = (await reader.next()).updates
        assert update.previous_sequence == sequence or not sequence
        sequence = update.sequence
        assert sequence == shard.sequence
        for side, levels in zip(sides, (update.bids, update.asks), strict=True):
            for level in levels:
                side.pop(level.price, None)
                if level.quantity:
                    side[level.price] = level.quantity, level.orders
        bids = [(p, *sides[0][p]) for p in sorted(sides[0], reverse=True)]
        asks = [(p, *sides[1][p]) for p in sorted(sides[1])]
        assert (bids, asks) == after
        assert update.checksum == checksum(bids[:10], asks[:10])


def test_the_checksum_is_that_of_the_protocol() -> None:
    assert checksum([(10, 1, 1), (9, 2, 1)], [(11, 3, 1)]) == crc32(b"10:1:11:3:9:2")


async def test_a_reader_that_falls_behind_gets_a_snapshot_instead(monkeypatch: Any) -> None:
    monkeypatch.setattr("exchange.gateway.book_stream.PENDING_MAX", 10)
    shard, first = new_shard()
    replica = ShardReplica("shard-0")
    replica.apply(first)
    reader = BookView(replica, SYMBOL, 0).subscribe()
    await reader.next()
    for number in range(50):
        place = PlaceOrder(1, f"x{number}", SYMBOL, 1, 1, 0, 50 + number, 1)
        replica.apply(advance(shard, number + 2, [place]))
    (update,) = (await reader.next()).updates
    assert update.snapshot
    assert [level.price for level in update.bids] == list(range(99, 49, -1))
