"""Snapshots: the state of a machine at a sequence, in files that are whole or not there.

    DIRECTORY/SEQUENCE-EPOCH.snapshot    the newest two are kept
    DIRECTORY/lock                       locked by who writes one

Layout, little endian: magic EKSN, version u16, length of the state hash u16, sequence u64, epoch
u64, machine version u32, payload length u64, CRC32C u32 of all before it and the state hash, CRC32C
u32 of the payload; then the state hash and the payload.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from exchange.runtime.journal.filesystem import (
    Filesystem,
    OsFilesystem,
    remove_pending,
    write_aside,
)
from exchange.runtime.journal.record import crc32c

SNAPSHOTS_KEPT = 2
LOCK_FILE = "lock"
_MAGIC = b"EKSN"
_VERSION = 2
_FIELDS = struct.Struct("<4sHHQQIQ")
_CHECKSUMS = struct.Struct("<II")
_HEADER_BYTES = _FIELDS.size + _CHECKSUMS.size
_NAME = re.compile(r"(\d{20})-(\d{20})\.snapshot")


class SnapshotError(Exception):
    """The base of what the store raises. `code` is stable and made for programs."""

    code: ClassVar[str] = "SNAPSHOT_ERROR"


class SnapshotUnavailable(SnapshotError):
    """The storage failed; the snapshots that were there still are."""

    code = "SNAPSHOT_UNAVAILABLE"


class SnapshotBusy(SnapshotUnavailable):
    """Another process is writing one into the same directory; it is no loss that this one was not."""

    code = "SNAPSHOT_BUSY"


class SnapshotCorrupt(SnapshotError):
    """There are snapshots, and none verifies. `damages` says what is wrong with each."""

    code = "SNAPSHOT_CORRUPT"

    def __init__(self, directory: Path, damages: tuple[SnapshotDamage, ...]) -> None:
        reasons = "; ".join(f"{damage.file}: {damage.reason}" for damage in damages)
        super().__init__(
            f"expected a snapshot that verifies in {directory}, found none ({reasons}): "
            "restore one from a backup, or replay the journal from its first record if it has it"
        )
        self.damages = damages


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after the command `sequence`, as `payload`, with the hash that replay must give."""

    sequence: int
    epoch: int
    machine_version: int
    state_hash: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class SnapshotDamage:
    """A snapshot file that does not verify."""

    file: str
    sequence: int
    reason: str


