"""Copies a `nats` journal's stream while it runs, message by message, and reads the copy by its description alone.

A stream holds records and fences; a fence's place in the stream is the epoch of the records behind it. The copy is a
file of messages: stream sequence u64, is a fence u8, length u32, then the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chaos.invariants.findings import Findings
from chaos.invariants.journal_file import RawRecord, crc32c, identity_of, record_at

COPY_FILE = "stream.copy"
_MESSAGE = struct.Struct("<QBI")
_FENCE = struct.Struct("<4sHHQQQ16sII")


class Message(NamedTuple):
    sequence: int
    is_fence: bool
    data: bytes


class StreamCopy:
    """The copy of one stream; `last` is the stream sequence that it has all up to."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / COPY_FILE).open("ab")
        self.last = 0

    def add(self, message: Message) -> None:
        self._file.write(_MESSAGE.pack(message.sequence, message.is_fence, len(message.data)) + message.data)
        self.last = message.sequence

    def close(self) -> None:
        self._file.close()


def read_copy(directory: Path) -> Iterator[Message]:
    data = (directory / COPY_FILE).read_bytes()
    offset = 0
    while offset < len(data):
        sequence, is_fence, length = _MESSAGE.unpack_from(data, offset)
        offset += _MESSAGE.size
        yield Message(sequence, bool(is_fence), data[offset : offset + length])
        offset += length


def read_stream_journal(directory: Path, machine: str, findings: Findings) -> Iterator[RawRecord]:
    """Yield all records from the first on; what is wrong goes to `findings`, and damage ends the reading."""
    identity = identity_of(machine)
    place = fences = epoch = checksum = records = 0
    for message in read_copy(directory):
        where = f"message {message.sequence} of the stream of {machine}"
        if message.sequence != place + 1:
            findings.violate("I7", f"{where}: follows on message {place}")
            return
        place = message.sequence
        if message.is_fence:
            fence = _fence_of(message.data)
            if fence != (identity, fences + 1, epoch):
                findings.violate("I7", f"{where}: expected fence {fences + 1} after {epoch}, found {fence}")
                return
            fences, epoch = fences + 1, place
            findings.check("I7 fences")
            continue
        record = record_at(message.data, 0)
        if record is None:
            findings.violate("I7", f"{where}: no whole record")
            return
        owner, found_epoch, sequence, before, found_checksum, payload = record
        if (owner, sequence, before) != (identity, records + 1, checksum):
            found = f"found {sequence} after {before:08x}"
            findings.violate("I7", f"{where}: expected record {records + 1} after {checksum:08x}, {found}")
            return
        if found_epoch != epoch:
            findings.violate("I7", f"{where}: record {sequence} is of epoch {found_epoch}, and stands behind {epoch}")
        records, checksum = sequence, found_checksum
        yield RawRecord(found_epoch, sequence, payload, where)


def _fence_of(data: bytes) -> tuple[int, int, int] | None:
    """Return a fence's machine, ordinal and previous epoch; None if it is damaged."""
    if len(data) != _FENCE.size:
        return None
    magic, _, _, owner, ordinal, previous, _, _, checksum = _FENCE.unpack(data)
    return (owner, ordinal, previous) if magic == b"EKJF" and crc32c(data[:52]) == checksum else None
