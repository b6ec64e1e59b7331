"""One file of a journal: its header, the records in it, and what to make of bytes that are none.

A segment is named by the sequence of its first record. Its header, little endian, 44 bytes:

    magic                4 bytes   EKJS
    version              u16
    reserved             u16       0
    machine              u64       `machine_identity` of the machine's name
    first sequence       u64
    previous epoch       u64       of the last record of the segment before; 0 if there is none
    previous checksum    u32       the same record's
    reserved             u32       0
    checksum             u32       CRC32C of the 40 bytes above

It is written aside and renamed, so a segment with a bad header was never a torn one. It carries
the end of the segment before, so the chain holds and the position is known once that is trimmed.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from exchange.runtime.journal.filesystem import Filesystem, write_aside
from exchange.runtime.journal.interface import JournalCorrupt
from exchange.runtime.journal.record import (
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    PAYLOAD_BYTES_MAX,
    Header,
    Record,
    RecordInvalid,
    crc32c,
    decode_header,
    decode_payload,
)

SEGMENT_MAGIC = b"EKJS"
_FIELDS = struct.Struct("<4sHHQQQII")
_CHECKSUM = struct.Struct("<I")
SEGMENT_HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
_WINDOW_BYTES = 1 << 20
_NAME = re.compile(r"(\d{20})\.journal")


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records: where the next one starts, and what the one before was."""

    segment: int
    offset: int
    sequence: int
    epoch: int
    checksum: int


def segment_path(directory: Path, first_sequence: int) -> Path:
    """Return the path of the segment that starts with the record `first_sequence`."""
    return directory / f"{first_sequence:020d}.journal"


def list_segments(filesystem: Filesystem, directory: Path) -> list[int]:
    """Return the first sequences of the segments, oldest first."""
    matches = (_NAME.fullmatch(name) for name in filesystem.list_directory(directory))
    return [int(match[1]) for match in matches if match]


def create_segment(filesystem: Filesystem, directory: Path, machine: int, after: Position) -> Position:
    """Make the empty segment that goes on after `after`; durable on return. Raises `OSError`."""
    first_sequence = after.sequence + 1
    fields = _FIELDS.pack(SEGMENT_MAGIC, FORMAT_VERSION, 0, machine, first_sequence, after.epoch, after.checksum, 0)
    header = fields + _CHECKSUM.pack(crc32c(fields))
    write_aside(filesystem, segment_path(directory, first_sequence), [header])
    return Position(first_sequence, SEGMENT_HEADER_BYTES, after.sequence, after.epoch, after.checksum)


