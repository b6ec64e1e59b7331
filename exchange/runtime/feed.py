"""A machine's events in order: what the host keeps for readers, and the shapes in which they travel."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from exchange.engine.stages import StageRow
from exchange.runtime.journal.record import crc32c
from exchange.runtime.messages import pack, unpack

FEED_BYTES_MAX = 1 << 20
"""Of an answer to a reader: with the batch that reaches it, it is full."""
BATCH_COMMANDS_MAX = 256
"""A reader takes a batch in one go: more would keep it from what is urgent for longer than a millisecond."""

_sequence_of = itemgetter(1)

EventRow = tuple[Any, ...]
"""An event as a bare tuple: kind, sequence, then the fields of its class in `exchange.engine.events`."""


class FeedBatch(NamedTuple):
    """The events of the commands `first_sequence` to `last_sequence`, which are of one record."""

    epoch: int
    first_sequence: int
    last_sequence: int
    time_ns: int
    events: Sequence[EventRow]

    def slices(self, commands_max: int) -> Iterator[FeedBatch]:
        """Yield the batch in parts of at most so many commands, whole commands each."""
        start = 0
        for first in range(self.first_sequence, self.last_sequence + 1, commands_max):
            last = min(first + commands_max - 1, self.last_sequence)
            end = bisect_right(self.events, last, start, key=_sequence_of)
            yield FeedBatch(self.epoch, first, last, self.time_ns, self.events[start:end])
            start = end


class BookDump(NamedTuple):
    """A book as a reader starts with it; `orders` bids before asks, each side in priority order.

    An order is (order_id, account, client_order_id, side, price, quantity, open quantity).
    """

    instrument: tuple[Any, ...]
    last_price: int
    trade_id: int
    orders: Sequence[tuple[int, int, str, int, int, int, int]]


class ShardDump(NamedTuple):
    """Where a reader of a shard's feed starts: the state after the command `sequence`.

    `stages`: the whole shard's first, then those of instruments that have one of their own.
    """

    epoch: int
    sequence: int
    time_ns: int
    stages: Sequence[StageRow]
    books: Sequence[BookDump]


class FeedGap(Exception):
    """A reader asked for what the feed holds no longer (or not yet): it must start again from a dump."""

    def __init__(self, after_sequence: int, first_sequence: int, last_sequence: int) -> None:
        super().__init__(f"asked for events after {after_sequence}, the feed holds {first_sequence} to {last_sequence}")
        self.first_sequence = first_sequence
        self.last_sequence = last_sequence


class Feed:
    """The newest batches, bounded in bytes, each kept as it is sent. Readers wait for more.

    NOTE: to pack the events of a large record takes milliseconds. So what was published last is packed by `settle`,
    or for whoever asks before that, and a host can answer its clients first: a quarter more commands a second.
    """

    def __init__(self, *, bytes_max: int = 64 << 20, last_sequence: int = 0) -> None:
        self.last_sequence = last_sequence
        self._checksum = 0
        self._unsettled: FeedBatch | None = None
        self._bytes_max = bytes_max
        self._bytes = 0
        self._ends: deque[int] = deque()
        self._batches: deque[bytes] = deque()
        self._held_after = last_sequence
        self._more = asyncio.Event()

    @property
    def held_after(self) -> int:
        """A reader that has everything up to here can go on."""
        self.settle()
        return self._held_after

    @property
    def checksum(self) -> int:
        """CRC32C of all that was ever published: two hosts that publish the same are in the same state."""
        self.settle()
        return self._checksum

    def publish(self, batch: FeedBatch) -> None:
        """Add the events of a record, or of a part of one. `settle` wakes the readers."""
        if batch.first_sequence != self.last_sequence + 1:
            raise ValueError(f"expected events from {self.last_sequence + 1}, was {batch.first_sequence}")
        self.settle()
        self._unsettled = batch
        self.last_sequence = batch.last_sequence

    def settle(self) -> None:
        """Pack what was published last, and wake the readers."""
        batch, self._unsettled = self._unsettled, None
        if batch is None:
            return
        for part in batch.slices(BATCH_COMMANDS_MAX):
            data = pack(part)
            self._checksum = crc32c(data, self._checksum)
            self._batches.append(data)
            self._ends.append(part.last_sequence)
            self._bytes += len(data)
        while self._bytes > self._bytes_max and len(self._batches) > 1:
            self._bytes -= len(self._batches.popleft())
            self._held_after = self._ends.popleft()
        self._more.set()
        self._more = asyncio.Event()

    def read(self, after_sequence: int, *, bytes_max: int = FEED_BYTES_MAX) -> list[bytes]:
        """Return packed batches that follow on `after_sequence`, oldest first; none if there is nothing new.

        Raises:
            FeedGap: what follows is not held.
        """
        self.settle()
        if not self._held_after <= after_sequence <= self.last_sequence:
            raise FeedGap(after_sequence, self._held_after + 1, self.last_sequence)
        at = bisect_right(self._ends, after_sequence)
        batches: list[bytes] = []
        size = 0
        while at < len(self._batches) and (size < bytes_max or not batches):
            batches.append(self._batches[at])
            size += len(batches[-1])
            at += 1
        return batches

    async def wait(self, after_sequence: int, timeout_s: float) -> list[bytes]:
        """Like `read`, but wait up to `timeout_s` for something new."""
        batches = self.read(after_sequence)
        if not batches:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._more.wait()
            except TimeoutError:
                return []
            batches = self.read(after_sequence)
        return batches

    def tail(self, commands_max: int) -> list[bytes]:
        """Return the newest packed batches that together hold at most so many commands, for a snapshot."""
        self.settle()
        at = bisect_right(self._ends, self.last_sequence - commands_max)
        return list(self._batches)[at:]

    @classmethod
    def resume(cls, batches: list[bytes], last_sequence: int, checksum: int = 0, *, bytes_max: int = 64 << 20) -> Feed:
        """Return a feed that holds these batches, the last of which ends at `last_sequence`."""
        feed = cls(bytes_max=bytes_max, last_sequence=last_sequence)
        if batches:
            feed.last_sequence = feed._held_after = unpack_batch(batches[0]).first_sequence - 1
            for data in batches:
                feed.publish(unpack_batch(data))
            feed.settle()
        feed._checksum = checksum
        return feed


def unpack_batch(data: bytes) -> FeedBatch:
    """Return a batch from its packed form; rows come as tuples."""
    epoch, first, last, time_ns, events = unpack(data)
    return FeedBatch(epoch, first, last, time_ns, events)
