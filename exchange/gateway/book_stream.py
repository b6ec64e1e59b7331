"""Order book streams: a snapshot, then one change per command for as long as the reader keeps up.

What a change is gets worked out once for all readers of one depth. A reader costs no more than a place in a queue,
which is bounded: what no longer fits is merged into one change, and what that cannot hold becomes a new snapshot.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from zlib import crc32

from exchange.engine.stages import StageRow
from exchange.engine.words import Stage
from exchange.gateway.replica import BookCopy, LevelRow, ShardReplica, SideCopy
from exchange.v1 import market_data_pb2

CHECKSUM_LEVELS: Final = 10
_OPEN: Final = int(Stage.OPEN)


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What a reader of a book may let wait."""

    pending_max: int = 4_096
    """Changes, one per command; later ones are merged."""
    merged_levels_max: int = 1_000
    """Levels of a merged change; beyond, a snapshot is smaller and says as much. 0: never merge."""
    behind_s_max: float = 10.0
    """How long a reader may stay behind (from the first merge until nothing waits for it) before it is ended."""
    updates_per_message: int = 256


class SlowReader(Exception):
    """A reader stayed behind for too long. Nothing waits for it any longer."""


def checksum(bids: Sequence[LevelRow], asks: Sequence[LevelRow]) -> int:
    """Return the CRC-32 of the ten best levels, as `market_data.proto` defines it."""
    parts = []
    for index in range(min(CHECKSUM_LEVELS, max(len(bids), len(asks)))):
        if index < len(bids):
            parts.append(f"{bids[index][0]}:{bids[index][1]}")
        if index < len(asks):
            parts.append(f"{asks[index][0]}:{asks[index][1]}")
    return crc32(":".join(parts).encode())


def snapshot(
    replica: ShardReplica, book: BookCopy, depth: int, sequence: int | None = None
) -> market_data_pb2.OrderBookUpdate:
    """Return the book down to a depth (0: all), at `sequence` if that is not the book's own."""
    bids, asks = book.bids.top(depth), book.asks.top(depth)
    sequence = book.sequence if sequence is None else sequence
    return market_data_pb2.OrderBookUpdate(
        instrument=book.instrument.symbol,
        snapshot=True,
        sequence=sequence,
        previous_sequence=sequence,
        bids=_levels(bids),
        asks=_levels(asks),
        checksum=checksum(bids, asks),
        time_ns=book.time_ns,
        **notice(replica.stage_of(book.instrument.symbol)),
    )


def notice(row: StageRow) -> dict[str, Any]:
    """Return what market data tells of the stage that holds for an instrument, as fields of its messages."""
    if row.stage == _OPEN:
        return {"stage": row.stage}
    return {"stage": row.stage, "next_stage_time_ns": row.next_stage_time_ns, "stage_reason": row.reason}


class Window:
    """The best levels of one side, down to a depth: what comes into sight, changes or leaves it."""

    __slots__ = ("_depth", "_keys", "_rows", "_side")

    def __init__(self, side: SideCopy, depth: int) -> None:
        self._side = side
        self._depth = depth
        rows = side.top(depth)
        self._rows = {row[0]: row for row in rows}
        # As in the ladder: ascending, so that the best is last.
        self._keys = [row[0] * side.sign for row in reversed(rows)]

    def rows(self) -> list[LevelRow]:
        """Return the levels in sight, best first."""
        rows, sign = self._rows, self._side.sign
        return [rows[key * sign] for key in reversed(self._keys)]

    def update(self, prices: Sequence[int]) -> list[LevelRow]:
        """Take over the side's levels at `prices`; return what looks different now, with quantity 0 if out of sight."""
        if not prices:
            return []
        side, rows, keys = self._side, self._rows, self._keys
        sign, levels = side.sign, side.levels
        before: dict[int, LevelRow | None] = {}
        arrived = False
        for price in prices:
            if price in rows:
                before.setdefault(price, rows[price])
                if price in levels:
                    rows[price] = side.row(price)
                else:
                    del rows[price]
                    del keys[bisect_left(keys, price * sign)]
            elif price in levels and (len(keys) < self._depth or price * sign > keys[0]):
                arrived = True
        if arrived:
            # After the others have left, so that `keys` is what is left of the best levels, with none in between.
            for price in prices:
                if price not in rows and price in levels and keys and price * sign > keys[0]:
                    before.setdefault(price, None)
                    rows[price] = side.row(price)
                    insort(keys, price * sign)
        while len(keys) > self._depth:
            price = keys.pop(0) * sign
            before.setdefault(price, rows.pop(price))
        if len(keys) < self._depth and len(keys) < len(levels):
            worse = [key * sign for key in islice(side.ladder, len(keys), self._depth)]
            for price in worse:
                before.setdefault(price, None)
                rows[price] = side.row(price)
            keys[:0] = [price * sign for price in reversed(worse)]
        return [rows.get(price, (price, 0, 0)) for price, row in before.items() if rows.get(price) != row]


