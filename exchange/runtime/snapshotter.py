"""When a host takes snapshots: all hosts of a machine after the same records, so that their hashes can be compared.

A forked process writes them, so that the host does not stop for one. Where primary and standby have one store, the
standby takes them, and the primary only if it does not see them come. What blocks is done in a thread or the child.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from exchange.runtime.aside import AsideFailed, do_aside
from exchange.runtime.machine import MachineType
from exchange.runtime.recovery import Recovered, StateHash, take_snapshot
from exchange.runtime.snapshot import SnapshotBusy, SnapshotStore, SnapshotUnavailable

SNAPSHOT_TIMEOUT_S = 300.0

_log = structlog.get_logger()


class Snapshotter:
    """Told of every record by `see` or `see_as_standby`, it begins one at each multiple of `every_commands` passed."""

    def __init__(self, kind: MachineType, snapshots: SnapshotStore, every_commands: int) -> None:
        self.leaves_it_to_standby = False
        """Of a primary. One that finds none of the multiple before takes it itself."""
        self._kind = kind
        self._snapshots = snapshots
        self._every_commands = every_commands
        self._multiple = -1
        self._record_before = 0
        self._task: asyncio.Task[None] | None = None

    def see(self, at: Recovered) -> bool:
        """Begin what is due on a primary; return whether a multiple was passed, when the journal may be trimmed."""
        if not self.passes(at):
            return False
        before, self._record_before = self._record_before, at.record
        if self._task is None:
            if not self.leaves_it_to_standby:
                self.begin(at)
            elif before:
                # Else it is the first one that is passed here: the standby passes it in this moment, too.
                self._task = asyncio.create_task(self._begin_if_missing(at, before))
        return True

    def see_as_standby(self, at: Recovered, settle: Callable[[], None]) -> None:
        """Begin what is due on a standby; `settle` is called before."""
        if self.passes(at) and self._task is None:
            settle()
            self.begin(at)

    def passes(self, at: Recovered) -> bool:
        """Return whether a multiple was passed since the last look; the first one only looks."""
        before, self._multiple = self._multiple, at.machine.sequence // self._every_commands
        return 0 <= before != self._multiple

    def begin(self, at: Recovered) -> None:
        """Begin a snapshot of this moment."""
        kind, snapshots = self._kind, self._snapshots
        try:
            written = do_aside(lambda: _write(kind, at, snapshots), SNAPSHOT_TIMEOUT_S)
        except AsideFailed as error:
            self._task = None
            _log.error("snapshot.failed", kind=kind.name, sequence=at.machine.sequence, error=str(error))
            return
        self._task = asyncio.create_task(self._finish(at, at.machine.sequence, written))

    async def _begin_if_missing(self, at: Recovered, record: int) -> None:
        """Begin one unless that of `record`, or a newer one, is there."""
        try:
            newest = await asyncio.to_thread(lambda: next(iter(self._snapshots.sequences), 0))
        except SnapshotUnavailable as error:
            _log.error("snapshot.failed", kind=self._kind.name, sequence=at.machine.sequence, error=str(error))
            newest = record
        self._task = None
        if newest < record:
            self.begin(at)

    async def _finish(self, at: Recovered, sequence: int, written: asyncio.Future[bytes]) -> None:
        try:
            digest = await written
            if digest:
                at.hashed = StateHash(sequence, digest)
            else:
                _log.info("snapshot.left_to_another", kind=self._kind.name, sequence=sequence)
        except AsideFailed as error:
            # The next multiple is another chance; until then there is more to replay.
            _log.error("snapshot.failed", kind=self._kind.name, sequence=sequence, error=str(error))
        finally:
            self._task = None

    async def settle(self) -> None:
        """Wait for the one that is being written, if any."""
        while self._task is not None:
            await self._task


def _write(kind: MachineType, at: Recovered, snapshots: SnapshotStore) -> bytes:
    """Return the hash of the state that was written, b"" if another process is writing one into the same store."""
    try:
        return take_snapshot(kind, at, snapshots).state_hash
    except SnapshotBusy:
        return b""
