"""Brings a snapshot from the node that has it to one that needs it, part by part.

With a journal on servers each node keeps snapshots of its own, and a journal is trimmed behind those of its writer. A
standby that begins on another node, or fell behind, starts with the writer's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from exchange.runtime.snapshot import Snapshot, SnapshotStore

PART_BYTES = 1 << 20


class Part(NamedTuple):
    """Bytes of a snapshot's payload from some offset on, with what is known of the whole."""

    sequence: int
    epoch: int
    machine_version: int
    state_hash: bytes
    payload_bytes: int
    data: bytes


class SnapshotSource:
    """Gives out the newest snapshot of a store. It is read once for all the parts of it."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None

    def part(self, offset: int) -> Part | None:
        """Return the part at an offset; at 0 it is of the newest snapshot. None: there is none.

        Raises what `SnapshotStore.latest` raises.
        """
        if offset == 0:
            self._snapshot = self._store.latest()
        snapshot = self._snapshot
        if snapshot is None:
            return None
        data = snapshot.payload[offset : offset + PART_BYTES]
        size = len(snapshot.payload)
        if offset + len(data) >= size:
            self._snapshot = None
        return Part(snapshot.sequence, snapshot.epoch, snapshot.machine_version, snapshot.state_hash, size, data)


async def fetch(ask: Callable[[int], Awaitable[Part | None]], store: SnapshotStore) -> bool:
    """Store the newest snapshot that `ask` gives the parts of; return whether it did.

    The parts must be of one snapshot: if another one came in between, it is tried again later.
    """
    first = part = await ask(0)
    parts = []
    size = 0
    while first is not None and part is not None and part[:5] == first[:5]:
        parts.append(part.data)
        size += len(part.data)
        if size >= part.payload_bytes:
            payload = b"".join(parts)
            store.write(Snapshot(part.sequence, part.epoch, part.machine_version, part.state_hash, payload))
            return True
        part = await ask(size)
    return False
