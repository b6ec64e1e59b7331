"""The fence record: who takes a `nats` journal over writes one, and its place in the stream is the epoch.

Layout, little endian, 56 bytes:

    magic                4 bytes   EKJF
    version              u16
    reserved             u16       0
    machine              u64       `machine_identity` of the machine's name
    ordinal              u64       1, 2, 3, … of the fences of this journal, without a gap
    previous             u64       the stream sequence of the fence before; 0 if there was none
    holder               16 bytes  random, of who took over: so it knows its own again after no answer
    reserved             u32       0
    checksum             u32       CRC32C of the 52 bytes above

A stream holds nothing but records and fences, and a refused message takes no place in it. So the record `n` behind the
fence with ordinal `k` is the message `n + k`, and the last record before that fence is the fence's own place minus `k`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from exchange.runtime.journal.record import FORMAT_VERSION, crc32c

_MAGIC = b"EKJF"
_FIELDS = struct.Struct("<4sHHQQQ16sI")
_CHECKSUM = struct.Struct("<I")
FENCE_BYTES = _FIELDS.size + _CHECKSUM.size
HOLDER_BYTES = 16
assert FENCE_BYTES == 56


class FenceInvalid(ValueError):
    """The bytes are not an undamaged fence of this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A verified fence. `epoch` is its stream sequence; records behind it carry it."""

    epoch: int
    ordinal: int
    previous_epoch: int
    holder: bytes

    @property
    def last_record(self) -> int:
        """The last record before it."""
        return self.epoch - self.ordinal


BEFORE_ALL = Fence(epoch=0, ordinal=0, previous_epoch=0, holder=bytes(HOLDER_BYTES))


def encode_fence(machine: int, ordinal: int, previous_epoch: int, holder: bytes) -> bytes:
    """Return the bytes of a fence."""
    fields = _FIELDS.pack(_MAGIC, FORMAT_VERSION, 0, machine, ordinal, previous_epoch, holder, 0)
    return fields + _CHECKSUM.pack(crc32c(fields))


def decode_fence(machine: int, epoch: int, data: bytes) -> Fence:
    """Read the fence that is the message `epoch` of the stream. Raises `FenceInvalid`."""
    if len(data) != FENCE_BYTES:
        raise FenceInvalid(f"expected a fence of {FENCE_BYTES} bytes, found {len(data)} bytes")
    fields, checksum = data[: _FIELDS.size], data[_FIELDS.size :]
    if checksum != _CHECKSUM.pack(crc32c(fields)):
        raise FenceInvalid("the fence does not match its checksum")
    magic, version, _, machine_found, ordinal, previous_epoch, holder, _ = _FIELDS.unpack(fields)
    if magic != _MAGIC or version != FORMAT_VERSION:
        raise FenceInvalid(f"expected a fence of version {FORMAT_VERSION}, found {magic!r} of version {version}")
    if machine_found != machine:
        raise FenceInvalid(f"expected machine {machine:016x}, found {machine_found:016x}")
    if not previous_epoch < epoch or not 0 < ordinal <= epoch:
        raise FenceInvalid(f"expected a fence for its place, found ordinal {ordinal} after {previous_epoch}")
    return Fence(epoch, ordinal, previous_epoch, holder)
