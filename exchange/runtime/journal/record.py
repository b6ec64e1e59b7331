"""One record of a journal: its bytes, and how they are checked.

CRC32C comes from `google-crc32c`: it is as fast as `crc32c` (0.2 µs for 1 KB, 2.5 µs for 64 KB),
is kept by Google for its own storage clients with Linux wheels for x86-64 and ARM, and its Apache
licence asks nothing of those who embed it.

Layout, little endian, 48 bytes and the payload:

    magic                4 bytes   EKJR
    version              u16       of this layout; the header is 48 bytes in every version
    reserved             u16       0
    machine              u64       `machine_identity` of the machine's name
    epoch                u64       of the writer
    sequence             u64       1, 2, 3, … without a gap
    previous checksum    u32       of the record before; 0 for the first
    payload length       u32       bytes
    header checksum      u32       CRC32C of the 40 bytes above
    checksum             u32       CRC32C of the 44 bytes above and the payload

The header has a checksum of its own so that the length can be trusted before the payload is read:
that is what tells a record cut short by a crash from a damaged one, whatever bytes its payload has.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import Enum

import google_crc32c

MAGIC = b"EKJR"
FORMAT_VERSION = 1
PAYLOAD_BYTES_MAX = 64 << 20
SEQUENCE_MAX = EPOCH_MAX = 2**64 - 1

_FIELDS = struct.Struct("<4sHHQQQII")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + 2 * _CHECKSUM.size
assert HEADER_BYTES == 48


@dataclass(frozen=True, slots=True)
class Record:
    """A verified record. The next one carries its `checksum` as the previous checksum."""

    epoch: int
    sequence: int
    payload: bytes
    previous_checksum: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a record before its payload, with its own checksum verified."""

    version: int
    machine: int
    epoch: int
    sequence: int
    previous_checksum: int
    payload_bytes: int
    checksum: int

    @property
    def record_bytes(self) -> int:
        """The length of the whole record."""
        return HEADER_BYTES + self.payload_bytes


class Fault(Enum):
    """Why bytes are not a record."""

    SHORT_HEADER = "the header is cut short"
    BAD_MAGIC = "there is no record here"
    BAD_HEADER = "the header does not match its checksum"
    SHORT_PAYLOAD = "the payload is cut short"
    BAD_PAYLOAD = "the record does not match its checksum"


class RecordInvalid(ValueError):
    """The bytes are not a whole, undamaged record; `fault` says why.

    `header` is what the header says if it was undamaged itself, else None.
    """

    def __init__(self, fault: Fault, header: Header | None = None) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.header = header


def crc32c(data: bytes, checksum_before: int = 0) -> int:
    """Return the CRC32C of `data`, continuing `checksum_before`."""
    checksum: int = google_crc32c.extend(checksum_before, data)
    return checksum


def machine_identity(machine_name: str) -> int:
    """Return the 64 bits that stand for a machine in its records."""
    digest = hashlib.blake2b(machine_name.encode(), digest_size=8, person=b"evenkeel.journal")
    return int.from_bytes(digest.digest(), "little")


def encode_header(machine: int, epoch: int, sequence: int, previous_checksum: int, payload: bytes) -> tuple[bytes, int]:
    """Return the header for `payload` and the record's checksum.

    The payload is not copied: write the header and it, one after the other.
    Raises `ValueError` if the payload is larger than `PAYLOAD_BYTES_MAX`.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"payload: expected at most {PAYLOAD_BYTES_MAX} bytes, was {len(payload)}")
    fields = _FIELDS.pack(MAGIC, FORMAT_VERSION, 0, machine, epoch, sequence, previous_checksum, len(payload))
    header_checksum = _CHECKSUM.pack(crc32c(fields))
    checksum = crc32c(payload, crc32c(fields + header_checksum))
    return fields + header_checksum + _CHECKSUM.pack(checksum), checksum


def encode(machine: int, epoch: int, sequence: int, previous_checksum: int, payload: bytes) -> bytes:
    """Return the whole record. `encode_header` saves the copy of the payload."""
    return encode_header(machine, epoch, sequence, previous_checksum, payload)[0] + payload


def decode_header(data: bytes, offset: int = 0) -> Header:
    """Read the header at `offset`. Raises `RecordInvalid` if it is cut short or damaged."""
    if len(data) - offset < HEADER_BYTES:
        raise RecordInvalid(Fault.SHORT_HEADER)
    magic, version, _, machine, epoch, sequence, previous, length = _FIELDS.unpack_from(data, offset)
    if magic != MAGIC:
        raise RecordInvalid(Fault.BAD_MAGIC)
    end = offset + _FIELDS.size
    (header_checksum,) = _CHECKSUM.unpack_from(data, end)
    if crc32c(data[offset:end]) != header_checksum:
        raise RecordInvalid(Fault.BAD_HEADER)
    (checksum,) = _CHECKSUM.unpack_from(data, end + _CHECKSUM.size)
    return Header(version, machine, epoch, sequence, previous, length, checksum)


def decode_payload(header: Header, header_data: bytes, payload: bytes) -> Record:
    """Join a verified header, its 48 bytes and what follows them.

    Raises `RecordInvalid` if the payload is cut short or anything does not match the checksum.
    """
    if len(payload) < header.payload_bytes:
        raise RecordInvalid(Fault.SHORT_PAYLOAD, header)
    if crc32c(payload, crc32c(header_data[: -_CHECKSUM.size])) != header.checksum:
        raise RecordInvalid(Fault.BAD_PAYLOAD, header)
    return Record(header.epoch, header.sequence, payload, header.previous_checksum, header.checksum)


def decode(data: bytes, offset: int = 0) -> Record:
    """Read the record at `offset`. Raises `RecordInvalid` if it is cut short or damaged."""
    header = decode_header(data, offset)
    start = offset + HEADER_BYTES
    return decode_payload(header, data[offset:start], data[start : start + header.payload_bytes])
