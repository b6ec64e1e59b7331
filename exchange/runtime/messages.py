"""What links send to a host and get back, and what a record of the journal holds.

All of it travels packed (MessagePack); rows become these named tuples on arrival.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import msgpack


class SegmentKind(IntEnum):
    TRADE = 0
    """`data` is a client's TradeRequest as it came."""
    ROWS = 1
    """`data` is packed rows of commands: (number of the command's class, its fields)."""
    LATE = 2
    """Was past its deadline before the journal: `data` are no rows, and the answer says so, whenever it is made."""
    SHED = 3
    """Would have waited longer than its class may; else as `LATE`."""


class Segment(NamedTuple):
    """Commands that came together and are answered together.

    `session` is the stream that its orders live and die with (0: none), `remaining_ms` how long it may still wait for
    the journal.
    """

    kind: int
    account: int
    session: int
    remaining_ms: int
    data: bytes


class LinkBatch(NamedTuple):
    """What a link sends: number `n` of this incarnation of the link. Sent again after a failure, it is the same.

    What is of no use later is not journaled: `sent_s` is what the link's monotonic clock showed (0: it does not say),
    `work` the class of each segment and how many commands it has, if the link knows.
    """

    link: str
    incarnation: int
    n: int
    segments: list[Segment]
    sent_s: float = 0.0
    work: tuple[tuple[int, int], ...] = ()


class ReplyStatus(IntEnum):
    DONE = 0
    """Durable and applied; `data` are the results."""
    REFUSED = 1
    """Surely not executed; `reason` is a RejectReason."""
    UNKNOWN = 2
    """May or may not have been executed; ask again with the same stamp."""
    PARKED = 3
    """As `DONE`, but what became of some commands is told by events: their results say PENDING_FUNDS."""


class SegmentReply(NamedTuple):
    """`retry_after_ms` and `shed` are for what a gateway refuses: when to come back, and why (a `ShedReason`)."""

    status: int
    reason: int
    data: bytes
    detail: str = ""
    retry_after_ms: int = 0
    shed: str = ""


class HostLoad(NamedTuple):
    """What a host tells with its replies: how long its work took with all that was before it, without the journal, and
    how many commands it could do in a second (0: not known)."""

    delay_ms: float
    capacity_per_s: float


class RecordPayload(NamedTuple):
    """A record of the journal: the time that its commands are applied at, and the batches in order."""

    time_ns: int
    batches: list[LinkBatch]


_BIG_INTEGER = 1


def pack(value: Any) -> bytes:
    """Return plain values packed. Integers may be of any size."""
    data: bytes = msgpack.packb(value, default=_pack_integer)
    return data


def unpack(data: bytes) -> Any:
    """Return what was packed, sequences as tuples."""
    return msgpack.unpackb(data, use_list=False, ext_hook=_unpack_integer)


def _pack_integer(value: Any) -> msgpack.ExtType:
    """Pack what MessagePack cannot: an integer of more than 64 bits, as an amount may be."""
    if not isinstance(value, int):
        raise TypeError(f"expected plain values, was {type(value).__name__}")
    return msgpack.ExtType(_BIG_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _unpack_integer(code: int, data: bytes) -> int:
    if code != _BIG_INTEGER:
        raise ValueError(f"expected extension {_BIG_INTEGER}, was {code}")
    return int.from_bytes(data, "big", signed=True)


def unpack_batch(row: Any) -> LinkBatch:
    link, incarnation, n, segments, *rest = row
    return LinkBatch(link, incarnation, n, [Segment(*segment) for segment in segments], *rest)


def pack_record(payload: RecordPayload) -> bytes:
    """Return what is journaled."""
    time_ns, batches = payload
    return pack((time_ns, [(batch.link, batch.incarnation, batch.n, batch.segments) for batch in batches]))


def unpack_record(data: bytes) -> RecordPayload:
    time_ns, batches = unpack(data)
    return RecordPayload(time_ns, [unpack_batch(row) for row in batches])


def with_load(replies: bytes, load: HostLoad) -> bytes:
    """Return packed replies with what the host tells of itself behind them."""
    return replies + pack(load)


def unpack_replies(data: bytes) -> list[SegmentReply]:
    """Return the replies to a batch's segments, whatever comes with them."""
    return unpack_answer(data)[0]


def unpack_answer(data: bytes) -> tuple[list[SegmentReply], HostLoad | None]:
    """Return the replies, and what the host tells of itself if it does."""
    unpacker = msgpack.Unpacker(use_list=False, ext_hook=_unpack_integer, max_buffer_size=len(data))
    unpacker.feed(data)
    replies, *load = unpacker
    return [SegmentReply(*row) for row in replies], HostLoad(*load[0]) if load else None