class Whole:
    """All levels of one side: what a `Window` is to a limited depth."""

    __slots__ = ("_rows", "_side")

    def __init__(self, side: SideCopy) -> None:
        self._side = side
        self._rows = {row[0]: row for row in side.top(0)}

    def update(self, prices: Sequence[int]) -> list[LevelRow]:
        """Take over the side's levels at `prices`; return those that are different now, with quantity 0 if gone."""
        rows, changed = self._rows, []
        for price in prices:
            row = self._side.row(price)
            before = rows.get(price)
            if row[1]:
                rows[price] = row
            elif before is not None:
                del rows[price]
            else:
                continue
            if row != before:
                changed.append(row)
        return changed


class Change:
    """What one command, or several merged into one, changed for readers of one depth."""

    __slots__ = ("_update", "asks", "bids", "checksum", "previous_sequence", "sequence", "stage", "symbol", "time_ns")

    def __init__(
        self,
        symbol: str,
        sequence: int,
        previous_sequence: int,
        bids: list[LevelRow],
        asks: list[LevelRow],
        checksum: int,
        time_ns: int,
        stage: StageRow,
    ) -> None:
        self.symbol = symbol
        self.sequence = sequence
        self.previous_sequence = previous_sequence
        self.bids = bids
        self.asks = asks
        self.checksum = checksum
        self.time_ns = time_ns
        self.stage = stage
        self._update: market_data_pb2.OrderBookUpdate | None = None

    def update(self) -> market_data_pb2.OrderBookUpdate:
        """Return the message: built for the first reader that takes it, the same one for all."""
        if self._update is None:
            self._update = market_data_pb2.OrderBookUpdate(
                instrument=self.symbol,
                sequence=self.sequence,
                previous_sequence=self.previous_sequence,
                bids=_levels(self.bids),
                asks=_levels(self.asks),
                checksum=self.checksum,
                time_ns=self.time_ns,
                **notice(self.stage),
            )
        return self._update


class _Merged:
    """Changes in a row as one: of each level, what the last one said."""

    def __init__(self, first: Change) -> None:
        self._first = self._last = first
        self._bids = {row[0]: row for row in first.bids}
        self._asks = {row[0]: row for row in first.asks}

    def __len__(self) -> int:
        return len(self._bids) + len(self._asks)

    def add(self, change: Change) -> None:
        self._last = change
        self._bids.update((row[0], row) for row in change.bids)
        self._asks.update((row[0], row) for row in change.asks)

    def change(self) -> Change:
        first, last = self._first, self._last
        bids, asks = list(self._bids.values()), list(self._asks.values())
        sequences = last.sequence, first.previous_sequence
        return Change(last.symbol, *sequences, bids, asks, last.checksum, last.time_ns, last.stage)


