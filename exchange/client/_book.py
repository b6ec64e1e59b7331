"""A local copy of an order book, kept from a snapshot and the changes that follow it."""

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import overload

from exchange.client._enums import Stage
from exchange.client._errors import ChecksumMismatch, GapDetected
from exchange.client._instruments import Instrument
from exchange.v1 import market_data_pb2

_CHECKSUM_LEVELS = 10

RawLevel = tuple[int, int, int]
"""Price, quantity and number of orders, as the wire has them."""


@dataclass(frozen=True, slots=True)
class Level:
    price: Decimal
    quantity: Decimal
    """Sum of the open quantities."""
    orders: int


class _Ladder:
    """One side, best first: a sorted list of prices beside a table of levels."""

    __slots__ = ("_keys", "_levels", "_sign")

    def __init__(self, sign: int) -> None:
        # Bids are sorted by the negative price, so that the best one is first on both sides.
        self._sign = sign
        self._keys: list[int] = []
        self._levels: dict[int, RawLevel] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, levels: Sequence[market_data_pb2.PriceLevel]) -> None:
        self._levels = {self._sign * level.price: (level.price, level.quantity, level.orders) for level in levels}
        self._keys = sorted(self._levels)

    def set(self, level: market_data_pb2.PriceLevel) -> None:
        key = self._sign * level.price
        if level.quantity:
            if key not in self._levels:
                insort(self._keys, key)
            self._levels[key] = (level.price, level.quantity, level.orders)
        elif self._levels.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def cut(self, depth: int) -> None:
        for key in self._keys[depth:]:
            del self._levels[key]
        del self._keys[depth:]

    def at(self, index: int) -> RawLevel:
        return self._levels[self._keys[index]]

    def top(self, count: int | None) -> list[RawLevel]:
        return [self._levels[key] for key in self._keys[:count]]


class Levels(Sequence[Level]):
    """One side of a book, best first. A level becomes Decimals when it is looked at, not before."""

    __slots__ = ("_instrument", "_ladder")

    def __init__(self, ladder: _Ladder, instrument: Instrument) -> None:
        self._ladder = ladder
        self._instrument = instrument

    def __len__(self) -> int:
        return len(self._ladder)

    @overload
    def __getitem__(self, index: int) -> Level: ...
    @overload
    def __getitem__(self, index: slice) -> list[Level]: ...
    def __getitem__(self, index: int | slice) -> Level | list[Level]:
        if isinstance(index, slice):
            return [self._level(self._ladder.at(i)) for i in range(*index.indices(len(self)))]
        return self._level(self._ladder.at(index))

    def __iter__(self) -> Iterator[Level]:
        return (self._level(raw) for raw in self._ladder.top(None))

    def __repr__(self) -> str:
        return repr(list(self))

    def raw(self, count: int | None = None) -> list[RawLevel]:
        """The best `count` levels as integers (all, if None)."""
        return self._ladder.top(count)

    def _level(self, raw: RawLevel) -> Level:
        price, quantity, orders = raw
        instrument = self._instrument
        return Level(instrument.price(price), instrument.quantity(quantity), orders)


class OrderBook:
    """An order book as it stood after the last update applied to it.

    From `stream_order_book` it is one live object, which the stream changes before it yields it
    again; `copy()` keeps a moment.
    """

    __slots__ = (
        "_asks",
        "_bids",
        "_started",
        "asks",
        "bids",
        "depth",
        "instrument",
        "next_stage_time_ns",
        "sequence",
        "stage",
        "stage_reason",
        "time_ns",
    )

    def __init__(self, instrument: Instrument, depth: int = 0) -> None:
        self.instrument = instrument
        self.depth = depth
        """Levels a side; 0: all."""
        self._bids = _Ladder(-1)
        self._asks = _Ladder(1)
        self.bids = Levels(self._bids, instrument)
        self.asks = Levels(self._asks, instrument)
        self.sequence = 0
        """Position in the shard's history."""
        self.stage = Stage.UNSPECIFIED
        self.next_stage_time_ns = 0
        """When the next stage is expected; 0: nobody knows."""
        self.stage_reason = ""
        """Why it is in this one, unless it is open."""
        self.time_ns = 0
        self._started = False

    @property
    def best_bid(self) -> Level | None:
        return self.bids[0] if self._bids else None

    @property
    def best_ask(self) -> Level | None:
        return self.asks[0] if self._asks else None

    def apply(self, update: market_data_pb2.OrderBookUpdate) -> None:
        """Makes the book what it is after `update`.

        Raises:
            GapDetected: the update does not follow on the one before; the book is as it was.
            ChecksumMismatch: the book now differs from the exchange's; only a snapshot mends it.
        """
        if update.snapshot:
            self._bids.replace(update.bids)
            self._asks.replace(update.asks)
        else:
            if not self._started or update.previous_sequence != self.sequence:
                found = self.sequence if self._started else "no snapshot"
                raise GapDetected(
                    f"order book of {self.instrument.symbol}: expected an update that follows on"
                    f" {found}, was one that follows on {update.previous_sequence}"
                )
            for level in update.bids:
                self._bids.set(level)
            for level in update.asks:
                self._asks.set(level)
        if self.depth:
            # A level that others push below the depth may leave without a word.
            self._bids.cut(self.depth)
            self._asks.cut(self.depth)
        self.sequence = update.sequence
        self.stage = Stage(update.stage)
        self.next_stage_time_ns, self.stage_reason = update.next_stage_time_ns, update.stage_reason
        self.time_ns = update.time_ns
        checksum = self.checksum()
        self._started = checksum == update.checksum
        if not self._started:
            raise ChecksumMismatch(
                f"order book of {self.instrument.symbol} at {update.sequence}:"
                f" expected checksum {update.checksum}, was {checksum}"
            )

    def expect_snapshot(self) -> None:
        """Refuses changes until the next snapshot; the levels stay as they are until then."""
        self._started = False

    def checksum(self) -> int:
        """CRC-32 of the ten best levels (fewer if the depth is), as the protocol defines it."""
        count = min(_CHECKSUM_LEVELS, self.depth or _CHECKSUM_LEVELS)
        bids, asks = self._bids.top(count), self._asks.top(count)
        parts: list[str] = []
        for index in range(max(len(bids), len(asks))):
            parts.extend(f"{side[index][0]}:{side[index][1]}" for side in (bids, asks) if index < len(side))
        return zlib.crc32(":".join(parts).encode("ascii"))

    def copy(self) -> "OrderBook":
        """The book of this moment, which no stream changes."""
        other = OrderBook(self.instrument, self.depth)
        for mine, its in ((self._bids, other._bids), (self._asks, other._asks)):
            its._keys = list(mine._keys)
            its._levels = dict(mine._levels)
        other.sequence, other.stage, other.time_ns = self.sequence, self.stage, self.time_ns
        other.next_stage_time_ns, other.stage_reason = self.next_stage_time_ns, self.stage_reason
        other._started = self._started
        return other

    def __repr__(self) -> str:
        return (
            f"OrderBook({self.instrument.symbol}, sequence={self.sequence},"
            f" bid={self.best_bid}, ask={self.best_ask}, stage={self.stage.name})"
        )
