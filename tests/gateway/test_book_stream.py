"""A reader of an order book stream has the book after every command, and a slow one costs nobody anything."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AddInstrument, AmendOrder, CancelAll, CancelOrder, PlaceOrder, SetStage, Tick
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.gateway.book_stream import BookReader, BookView, ReaderLimits, SlowReader, checksum
from exchange.gateway.replica import BookCopy, ShardReplica
from exchange.runtime.codec import ShardType, unpack_dump
from exchange.runtime.feed import FeedBatch, unpack_batch
from exchange.runtime.messages import pack
from tests.gateway.money import rich_shard

SYMBOL = "BTC-USDT"
DEPTHS = (0, 1, 5, 50)

accounts = st.integers(1, 3)
# A command names no order yet: a market names each new one, and lets the others pick among those.
unnamed, picks = st.just(""), st.integers(0, 15)
# Wider than the depth 5, so that levels come into sight and leave it.
prices = st.integers(80, 120)
quantities = st.integers(1, 20)
kinds = st.sampled_from([1, 1, 1, 2, 3])
# All fields are given: `builds` makes up those that are left out, defaults or not, and nearly every order is refused.
places = st.builds(
    PlaceOrder,
    accounts,
    unnamed,
    st.just(SYMBOL),
    st.integers(1, 2),
    st.just(1),
    kinds,
    prices,
    quantities,
    st.just(False),
    st.integers(0, 3),
    st.just(0),
    st.just(0),
)
amends = st.builds(
    AmendOrder,
    st.just(0),
    st.just(SYMBOL),
    unnamed,
    picks,
    st.one_of(st.just(0), prices),
    st.one_of(st.just(0), quantities),
    st.just(0),
    st.booleans(),
    st.booleans(),
)
cancels = st.builds(CancelOrder, st.just(0), st.just(SYMBOL), unnamed, picks)
cancel_alls = st.builds(CancelAll, accounts, st.just(""), st.integers(0, 2), st.just(1))
# Not `one_of`, which counts a strategy once however often it is named.
mix = [*[places] * 20, *[amends] * 8, *[cancels] * 4, cancel_alls]
commands: st.SearchStrategy[Any] = st.sampled_from(mix).flatmap(lambda chosen: chosen)


class Market:
    """A shard with its copy, and a clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.shard = rich_shard("BTC", "USDT")
        self.replica = ShardReplica("shard-0")
        self.replica.set_away(False)
        self.now_s = 100.0
        self._placed: list[PlaceOrder] = []
        self.does(AddInstrument(Instrument(SYMBOL, "BTC", "USDT", 2, 4, 6)), SetStage(int(Stage.OPEN)))

    @property
    def book(self) -> BookCopy:
        return self.replica.books[SYMBOL]

    def does(self, *batch: Any) -> None:
        first = self.shard.sequence + 1
        applied = self.shard.apply(first, [self._named(command) for command in batch])
        sent = pack(FeedBatch(1, first, self.shard.sequence, self.shard.time_ns, list(applied.events)))
        self.replica.apply(unpack_batch(sent))

    def _named(self, command: Any) -> Any:
        if isinstance(command, PlaceOrder) and not command.client_order_id:
            self._placed.append(command._replace(client_order_id=f"o{len(self._placed)}"))
            return self._placed[-1]
        if isinstance(command, AmendOrder | CancelOrder) and self._placed:
            order = self._placed[-1 - command.order_id % len(self._placed)]
            return command._replace(account=order.account, client_order_id=order.client_order_id, order_id=0)
        return command

    def places(self, price: int, quantity: int = 1, side: int = 1, account: int = 1) -> None:
        self.does(PlaceOrder(account, "", SYMBOL, side, 1, 1, price, quantity))

    def view(self, depth: int, **limits: Any) -> BookView:
        return BookView(self.replica, SYMBOL, depth, clock=lambda: self.now_s, limits=ReaderLimits(**limits))


