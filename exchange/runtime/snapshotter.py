"""Takes a shard's snapshot in a process of its own, so that the shard never stops for it.

It starts from the snapshot before, applies the journal up to the record it is told, and writes the next snapshot:
`python -m exchange.runtime.snapshotter DIRECTORY MACHINE KIND RECORD`.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal
from exchange.runtime.machine import MachineType
from exchange.runtime.recovery import recover, take_snapshot
from exchange.runtime.rows import ControlType, LedgerType
from exchange.runtime.snapshot import SnapshotStore

KINDS: dict[str, MachineType] = {kind.name: kind for kind in (ShardType(), LedgerType(), ControlType())}
_NICENESS = 15


def open_storage(directory: Path, machine: str) -> tuple[FileJournal, SnapshotStore]:
    """Return the journal and the snapshots of a machine below the data directory."""
    return FileJournal.open(directory / machine / "journal", machine), SnapshotStore(directory / machine / "snapshots")


def main(directory: str, machine: str, kind: str, record: str) -> None:
    os.nice(_NICENESS)
    gc.disable()
    journal, snapshots = open_storage(Path(directory), machine)
    recovered = recover(KINDS[kind], journal, snapshots, to_record=int(record))
    take_snapshot(KINDS[kind], recovered, snapshots)


if __name__ == "__main__":
    main(*sys.argv[1:])
