"""Reads a `file` journal by its description alone; nothing of `exchange.runtime.journal` is used.

A journal is a directory of segments, each named by its first sequence: a header of 44 bytes, then records of 48 bytes
and a payload. Every checksum, the chain of them, the sequences and the epochs are verified.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from chaos.invariants.findings import Findings

_SEGMENT = struct.Struct("<4sHHQQQIII")
_RECORD = struct.Struct("<4sHHQQQIIII")
_RECORD_SUMMED, _RECORD_HEADER_SUMMED = 44, 40


class RawRecord(NamedTuple):
    """One record as it lies in the journal; `place` says where, for people."""

    epoch: int
    sequence: int
    payload: bytes
    place: str


def identity_of(machine: str) -> int:
    """Return the number that a machine's records carry."""
    digest = hashlib.blake2b(machine.encode(), digest_size=8, person=b"evenkeel.journal").digest()
    return int.from_bytes(digest, "little")


def crc32c(data: bytes) -> int:
    checksum: int = google_crc32c.value(data)
    return checksum


def read_file_journal(directory: Path, machine: str, findings: Findings) -> Iterator[RawRecord]:
    """Yield all records from the first on; what is wrong goes to `findings`, and damage ends the reading.

    Bytes behind the last record are a torn tail, if no record is behind them: one is written only once the one before
    it is durable.
    """
    identity = identity_of(machine)
    segments = sorted(directory.glob("*.journal"))
    epoch = checksum = 0
    sequence = 0
    for number, path in enumerate(segments):
        data = path.read_bytes()
        where = f"{path.name} of {machine}"
        if len(data) < _SEGMENT.size:
            findings.violate("I7", f"{where}: expected a segment header, found {len(data)} bytes")
            return
        magic, _, _, owner, first, epoch_before, checksum_before, _, header_checksum = _SEGMENT.unpack_from(data)
        if magic != b"EKJS" or crc32c(data[:40]) != header_checksum or owner != identity or first != int(path.stem):
            findings.violate("I7", f"{where}: the segment's header is damaged, or is of another journal")
            return
        if number == 0 and first != 1:
            findings.violate("I7", f"{where}: the history starts at record {first}, expected 1")
        elif first != sequence + 1 or (number and (epoch_before, checksum_before) != (epoch, checksum)):
            findings.violate("I7", f"{where}: expected to go on after record {sequence}, starts with {first}")
            return
        sequence, epoch, checksum = first - 1, epoch_before, checksum_before
        offset = _SEGMENT.size
        while offset < len(data):
            place = f"{where} at byte {offset}"
            record = record_at(data, offset)
            if record is None:
                if number < len(segments) - 1 or _has_header(data, offset + 1, identity):
                    findings.violate("I7", f"{place}: no whole record after record {sequence}, and later ones follow")
                    return
                findings.notes.append(f"{place}: a torn tail of {len(data) - offset} bytes after record {sequence}")
                return
            found_owner, found_epoch, found_sequence, before, found_checksum, payload = record
            if (found_owner, found_sequence, before) != (identity, sequence + 1, checksum):
                findings.violate(
                    "I7",
                    f"{place}: expected record {sequence + 1} after {checksum:08x}, found {found_sequence} "
                    f"after {before:08x}",
                )
                return
            if found_epoch < epoch:
                findings.violate("I7", f"{place}: record {found_sequence} is of epoch {found_epoch}, after {epoch}")
            sequence, epoch, checksum = found_sequence, found_epoch, found_checksum
            yield RawRecord(epoch, sequence, payload, place)
            offset += _RECORD.size + len(payload)


def _has_header(data: bytes, offset: int, identity: int) -> bool:
    """Whether a record of this machine begins anywhere from there on."""
    while (offset := data.find(b"EKJR", offset)) >= 0 and len(data) - offset >= _RECORD.size:
        fields = _RECORD.unpack_from(data, offset)
        if fields[3] == identity and crc32c(data[offset : offset + _RECORD_HEADER_SUMMED]) == fields[8]:
            return True
        offset += 1
    return False


def record_at(data: bytes, offset: int) -> tuple[int, int, int, int, int, bytes] | None:
    """Return (machine, epoch, sequence, previous checksum, checksum, payload); None if there is no whole record."""
    if len(data) - offset < _RECORD.size:
        return None
    fields = _RECORD.unpack_from(data, offset)
    magic, _, _, owner, epoch, sequence, before, length, header_checksum, checksum = fields
    header = data[offset : offset + _RECORD_SUMMED]
    payload = data[offset + _RECORD.size : offset + _RECORD.size + length]
    if magic != b"EKJR" or crc32c(header[:_RECORD_HEADER_SUMMED]) != header_checksum or len(payload) < length:
        return None
    return (owner, epoch, sequence, before, checksum, payload) if crc32c(header + payload) == checksum else None