class Client:
    """What a client makes of a stream, by the words of the protocol alone."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.bids: dict[int, tuple[int, int]] = {}
        self.asks: dict[int, tuple[int, int]] = {}
        self.sequence = -1
        self.stage = 0

    def reads(self, reader: BookReader) -> list[Any]:
        """Take all that waits; return the updates."""
        updates: list[Any] = []
        while (response := reader.take()) is not None:
            for update in response.updates:
                self._apply(update)
                updates.append(update)
        return updates

    def _apply(self, update: Any) -> None:
        if update.snapshot:
            self.bids, self.asks = {}, {}
        else:
            assert update.previous_sequence == self.sequence
        self.sequence, self.stage = update.sequence, update.stage
        for side, levels in ((self.bids, update.bids), (self.asks, update.asks)):
            assert len({level.price for level in levels}) == len(levels)
            for level in levels:
                side.pop(level.price, None)
                if level.quantity:
                    side[level.price] = level.quantity, level.orders
        assert update.checksum == self._checksum()

    def _checksum(self) -> int:
        words = []
        sides = sorted(self.bids, reverse=True), sorted(self.asks)
        for index in range(min(10, self.depth or 10)):
            for side, held in zip(sides, (self.bids, self.asks), strict=True):
                if index < len(side):
                    words.append(f"{side[index]}:{held[side[index]][0]}")
        return crc32(":".join(words).encode())

    def levels(self) -> tuple[list[Any], list[Any]]:
        return (
            [(price, *self.bids[price]) for price in sorted(self.bids, reverse=True)],
            [(price, *self.asks[price]) for price in sorted(self.asks)],
        )


def visible(market: Market, depth: int) -> tuple[list[Any], list[Any]]:
    """The shard's own book, down to a depth."""
    book = market.shard.books[SYMBOL]
    bids, asks = (
        [(level.price, level.quantity, len(list(level))) for level in side] for side in (book.bids, book.asks)
    )
    return bids[: depth or None], asks[: depth or None]


@given(st.lists(commands, min_size=20, max_size=80))
@settings(max_examples=100, deadline=None)
def test_a_client_has_the_book_at_every_depth_after_every_command(batch: list[Any]) -> None:
    market = Market()
    streams = [(depth, market.view(depth).subscribe(), Client(depth)) for depth in DEPTHS]
    for depth, reader, client in streams:
        assert [update.snapshot for update in client.reads(reader)] == [True]
        assert client.levels() == visible(market, depth)
    for command in batch:
        before = {depth: visible(market, depth) for depth in DEPTHS}
        market.does(command)
        for depth, reader, client in streams:
            updates = client.reads(reader)
            after = visible(market, depth)
            assert client.levels() == after
            if before[depth] == after:
                assert not updates, "nothing that it sees has changed"
            else:
                (update,) = updates
                assert not update.snapshot
                assert update.sequence == market.shard.sequence


@given(st.lists(st.lists(commands, max_size=12), min_size=4, max_size=12), st.sampled_from(DEPTHS))
@settings(max_examples=100, deadline=None)
def test_a_client_that_reads_late_ends_with_the_same_book(bursts: list[list[Any]], depth: int) -> None:
    market = Market()
    view = market.view(depth, pending_max=3, merged_levels_max=6, updates_per_message=2)
    reader, client = view.subscribe(), Client(depth)
    for burst in bursts:
        for command in burst:
            market.does(command)
        assert len(client.reads(reader)) <= 4
        assert client.levels() == visible(market, depth)
        late, later = view.subscribe(), Client(depth)
        later.reads(late)
        assert later.levels() == client.levels()
        market.does(Tick(), PlaceOrder(3, f"t{market.shard.sequence}", SYMBOL, 1, 1, 1, 100, 1))
        client.reads(reader)
        later.reads(late)
        assert later.levels() == client.levels() == visible(market, depth)
        view.unsubscribe(late)


def test_the_checksum_is_that_of_the_protocol() -> None:
    assert checksum([(10, 1, 1), (9, 2, 1)], [(11, 3, 1)]) == crc32(b"10:1:11:3:9:2")
    assert checksum([(20 - n, 1, 1) for n in range(12)], []) == checksum([(20 - n, 1, 1) for n in range(10)], [])


def test_levels_that_scroll_out_are_sent_as_gone_and_those_that_scroll_in_as_they_are() -> None:
    market = Market()
    for price in range(100, 107):
        market.places(price)
    reader = market.view(5).subscribe()
    client = Client(5)
    client.reads(reader)
    market.places(107, 3)
    (update,) = client.reads(reader)
    assert {(level.price, level.quantity) for level in update.bids} == {(107, 3), (102, 0)}
    # A sweep through three levels uncovers three others.
    market.places(105, 5, side=2, account=2)
    (update,) = client.reads(reader)
    assert {(level.price, level.quantity) for level in update.bids} == {(107, 0), (106, 0), (105, 0)} | {
        (price, 1) for price in (100, 101, 102)
    }


