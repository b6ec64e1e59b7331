"""Where a machine's journal and snapshots are."""

from __future__ import annotations

from pathlib import Path

from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal, Journal
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.journal.nats_settings import NatsSettings
from exchange.runtime.machine import MachineType
from exchange.runtime.rows import ControlType, LedgerType
from exchange.runtime.snapshot import SnapshotStore

KINDS: dict[str, MachineType] = {kind.name: kind for kind in (ShardType(), LedgerType(), ControlType())}


def open_storage(directory: Path, machine: str, nats: NatsSettings | None = None) -> tuple[Journal, SnapshotStore]:
    """Return a machine's journal, below the data directory or on servers, and its snapshots, always below it.

    Raises what opening a journal raises; with servers, it waits until they answer.
    """
    journal: Journal
    if nats is None:
        journal = FileJournal.open(directory / machine / "journal", machine)
    else:
        journal = NatsJournal.open(nats, machine)
    return journal, SnapshotStore(directory / machine / "snapshots")
