"""Where a machine's journal and snapshots are."""

from __future__ import annotations

from pathlib import Path

from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal
from exchange.runtime.machine import MachineType
from exchange.runtime.rows import ControlType, LedgerType
from exchange.runtime.snapshot import SnapshotStore

KINDS: dict[str, MachineType] = {kind.name: kind for kind in (ShardType(), LedgerType(), ControlType())}


def open_storage(directory: Path, machine: str) -> tuple[FileJournal, SnapshotStore]:
    """Return the journal and the snapshots of a machine below the data directory."""
    return FileJournal.open(directory / machine / "journal", machine), SnapshotStore(directory / machine / "snapshots")