def test_the_best_bid_and_ask_follow_every_single_command_of_a_batch() -> None:
    market = Market()
    reader = market.view(1).subscribe()
    reader.take()
    market.does(*(PlaceOrder(1, f"b{n}", SYMBOL, 1, 1, 1, 90 + n, 1) for n in range(5)))
    response = reader.take()
    assert response is not None
    assert [max(level.price for level in update.bids) for update in response.updates] == [90, 91, 92, 93, 94]
    assert [update.sequence for update in response.updates] == [3, 4, 5, 6, 7]


def test_a_reader_that_joins_later_follows_on_as_well() -> None:
    market = Market()
    view = market.view(1)
    first, client = view.subscribe(), Client(1)
    market.places(100)
    client.reads(first)
    market.places(90)  # not visible at depth 1
    second, joined = view.subscribe(), Client(1)
    joined.reads(second)
    market.places(101)
    assert len(client.reads(first)) == len(joined.reads(second)) == 1
    assert client.levels() == joined.levels() == ([(101, 1, 1)], [])


def test_readers_of_one_depth_share_each_update() -> None:
    market = Market()
    view = market.view(5)
    readers = [view.subscribe() for _ in range(2)]
    for reader in readers:
        reader.take()
    market.places(100)
    changes = [reader._pending[0].update() for reader in readers]
    assert changes[0] is changes[1]


def test_a_view_without_readers_leaves_the_book_alone() -> None:
    market = Market()
    view = market.view(5)
    reader = view.subscribe()
    view.unsubscribe(reader)
    assert not market.book.watchers
    market.places(100)
    again, client = view.subscribe(), Client(5)
    client.reads(again)
    assert client.levels() == visible(market, 5)


def test_what_does_not_fit_is_merged_into_one_change_that_follows_on() -> None:
    market = Market()
    view = market.view(0, pending_max=2)
    slow, quick = view.subscribe(), view.subscribe()
    behind, client = Client(0), Client(0)
    behind.reads(slow)
    client.reads(quick)
    for n in range(6):
        market.places(100 + n % 2)
        assert len(client.reads(quick)) == 1
    updates = behind.reads(slow)
    assert [(u.previous_sequence, u.sequence, u.snapshot) for u in updates] == [
        (1, 3, False),
        (3, 4, False),
        (4, 8, False),
    ]
    assert behind.levels() == client.levels() == ([(101, 3, 3), (100, 3, 3)], [])
    market.places(102)
    assert len(behind.reads(slow)) == 1, "it caught up: one change per command again"


def test_a_merged_change_that_grows_too_large_becomes_a_snapshot() -> None:
    market = Market()
    reader, client = market.view(0, pending_max=2, merged_levels_max=3).subscribe(), Client(0)
    client.reads(reader)
    for price in range(50, 70):
        market.places(price)
    (update,) = client.reads(reader)
    assert update.snapshot
    assert client.levels() == visible(market, 0)
    assert len(reader._pending) == 0


def test_a_reader_that_stays_behind_is_ended_and_nothing_waits_for_it_any_longer() -> None:
    market = Market()
    view = market.view(0, pending_max=2, behind_s_max=10.0)
    slow, quick = view.subscribe(), view.subscribe()
    slow.take()
    client = Client(0)
    for n in range(20):
        market.places(50 + n)
        client.reads(quick)
    market.now_s += 10.0
    market.places(80)
    assert slow._merged is not None, "10 s are not more than 10 s"
    market.now_s += 0.1
    market.places(81)
    assert not slow._merged
    assert not slow._pending
    market.places(82)
    with pytest.raises(SlowReader, match="behind for more than 10 s"):
        slow.take()
    client.reads(quick)
    assert client.levels() == visible(market, 0)


def test_a_reader_is_ended_for_its_snapshot_too_if_it_does_not_come_for_it() -> None:
    market = Market()
    reader = market.view(0, pending_max=1, merged_levels_max=1).subscribe()
    reader.take()
    for price in range(50, 60):
        market.places(price)
    market.now_s += 11
    with pytest.raises(SlowReader):
        reader.take()