class SegmentReader:
    """Reads the records of one segment in order, through a window of 1 MiB."""

    def __init__(
        self,
        filesystem: Filesystem,
        descriptor: int,
        path: Path,
        machine: int,
        first_sequence: int,
    ) -> None:
        self._filesystem = filesystem
        self._descriptor = descriptor
        self._path = path
        self._machine = machine
        self._first_sequence = first_sequence
        self._window = b""
        self._window_offset = 0

    @classmethod
    def open(cls, filesystem: Filesystem, directory: Path, machine: int, first_sequence: int) -> SegmentReader:
        """Open the segment's file; `close` it after. Raises `OSError`."""
        path = segment_path(directory, first_sequence)
        descriptor = filesystem.open_for_reading(path)
        return cls(filesystem, descriptor, path, machine, first_sequence)

    def close(self) -> None:
        """Close the file."""
        self._filesystem.close(self._descriptor)

    def start(self) -> Position:
        """Verify the header and return the position of the first record."""
        data = self._filesystem.read(self._descriptor, SEGMENT_HEADER_BYTES, 0)
        fields, checksum = data[: _FIELDS.size], data[_FIELDS.size :]
        if len(data) < SEGMENT_HEADER_BYTES or checksum != _CHECKSUM.pack(crc32c(fields)):
            raise self.corrupt("the segment's header is damaged", 0, self._first_sequence)
        magic, version, _, machine, first, epoch, previous, _ = _FIELDS.unpack(fields)
        if magic != SEGMENT_MAGIC:
            raise self.corrupt("this is not a journal segment", 0, self._first_sequence)
        self._check_origin(version, machine, 0)
        if first != self._first_sequence:
            raise self.corrupt("the file has a wrong name", 0, self._first_sequence, first)
        return Position(first, SEGMENT_HEADER_BYTES, first - 1, epoch, previous)

    def start_after(self, before: Position) -> Position:
        """`start`, verifying that this segment goes on where `before` ended."""
        start = self.start()
        if start.sequence != before.sequence:
            raise self.corrupt(
                "records are missing between this segment and the one before",
                0,
                before.sequence + 1,
                self._first_sequence,
            )
        if (start.epoch, start.checksum) != (before.epoch, before.checksum):
            raise self.corrupt("the segment does not go on from the record before it", 0, self._first_sequence)
        return start

    def read_next(self, at: Position) -> tuple[Record, Position] | None:
        """Return the record at `at` and the position after it; None at the end of the file.

        Raises `RecordInvalid` if the bytes are not a whole record, and `JournalCorrupt` if they
        are one that has no place here.
        """
        header_data = self._bytes(at.offset, HEADER_BYTES)
        if not header_data:
            return None
        header = decode_header(header_data)
        self._check_fits(header, at)
        payload = self._bytes(at.offset + HEADER_BYTES, header.payload_bytes)
        record = decode_payload(header, header_data, payload)
        after = Position(
            at.segment,
            at.offset + header.record_bytes,
            record.sequence,
            record.epoch,
            record.checksum,
        )
        return record, after

    def read_or_judge(self, at: Position, *, is_last: bool) -> tuple[Record, Position] | RecordInvalid | None:
        """`read_next`, but what is not a record is returned if it is a torn tail.

        Raises `JournalCorrupt` if it is damage inside the log.
        """
        try:
            return self.read_next(at)
        except RecordInvalid as invalid:
            later = self._find_later_record(at, invalid) if is_last else None
            if is_last and later is None:
                return invalid
        # Another process may have been writing the record while it was read: look once more.
        self._window = b""
        try:
            return self.read_next(at)
        except RecordInvalid as invalid:
            follows = "a later segment" if later is None else f"another record at byte {later}"
            raise self.corrupt(f"{invalid.fault.value}, and {follows} follows", at.offset, at.sequence + 1) from invalid

    def corrupt(self, reason: str, offset: int, expected: int | None, found: int | None = None) -> JournalCorrupt:
        """Return the error for damage at `offset` of this segment."""
        return JournalCorrupt(
            reason,
            file=str(self._path),
            offset=offset,
            sequence_expected=expected,
            sequence_found=found,
        )

    def _find_later_record(self, at: Position, invalid: RecordInvalid) -> int | None:
        """Return the offset of a record that was written after the invalid one at `at`, if any.

        Its header is proof enough: a record is written only once the one before it is durable,
        so something after `at` means that the record at `at` was acknowledged. Where the invalid
        record's own header is sound, its payload is skipped, so that bytes which look like a
        record inside the payload of a torn one prove nothing.
        """
        offset = at.offset + (invalid.header.record_bytes if invalid.header else 1)
        overlap = HEADER_BYTES - 1
        while len(data := self._filesystem.read(self._descriptor, _WINDOW_BYTES, offset)) > overlap:
            found = data.find(MAGIC)
            while 0 <= found < len(data) - overlap:
                if self._is_later_header(data, found, at.sequence):
                    return offset + found
                found = data.find(MAGIC, found + 1)
            offset += len(data) - overlap
        return None

    def _bytes(self, offset: int, size: int) -> bytes:
        start = offset - self._window_offset
        if not 0 <= start <= start + size <= len(self._window):
            self._window = self._filesystem.read(self._descriptor, max(size, _WINDOW_BYTES), offset)
            self._window_offset = offset
            start = 0
        return self._window[start : start + size]

    def _check_origin(self, version: int, machine: int, offset: int) -> None:
        if version != FORMAT_VERSION:
            raise JournalCorrupt(
                f"expected format version {FORMAT_VERSION}, found {version}",
                file=str(self._path),
                offset=offset,
                remedy="read it with the release that wrote it",
            )
        if machine != self._machine:
            raise JournalCorrupt(
                f"expected machine {self._machine:016x}, found {machine:016x}",
                file=str(self._path),
                offset=offset,
                remedy="check that the journal's directory is the right one for this machine",
            )

    def _check_fits(self, header: Header, at: Position) -> None:
        self._check_origin(header.version, header.machine, at.offset)
        reason = None
        if header.sequence != at.sequence + 1:
            reason = "the sequence has a gap or goes back"
        elif header.previous_checksum != at.checksum:
            reason = "the record does not go on from the one before it"
        elif header.epoch < at.epoch:
            reason = f"the epoch goes back from {at.epoch} to {header.epoch}"
        elif header.payload_bytes > PAYLOAD_BYTES_MAX:
            reason = f"the payload has {header.payload_bytes} bytes, over the limit"
        if reason:
            raise self.corrupt(reason, at.offset, at.sequence + 1, header.sequence)

    def _is_later_header(self, data: bytes, offset: int, sequence: int) -> bool:
        try:
            header = decode_header(data, offset)
        except RecordInvalid:
            return False
        return header.machine == self._machine and header.sequence > sequence
