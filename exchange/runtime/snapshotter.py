"""When a host takes snapshots: all hosts of a machine after the same records, so that their hashes can be compared.

A forked process writes them, so that the host does not stop for one. Where primary and standby have one store, the
standby takes them, and the primary only if it does not see them come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from exchange.runtime.aside import AsideFailed, do_aside
from exchange.runtime.machine import MachineType
from exchange.runtime.recovery import Recovered, StateHash, take_snapshot
from exchange.runtime.snapshot import SnapshotStore

SNAPSHOT_TIMEOUT_S = 300.0

_log = structlog.get_logger()


class Snapshotter:
    """Told of every record by `see`, it begins a snapshot at each multiple of `every_commands` that is passed."""

    def __init__(self, kind: MachineType, snapshots: SnapshotStore, every_commands: int) -> None:
        self.leaves_it_to_standby = False
        self._kind = kind
        self._snapshots = snapshots
        self._every_commands = every_commands
        self._multiple = -1
        self._record_before = 0
        self._task: asyncio.Task[None] | None = None

    def see(self, at: Recovered, settle: Callable[[], None] | None = None) -> bool:
        """Look whether one is due; return whether a multiple was passed, when the journal may be trimmed.

        `settle` is called before one is taken.
        """
        multiple = at.machine.sequence // self._every_commands
        if multiple == self._multiple:
            return False
        is_first, self._multiple = self._multiple < 0, multiple
        if is_first:
            return False
        record_before, self._record_before = self._record_before, at.record
        is_there = record_before > 0 and next(iter(self._snapshots.sequences), 0) >= record_before
        if self._task is None and not (self.leaves_it_to_standby and is_there):
            if settle is not None:
                settle()
            self.begin(at)
        return True

    def begin(self, at: Recovered) -> None:
        """Begin a snapshot of this moment."""
        kind, snapshots = self._kind, self._snapshots
        try:
            written = do_aside(lambda: take_snapshot(kind, at, snapshots).state_hash, SNAPSHOT_TIMEOUT_S)
        except AsideFailed as error:
            _log.error("snapshot.failed", kind=kind.name, sequence=at.machine.sequence, error=str(error))
            return
        self._task = asyncio.create_task(self._finish(at, at.machine.sequence, written))

    async def _finish(self, at: Recovered, sequence: int, written: asyncio.Future[bytes]) -> None:
        try:
            at.hashed = StateHash(sequence, await written)
        except AsideFailed as error:
            # The next multiple is another chance; until then there is more to replay.
            _log.error("snapshot.failed", kind=self._kind.name, sequence=sequence, error=str(error))
        finally:
            self._task = None

    async def settle(self) -> None:
        """Wait for the one that is being written, if any."""
        if self._task is not None:
            await self._task