def test_a_reader_that_catches_up_in_time_is_never_ended() -> None:
    market = Market()
    reader, client = market.view(0, pending_max=2, behind_s_max=10.0).subscribe(), Client(0)
    for n in range(20):
        for m in range(4):
            market.places(50 + n + m)
        market.now_s += 9
        client.reads(reader)
    assert client.levels() == visible(market, 0)


def test_an_idle_reader_is_not_behind() -> None:
    market = Market()
    reader, client = market.view(0).subscribe(), Client(0)
    client.reads(reader)
    market.now_s += 3_600
    market.places(100)
    assert len(client.reads(reader)) == 1


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_change_of_stage_is_told_though_no_level_changed(depth: int) -> None:
    market = Market()
    reader, client = market.view(depth).subscribe(), Client(depth)
    market.places(100)
    client.reads(reader)
    market.replica.set_away(True)
    (update,) = client.reads(reader)
    assert (update.stage, len(update.bids), len(update.asks)) == (Stage.REPLAYING, 0, 0)
    market.replica.set_away(False)
    market.does(SetStage(int(Stage.CANCEL_ONLY)))
    assert [u.stage for u in client.reads(reader)] == [Stage.OPEN, Stage.CANCEL_ONLY]
    # When the next stage is expected, and why it is not that yet, is told with it, and again when it changes.
    market.does(SetStage(int(Stage.POST_ONLY), 0, "well", next_stage_time_ns=5))
    market.does(SetStage(int(Stage.POST_ONLY), 0, "not well yet", next_stage_time_ns=6))
    notices = [(u.stage, u.stage_reason, u.next_stage_time_ns) for u in client.reads(reader)]
    assert notices == [(Stage.POST_ONLY, "well", 5), (Stage.POST_ONLY, "not well yet", 6)]
    market.does(SetStage(int(Stage.OPEN), 0, "well"))
    assert [(u.stage, u.stage_reason) for u in client.reads(reader)] == [(Stage.OPEN, "")]
    market.places(101)
    client.reads(reader)
    assert client.levels() == visible(market, depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_copy_that_is_loaded_anew_is_told_as_a_snapshot(depth: int) -> None:
    market = Market()
    reader, client = market.view(depth).subscribe(), Client(depth)
    market.places(100)
    client.reads(reader)
    market.shard.apply(99, [PlaceOrder(1, "unseen", SYMBOL, 1, 1, 1, 101, 1)])
    market.replica.load(unpack_dump(ShardType().dump(market.shard, 2)))
    (update,) = client.reads(reader)
    assert update.snapshot
    assert client.levels() == visible(market, depth)
    market.replica.epoch = 1
    market.places(102)
    assert len(client.reads(reader)) == 1
    assert client.levels() == visible(market, depth)


async def test_a_message_holds_several_updates_but_not_too_many() -> None:
    market = Market()
    reader = market.view(0, updates_per_message=4).subscribe()
    await reader.next()
    market.does(*(PlaceOrder(1, f"b{n}", SYMBOL, 1, 1, 1, 90 + n, 1) for n in range(10)))
    assert [len((await reader.next()).updates) for _ in range(3)] == [4, 4, 2]
    assert reader.take() is None


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_order_that_only_loses_its_place_changes_nothing_that_a_reader_sees(depth: int) -> None:
    market = Market()
    reader, client = market.view(depth).subscribe(), Client(depth)
    market.places(100, 5)
    client.reads(reader)
    market.does(AmendOrder(0, SYMBOL, "", 0, 0, 5, requeue=True))
    assert market.book.sequence == market.shard.sequence
    assert client.reads(reader) == []


def test_a_reader_that_was_behind_once_may_be_idle_afterwards() -> None:
    market = Market()
    reader, client = market.view(0, pending_max=1).subscribe(), Client(0)
    client.reads(reader)
    for n in range(5):
        market.places(50 + n)
    client.reads(reader)
    market.now_s += 3_600
    market.places(100)
    assert len(client.reads(reader)) == 1


def test_without_room_for_merging_a_reader_that_falls_behind_gets_a_snapshot() -> None:
    market = Market()
    reader, client = market.view(0, pending_max=2, merged_levels_max=0).subscribe(), Client(0)
    client.reads(reader)
    for _ in range(3):
        market.places(100)
    assert [update.snapshot for update in client.reads(reader)] == [True]