class BookView:
    """What readers of one instrument see at one depth (0: all); shared by all of them. `clock`: seconds."""

    def __init__(
        self,
        replica: ShardReplica,
        symbol: str,
        depth: int,
        *,
        clock: Callable[[], float],
        limits: ReaderLimits | None = None,
    ) -> None:
        self._replica = replica
        self._symbol = symbol
        self._depth = depth
        self._clock = clock
        self._limits = limits or ReaderLimits()
        self._readers: list[BookReader] = []
        self._snapshot: market_data_pb2.OrderBookUpdate | None = None
        self._start()

    @property
    def book(self) -> BookCopy:
        return self._replica.books[self._symbol]

    def subscribe(self) -> BookReader:
        """Add a reader, which starts with a snapshot."""
        if not self._readers:
            self._start()
            self.book.watch(self)
        reader = BookReader(self._take_snapshot, self._clock, self._limits)
        self._readers.append(reader)
        return reader

    def unsubscribe(self, reader: BookReader) -> None:
        self._readers.remove(reader)
        if not self._readers:
            self.book.unwatch(self)

    def _take_snapshot(self) -> market_data_pb2.OrderBookUpdate:
        """Return what is visible, at the sequence of the last change to it: there the next change follows on."""
        if self._snapshot is None:
            self._snapshot = snapshot(self._replica, self.book, self._depth, self._sequence)
        return self._snapshot

    def on_command(self, book: BookCopy) -> None:
        touched = book.bids.touched, book.asks.touched
        bids, asks = (visible.update(prices) for visible, prices in zip(self._visible, touched, strict=True))
        if not bids and not asks:
            return
        best_bids, best_asks = self._best
        # The windows are compared, as tuples of them have no identity when compiled.
        if self._visible[0] is best_bids or best_bids.update(touched[0]) + best_asks.update(touched[1]):
            self._checksum = self._checksum_now()
        self._tell(book, book.sequence, bids, asks)

    def on_stage(self) -> None:
        """Tell the readers at once, though no level has changed."""
        self._stage = self._replica.stage_of(self._symbol)
        self._tell(self.book, self._sequence, [], [])

    def on_load(self) -> None:
        self._start()
        for reader in self._readers:
            reader.restart()

    def _start(self) -> None:
        book = self.book
        best = self._depth if 0 < self._depth < CHECKSUM_LEVELS else CHECKSUM_LEVELS
        self._best = Window(book.bids, best), Window(book.asks, best)
        self._visible: tuple[Window | Whole, Window | Whole] = self._best
        if not self._depth:
            self._visible = Whole(book.bids), Whole(book.asks)
        elif self._depth != best:
            self._visible = Window(book.bids, self._depth), Window(book.asks, self._depth)
        self._checksum = self._checksum_now()
        self._sequence = book.sequence
        self._stage = self._replica.stage_of(self._symbol)
        self._snapshot = None

    def _checksum_now(self) -> int:
        bids, asks = self._best
        return checksum(bids.rows(), asks.rows())

    def _tell(self, book: BookCopy, sequence: int, bids: list[LevelRow], asks: list[LevelRow]) -> None:
        symbol, before, stage = self._symbol, self._sequence, self._stage
        change = Change(symbol, sequence, before, bids, asks, self._checksum, book.time_ns, stage)
        self._sequence = sequence
        self._snapshot = None
        for reader in self._readers:
            reader.add(change)


class BookReader:
    """One stream's queue: bounded, so that a slow reader costs nobody else anything."""

    def __init__(
        self,
        take_snapshot: Callable[[], market_data_pb2.OrderBookUpdate],
        clock: Callable[[], float],
        limits: ReaderLimits,
    ) -> None:
        self._take_snapshot = take_snapshot
        self._clock = clock
        self._limits = limits
        self._pending: deque[Change] = deque()
        self._merged: _Merged | None = None
        self._needs_snapshot = True
        self._behind_since: float | None = None
        self._is_ended = False
        self._more = asyncio.Event()
        self._more.set()

    def add(self, change: Change) -> None:
        """Let a change wait: by itself, merged into others, or as part of a snapshot."""
        if self._needs_snapshot or self._is_ended:
            self._end_if_late()
        elif self._merged is None and len(self._pending) < self._limits.pending_max:
            self._pending.append(change)
            self._more.set()
        else:
            if self._merged is None:
                self._merged = _Merged(change)
                self._behind_since = self._clock()
            else:
                self._merged.add(change)
            if len(self._merged) > self._limits.merged_levels_max:
                self.restart()
            self._end_if_late()

    def restart(self) -> None:
        """Go on with a snapshot, in place of the changes that wait."""
        self._drop()
        self._needs_snapshot = True
        self._more.set()

    def take(self) -> market_data_pb2.StreamOrderBookResponse | None:
        """Return what waits, up to the size of a message; None if nothing does.

        Raises:
            SlowReader: the reader stayed behind for too long.
        """
        self._end_if_late()
        if self._is_ended:
            raise SlowReader(f"behind for more than {self._limits.behind_s_max:g} s")
        room = self._limits.updates_per_message
        if self._needs_snapshot:
            self._needs_snapshot = False
            updates = [self._take_snapshot()]
        else:
            updates = [self._pending.popleft().update() for _ in range(min(len(self._pending), room))]
            if self._merged is not None and len(updates) < room:
                updates.append(self._merged.change().update())
                self._merged = None
        if not self._pending and self._merged is None:
            self._behind_since = None
            self._more.clear()
        return market_data_pb2.StreamOrderBookResponse(updates=updates) if updates else None

    async def next(self) -> market_data_pb2.StreamOrderBookResponse:
        """Wait for something new; else as `take`."""
        while (response := self.take()) is None:
            await self._more.wait()
        return response

    def _end_if_late(self) -> None:
        since = self._behind_since
        if since is not None and self._clock() - since > self._limits.behind_s_max:
            self._is_ended = True
            self._drop()
            self._more.set()

    def _drop(self) -> None:
        self._pending.clear()
        self._merged = None


def _levels(rows: list[LevelRow]) -> list[market_data_pb2.PriceLevel]:
    return [
        market_data_pb2.PriceLevel(price=price, quantity=quantity, orders=orders) for price, quantity, orders in rows
    ]
