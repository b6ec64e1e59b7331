import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.client import ChecksumMismatch, GapDetected, Instrument, Level, OrderBook, Stage
from exchange.v1 import market_data_pb2, types_pb2
from tests.client.fake_gateway import BTC

INSTRUMENT = Instrument.from_proto(BTC)

Side = dict[int, int]
"""Price → quantity."""


def levels(side: Side) -> list[market_data_pb2.PriceLevel]:
    return [market_data_pb2.PriceLevel(price=p, quantity=q, orders=1) for p, q in side.items()]


def checksum(bids: Side, asks: Side, count: int = 10) -> int:
    """As the protocol words it, the slow way."""
    best_bids = sorted(bids.items(), reverse=True)[:count]
    best_asks = sorted(asks.items())[:count]
    text = []
    for index in range(count):
        for side in (best_bids, best_asks):
            if index < len(side):
                text.append(f"{side[index][0]}:{side[index][1]}")  # noqa: PERF401 - clearer in two steps
    return zlib.crc32(":".join(text).encode())


def snapshot(bids: Side, asks: Side, sequence: int = 1, count: int = 10) -> market_data_pb2.OrderBookUpdate:
    return market_data_pb2.OrderBookUpdate(
        instrument="BTC-USDT",
        snapshot=True,
        sequence=sequence,
        bids=levels(bids),
        asks=levels(asks),
        checksum=checksum(bids, asks, count),
    )


def test_the_checksum_is_that_of_the_protocols_text() -> None:
    book = OrderBook(INSTRUMENT)
    text = b"100:5:101:3:99:2:98:1"  # the asks run out after one level
    update = market_data_pb2.OrderBookUpdate(
        snapshot=True,
        sequence=1,
        bids=levels({100: 5, 99: 2, 98: 1}),
        asks=levels({101: 3}),
        checksum=zlib.crc32(text),
    )
    book.apply(update)
    assert book.checksum() == zlib.crc32(text)


def test_a_book_says_when_the_next_stage_is_expected_and_so_does_its_copy() -> None:
    book = OrderBook(INSTRUMENT)
    update = snapshot({100: 5}, {})
    update.MergeFrom(
        market_data_pb2.OrderBookUpdate(
            stage=types_pb2.STAGE_POST_ONLY, stage_reason="well", next_stage_time_ns=1_700_000_000_000_000_000
        )
    )
    book.apply(update)
    for told in (book, book.copy()):
        assert (told.stage, told.stage_reason) == (Stage.POST_ONLY, "well")
        assert told.next_stage_time_ns == 1_700_000_000_000_000_000


def test_an_empty_book_has_the_checksum_of_nothing() -> None:
    assert OrderBook(INSTRUMENT).checksum() == zlib.crc32(b"") == 0


def test_a_book_speaks_decimal_best_first() -> None:
    book = OrderBook(INSTRUMENT)
    book.apply(snapshot({6000000: 5000, 5999999: 10000}, {6000010: 20000}))
    assert list(book.bids) == [
        Level(Decimal("60000.00"), Decimal("0.5000"), 1),
        Level(Decimal("59999.99"), Decimal("1.0000"), 1),
    ]
    assert book.best_ask == Level(Decimal("60000.10"), Decimal("2.0000"), 1)
    assert book.bids[-1].price == Decimal("59999.99")
    assert book.bids[:1] == [book.best_bid]
    assert book.bids.raw(1) == [(6000000, 5000, 1)]
    assert len(book.asks) == 1
    with pytest.raises(IndexError):
        book.asks[1]


def test_a_change_that_does_not_follow_on_is_refused_and_leaves_the_book() -> None:
    book = OrderBook(INSTRUMENT)
    book.apply(snapshot({100: 5}, {}, sequence=7))
    change = market_data_pb2.OrderBookUpdate(sequence=10, previous_sequence=8, bids=levels({100: 6}))
    with pytest.raises(GapDetected, match="follows on 7, was one that follows on 8"):
        book.apply(change)
    assert book.bids.raw() == [(100, 5, 1)]
    assert book.sequence == 7


def test_a_change_before_the_first_snapshot_is_refused() -> None:
    change = market_data_pb2.OrderBookUpdate(sequence=1, previous_sequence=0)
    with pytest.raises(GapDetected, match="follows on no snapshot"):
        OrderBook(INSTRUMENT).apply(change)


def test_after_a_wrong_checksum_only_a_snapshot_is_taken() -> None:
    book = OrderBook(INSTRUMENT)
    book.apply(snapshot({100: 5}, {}, sequence=1))
    wrong = market_data_pb2.OrderBookUpdate(sequence=2, previous_sequence=1, bids=levels({100: 6}), checksum=1)
    with pytest.raises(ChecksumMismatch):
        book.apply(wrong)
    good = market_data_pb2.OrderBookUpdate(sequence=3, previous_sequence=2, checksum=checksum({100: 6}, {}))
    with pytest.raises(GapDetected):
        book.apply(good)
    book.apply(snapshot({100: 6}, {}, sequence=3))
    assert book.sequence == 3


def test_a_level_pushed_below_the_depth_leaves_without_a_word() -> None:
    book = OrderBook(INSTRUMENT, depth=1)
    book.apply(snapshot({100: 5}, {}, sequence=1, count=1))
    book.apply(
        market_data_pb2.OrderBookUpdate(
            sequence=2, previous_sequence=1, bids=levels({101: 1}), checksum=checksum({101: 1}, {})
        )
    )
    assert book.bids.raw() == [(101, 1, 1)]


def test_a_copy_stays_when_the_book_moves() -> None:
    book = OrderBook(INSTRUMENT)
    book.apply(snapshot({100: 5}, {101: 1}))
    copy = book.copy()
    book.apply(snapshot({}, {}, sequence=2))
    assert copy.bids.raw() == [(100, 5, 1)]
    assert copy.sequence == 1


change_maps = st.dictionaries(st.integers(1, 30), st.integers(0, 5), max_size=10)


@given(st.lists(st.tuples(change_maps, change_maps), max_size=20))
def test_a_book_kept_from_changes_is_the_book(changes: list[tuple[Side, Side]]) -> None:
    bids: Side = {}
    asks: Side = {}
    book = OrderBook(INSTRUMENT)
    book.apply(snapshot({}, {}, sequence=1))
    for sequence, (bid_changes, ask_changes) in enumerate(changes, 2):
        for side, change in ((bids, bid_changes), (asks, ask_changes)):
            side.update(change)
            for price in [price for price, quantity in side.items() if not quantity]:
                del side[price]
        book.apply(
            market_data_pb2.OrderBookUpdate(
                sequence=sequence,
                previous_sequence=sequence - 1,
                bids=levels(bid_changes),
                asks=levels(ask_changes),
                checksum=checksum(bids, asks),
            )
        )
    assert book.bids.raw() == [(p, q, 1) for p, q in sorted(bids.items(), reverse=True)]
    assert book.asks.raw() == [(p, q, 1) for p, q in sorted(asks.items())]
