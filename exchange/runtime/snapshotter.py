"""Takes a shard's snapshot in a process of its own, so that the shard never stops for it.

It starts from the snapshot before, applies the journal up to the record it is told, and writes the next snapshot:
`python -m exchange.runtime.snapshotter DIRECTORY MACHINE KIND RECORD`. Its last words are the sequence and the hash of
the state that it wrote.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal
from exchange.runtime.machine import MachineType
from exchange.runtime.recovery import StateHash, recover, take_snapshot
from exchange.runtime.rows import ControlType, LedgerType
from exchange.runtime.snapshot import SnapshotStore

KINDS: dict[str, MachineType] = {kind.name: kind for kind in (ShardType(), LedgerType(), ControlType())}
_NICENESS = 15


class SnapshotterFailed(Exception):
    """The process that should have written a snapshot did not; the message is what it said last."""

    code = "SNAPSHOTTER_FAILED"


def open_storage(directory: Path, machine: str) -> tuple[FileJournal, SnapshotStore]:
    """Return the journal and the snapshots of a machine below the data directory."""
    return FileJournal.open(directory / machine / "journal", machine), SnapshotStore(directory / machine / "snapshots")


async def snapshot_elsewhere(directory: Path, machine: str, kind: str, record: int) -> StateHash:
    """Have a process of its own take the snapshot at a record; return what it found. Raises `SnapshotterFailed`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "exchange.runtime.snapshotter",
        str(directory),
        machine,
        kind,
        str(record),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    if process.returncode != 0:
        raise SnapshotterFailed(f"exit code {process.returncode}: {stderr.decode(errors='replace')[-2_000:]}")
    sequence, digest = stdout.split()[-2:]
    return StateHash(int(sequence), bytes.fromhex(digest.decode()))


def main(directory: str, machine: str, kind: str, record: str) -> None:
    os.nice(_NICENESS)
    gc.disable()
    journal, snapshots = open_storage(Path(directory), machine)
    recovered = recover(KINDS[kind], journal, snapshots, to_record=int(record))
    take_snapshot(KINDS[kind], recovered, snapshots)
    sys.stdout.write(f"\n{recovered.hashed.sequence} {recovered.hashed.digest.hex()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