class SnapshotStore:
    """The snapshots of one machine, in a directory of their own. One process at a time writes, any may read.

    Every method raises `SnapshotUnavailable` when the storage fails.
    """

    def __init__(self, directory: Path | str, filesystem: Filesystem | None = None) -> None:
        self._directory = Path(directory)
        self._filesystem = filesystem or OsFilesystem()
        self._damages: tuple[SnapshotDamage, ...] = ()
        try:
            self._filesystem.make_directory(self._directory)
        except OSError as error:
            raise SnapshotUnavailable(f"could not make {self._directory}: {error}") from error

    @property
    def damages(self) -> tuple[SnapshotDamage, ...]:
        """The snapshots that the last `latest` had to pass over, newest first, for the log."""
        return self._damages

    @property
    def sequences(self) -> tuple[int, ...]:
        """The sequences of the snapshots, newest first.

        The journal may be trimmed up to the last of them, so that the older one is of use when
        the newer turns out to be damaged.
        """
        try:
            return tuple(sequence for sequence, _ in self._keys())
        except OSError as error:
            raise SnapshotUnavailable(f"could not list {self._directory}: {error}") from error

    def write(self, snapshot: Snapshot) -> None:
        """Store the snapshot and `prune`; it is durable on return. Raises `SnapshotBusy` if another one is writing."""
        fields = _FIELDS.pack(
            _MAGIC,
            _VERSION,
            len(snapshot.state_hash),
            snapshot.sequence,
            snapshot.epoch,
            snapshot.machine_version,
            len(snapshot.payload),
        )
        checksums = _CHECKSUMS.pack(crc32c(fields + snapshot.state_hash), crc32c(snapshot.payload))
        path = self._path(snapshot.sequence, snapshot.epoch)
        try:
            lock = self._filesystem.open_for_writing(self._directory / LOCK_FILE, create=True)
            try:
                # It also keeps `prune` from what another one has not renamed yet.
                if not self._filesystem.try_lock(lock):
                    raise SnapshotBusy(f"{path} was not written: another process is writing a snapshot")
                write_aside(
                    self._filesystem,
                    path,
                    [fields + checksums + snapshot.state_hash, snapshot.payload],
                )
                self.prune()
            finally:
                self._filesystem.close(lock)
        except OSError as error:
            raise SnapshotUnavailable(f"could not write {path}: {error}") from error

    def latest(self) -> Snapshot | None:
        """Return the newest snapshot that verifies, None if there are none at all.

        Damaged ones are passed over and left in `damages`. Raises `SnapshotCorrupt` if there are
        snapshots and none verifies.
        """
        damages: list[SnapshotDamage] = []
        try:
            for sequence, epoch in self._keys():
                try:
                    found = self._read(sequence, epoch)
                except FileNotFoundError:
                    # Who wrote a newer one has just pruned it.
                    return self.latest()
                if isinstance(found, Snapshot):
                    return found
                damages.append(found)
        except OSError as error:
            raise SnapshotUnavailable(f"could not read {self._directory}: {error}") from error
        finally:
            self._damages = tuple(damages)
        if damages:
            raise SnapshotCorrupt(self._directory, tuple(damages))
        return None

    def prune(self) -> None:
        """Delete all but the newest two, and what interrupted writes left behind."""
        try:
            remove_pending(self._filesystem, self._directory)
            for sequence, epoch in self._keys()[SNAPSHOTS_KEPT:]:
                self._filesystem.unlink(self._path(sequence, epoch))
            self._filesystem.sync_directory(self._directory)
        except OSError as error:
            raise SnapshotUnavailable(f"could not prune {self._directory}: {error}") from error

    def _path(self, sequence: int, epoch: int) -> Path:
        return self._directory / f"{sequence:020d}-{epoch:020d}.snapshot"

    def _keys(self) -> list[tuple[int, int]]:
        names = self._filesystem.list_directory(self._directory)
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        return sorted(((int(match[1]), int(match[2])) for match in matches), reverse=True)

    def _read(self, sequence: int, epoch: int) -> Snapshot | SnapshotDamage:
        path = self._path(sequence, epoch)
        descriptor = self._filesystem.open_for_reading(path)
        try:
            header = self._filesystem.read(descriptor, _HEADER_BYTES + 0xFFFF, 0)
            if len(header) < _HEADER_BYTES:
                return SnapshotDamage(str(path), sequence, "the header is cut short")
            fields = header[: _FIELDS.size]
            magic, version, hash_bytes, *content = _FIELDS.unpack(fields)
            header_checksum, payload_checksum = _CHECKSUMS.unpack_from(header, _FIELDS.size)
            start = _HEADER_BYTES + hash_bytes
            state_hash = header[_HEADER_BYTES:start]
            if magic != _MAGIC or crc32c(fields + state_hash) != header_checksum:
                return SnapshotDamage(str(path), sequence, "the header does not match its checksum")
            if version != _VERSION:
                reason = f"expected format version {_VERSION}, found {version}"
                return SnapshotDamage(str(path), sequence, reason)
            sequence_found, epoch_found, machine_version, payload_bytes = content
            if (sequence_found, epoch_found) != (sequence, epoch):
                return SnapshotDamage(str(path), sequence, "the file has a wrong name")
            payload = self._filesystem.read(descriptor, payload_bytes, start)
        finally:
            self._filesystem.close(descriptor)
        if len(payload) != payload_bytes or crc32c(payload) != payload_checksum:
            return SnapshotDamage(str(path), sequence, "the payload does not match its checksum")
        return Snapshot(sequence, epoch, machine_version, state_hash, payload)
