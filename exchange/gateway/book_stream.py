"""Order book streams: a snapshot, then one change per command for as long as the reader keeps up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from zlib import crc32

from exchange.gateway.replica import BookCopy, ShardReplica
from exchange.v1 import market_data_pb2

PENDING_MAX = 4_096
"""Changes that wait for a reader; one that is further behind gets a new snapshot instead."""
UPDATES_PER_MESSAGE = 256
CHECKSUM_LEVELS = 10
_BUY = 1

LevelRow = tuple[int, int, int]


def checksum(bids: list[LevelRow], asks: list[LevelRow]) -> int:
    """Return the CRC-32 of the ten best levels, as `market_data.proto` defines it."""
    parts = []
    for index in range(CHECKSUM_LEVELS):
        if index < len(bids):
            parts.append(f"{bids[index][0]}:{bids[index][1]}")
        if index < len(asks):
            parts.append(f"{asks[index][0]}:{asks[index][1]}")
    return crc32(":".join(parts).encode())


def snapshot(replica: ShardReplica, book: BookCopy, depth: int) -> Any:
    """Return the book down to a depth (0: all) as an OrderBookUpdate."""
    bids, asks = book.bids.top(depth), book.asks.top(depth)
    return market_data_pb2.OrderBookUpdate(
        instrument=book.instrument.symbol,
        snapshot=True,
        sequence=book.sequence,
        previous_sequence=book.sequence,
        bids=_levels(bids),
        asks=_levels(asks),
        checksum=checksum(bids, asks),
        time_ns=book.time_ns,
        stage=replica.stage,  # type: ignore[arg-type]
    )


class BookView:
    """What readers of one instrument see at one depth; shared by all of them."""

    def __init__(self, replica: ShardReplica, symbol: str, depth: int) -> None:
        self._replica = replica
        self._symbol = symbol
        self._depth = depth
        self._readers: list[BookReader] = []
        self._visible: tuple[list[LevelRow], list[LevelRow]] = ([], [])
        self.sequence = 0

    @property
    def book(self) -> BookCopy:
        return self._replica.books[self._symbol]

    def subscribe(self) -> BookReader:
        """Add a reader, which starts with a snapshot."""
        if not self._readers:
            self.book.watchers.append(self._on_command)
            self._remember()
        reader = BookReader(self.snapshot)
        self._readers.append(reader)
        return reader

    def unsubscribe(self, reader: BookReader) -> None:
        self._readers.remove(reader)
        if not self._readers:
            self.book.watchers.remove(self._on_command)

    def snapshot(self) -> Any:
        return snapshot(self._replica, self.book, self._depth)

    def _remember(self) -> None:
        book = self.book
        self.sequence = book.sequence
        if self._depth:
            self._visible = book.bids.top(self._depth), book.asks.top(self._depth)

    def _on_command(self, book: BookCopy) -> None:
        if not book.touched:
            # The copy was loaded anew, or nothing of the book changed.
            if book.sequence > self.sequence and book.sequence == self._replica.sequence:
                self._remember()
                for reader in self._readers:
                    reader.restart()
            return
        bids, asks = self._changes(book)
        if not bids and not asks:
            return
        top = CHECKSUM_LEVELS if not self._depth else min(self._depth, CHECKSUM_LEVELS)
        update = market_data_pb2.OrderBookUpdate(
            instrument=self._symbol,
            sequence=book.sequence,
            previous_sequence=self.sequence,
            bids=_levels(bids),
            asks=_levels(asks),
            checksum=checksum(book.bids.top(top), book.asks.top(top)),
            time_ns=book.time_ns,
            stage=self._replica.stage,  # type: ignore[arg-type]
        )
        self.sequence = book.sequence
        for reader in self._readers:
            reader.add(update)

    def _changes(self, book: BookCopy) -> tuple[list[LevelRow], list[LevelRow]]:
        """Return the levels that look different now, with quantity 0 if they are gone or out of sight."""
        if not self._depth:
            changed: tuple[list[LevelRow], list[LevelRow]] = ([], [])
            for side, price in sorted(book.touched):
                level = (book.bids if side == _BUY else book.asks).levels.get(price)
                quantity, orders = level or (0, 0)
                changed[side != _BUY].append((price, quantity, orders))
            return changed
        before = self._visible
        after = book.bids.top(self._depth), book.asks.top(self._depth)
        self._visible = after
        bids, asks = (_difference(old, new) for old, new in zip(before, after, strict=True))
        return bids, asks


def _difference(before: list[LevelRow], after: list[LevelRow]) -> list[LevelRow]:
    if before == after:
        return []
    known = set(before)
    prices = {level[0] for level in after}
    return [level for level in after if level not in known] + [
        (price, 0, 0) for price, _, _ in before if price not in prices
    ]


class BookReader:
    """One stream: bounded, so that a slow reader costs nobody else anything."""

    def __init__(self, take_snapshot: Callable[[], Any]) -> None:
        self._take_snapshot = take_snapshot
        self._pending: deque[Any] = deque()
        self._behind = True
        self._more = asyncio.Event()
        self._more.set()

    def add(self, update: Any) -> None:
        if self._behind:
            return
        if len(self._pending) >= PENDING_MAX:
            self.restart()
            return
        self._pending.append(update)
        self._more.set()

    def restart(self) -> None:
        """Begin again with a snapshot, in place of the changes that wait."""
        self._pending.clear()
        self._behind = True
        self._more.set()

    async def next(self) -> Any:
        """Wait for something new and return it as a StreamOrderBookResponse."""
        await self._more.wait()
        if self._behind:
            self._behind = False
            updates = [self._take_snapshot()]
        else:
            updates = [self._pending.popleft() for _ in range(min(len(self._pending), UPDATES_PER_MESSAGE))]
        if not self._pending and not self._behind:
            self._more.clear()
        return market_data_pb2.StreamOrderBookResponse(updates=updates)


def _levels(rows: list[LevelRow]) -> list[Any]:
    return [
        market_data_pb2.PriceLevel(price=price, quantity=quantity, orders=orders) for price, quantity, orders in rows
    ]
