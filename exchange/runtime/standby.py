"""A standby: a machine that follows the journal which another host writes, ready to take over.

It applies what is in the journal and stays there, so it is behind by what is being written. Its feed is the primary's,
batch by batch, and so is its checksum: whoever has the two numbers for one record knows whether the two agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import structlog

from exchange.runtime.journal import Journal, JournalTrimmed, JournalUnavailable, Record
from exchange.runtime.machine import MachineType
from exchange.runtime.recovery import Recovered, Replay, load_latest
from exchange.runtime.snapshot import SnapshotStore, SnapshotUnavailable
from exchange.runtime.snapshotter import Snapshotter

POLL_S = 0.01
RECORDS_PER_POLL = 64
FETCH_RETRY_S = 0.5
CHECKSUMS_KEPT = 20_000
"""Records; some ten seconds of a busy machine."""

_log = structlog.get_logger()


class Standby:
    """Follows `journal` from the newest snapshot on. `in_thread` runs what may block."""

    def __init__(
        self,
        kind: MachineType,
        journal: Journal,
        snapshots: SnapshotStore,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        snapshotter: Snapshotter,
        fetch_snapshot: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.at = Recovered(kind.new())
        self.failure: str | None = None
        """Why it cannot read on now."""
        self.has_caught_up = False
        """Whether it has once reached the end of the journal: from then on it is behind by a moment's records."""
        self._kind = kind
        self._journal = journal
        self._snapshots = snapshots
        self._in_thread = in_thread
        self._snapshotter = snapshotter
        self._fetch_snapshot = fetch_snapshot
        self._replay = Replay(kind, self.at)
        self._checksums: dict[int, int] = {}
        self._stopping = False

    async def load(self) -> None:
        """Begin with the newest snapshot that verifies."""
        self.at = await self._in_thread(lambda: load_latest(self._kind, self._snapshots))
        self._replay = Replay(self._kind, self.at)

    async def run(self) -> None:
        """Apply what comes until `stop`. Raises what `Journal.follow` does but for `JournalUnavailable`."""
        while not self._stopping:
            try:
                records = await self._in_thread(self._read)
                self.failure = None
            except JournalUnavailable as error:
                if self.failure is None:
                    _log.warning("standby.unavailable", machine=self._journal.machine_name, error=str(error))
                self.failure, records = str(error), []
            except JournalTrimmed:
                await self._catch_up()
                continue
            for record in records:
                self._apply(record)
                await asyncio.sleep(0)
            if len(records) < RECORDS_PER_POLL:
                self.has_caught_up |= self.failure is None
                await asyncio.sleep(POLL_S)

    async def _catch_up(self) -> None:
        """Begin again: the writer has gone on by more than its journal holds, so its snapshots are newer."""
        record = self.at.record
        self.has_caught_up = False
        try:
            if self._fetch_snapshot is not None and not await self._fetch_snapshot():
                self.failure = "the journal is trimmed, and no snapshot could be had from the writer"
            await self.load()
        except SnapshotUnavailable as error:
            self.failure = f"the journal is trimmed, and no newer snapshot could be read or stored: {error}"
        if self.at.record <= record:
            await asyncio.sleep(FETCH_RETRY_S)

    def stop(self) -> None:
        """Have `run` end after what it has read."""
        self._stopping = True

    async def finish(self) -> Recovered:
        """Once the journal is ours: apply the rest, and return the machine."""
        while records := await self._in_thread(self._read_rest):
            for record in records:
                self._apply(record)
                await asyncio.sleep(0)
        self._replay.settle()
        return self.at

    def agrees(self, record: int, checksum: int) -> bool | None:
        """Whether our feed had the same checksum after a record; None if that is not known any more, or not yet."""
        mine = self._checksums.get(record)
        return None if mine is None else mine == checksum

    def _read(self) -> list[Record]:
        return list(islice(self._journal.follow(self.at.record), RECORDS_PER_POLL))

    def _read_rest(self) -> list[Record]:
        return list(islice(self._journal.read(self.at.record + 1), RECORDS_PER_POLL))

    def _apply(self, record: Record) -> None:
        self._replay.apply(record)
        self._checksums[record.sequence] = self.at.feed.checksum
        if len(self._checksums) > CHECKSUMS_KEPT:
            del self._checksums[next(iter(self._checksums))]
        self._snapshotter.see_as_standby(self.at, self._replay.settle)
