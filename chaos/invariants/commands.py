"""What a record's bytes say, read a second time: the engine's own decoding is one of the things that are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
from google.protobuf.message import DecodeError

from exchange.v1 import trading_pb2

TRADE, ROWS, LATE = 0, 1, 2


class Place(NamedTuple):
    account: int
    id: str
    instrument: str
    side: int
    type: int
    time_in_force: int
    price: int
    quantity: int
    post_only: bool
    prevention: int
    expire_time_ns: int


class Cancel(NamedTuple):
    account: int
    id: str
    instrument: str
    order_id: int


class Amend(NamedTuple):
    account: int
    id: str
    instrument: str
    order_id: int
    price: int
    quantity: int
    open_quantity: int
    requeue: bool
    cancel_on_fail: bool


class CancelAll(NamedTuple):
    account: int
    instrument: str
    side: int
    reason: int = 1


class Other(NamedTuple):
    """A command of the exchange's own, or of another machine: its number in the machine's table, and its fields."""

    number: int
    fields: tuple[Any, ...]


Command = Place | Cancel | Amend | CancelAll | Other


class Batch(NamedTuple):
    """What one link sent, stamped; `segments` of it are commands that came together."""

    link: str
    incarnation: int
    n: int
    segments: Sequence[tuple[int, int, int, int, bytes]]


def read_record(payload: bytes) -> tuple[int, list[Batch]]:
    """Return a record's time and its batches."""
    time_ns, batches = unpack(payload)
    return time_ns, [Batch(*batch) for batch in batches]


def read_segment(segment: tuple[int, int, int, int, bytes], *, of_shard: bool) -> list[Command]:
    """Return a segment's commands; none if it is one that came too late or cannot be read."""
    kind, account, _, _, data = segment
    if kind == ROWS:
        rows = [Other(number, tuple(fields)) for number, *fields in unpack(data)]
        return [_of_row(row) for row in rows] if of_shard else list(rows)
    if kind != TRADE:
        return []
    try:
        request = trading_pb2.TradeRequest.FromString(data)
    except DecodeError:
        return []
    return [command_of(message, message.on_behalf_of or account) for message in request.commands]


def command_of(message: trading_pb2.Command, account: int) -> Command:
    """Return a client's command."""
    match message.WhichOneof("command"):
        case "place":
            return place_of(message.place, account)
        case "cancel":
            c = message.cancel
            return Cancel(account, c.client_order_id, c.instrument, c.order_id)
        case "amend":
            a = message.amend
            sizes = a.price, a.quantity, a.open_quantity, a.requeue, a.cancel_on_fail
            return Amend(account, a.client_order_id, a.instrument, a.order_id, *sizes)
        case "cancel_all":
            return CancelAll(account, message.cancel_all.instrument, message.cancel_all.side)
        case _:
            return Cancel(account, "", "", 0)


def place_of(p: trading_pb2.PlaceOrderRequest, account: int) -> Place:
    return Place(
        account,
        p.client_order_id,
        p.instrument,
        p.side,
        p.type,
        p.time_in_force,
        p.price,
        p.quantity,
        p.post_only,
        p.self_trade_prevention,
        p.expire_time_ns,
    )


def _of_row(row: Other) -> Command:
    """Return a shard's command of a row: the number is its place in the table that the journal's format fixes."""
    f = row.fields
    match row.number:
        case 0:
            return Place(*f[:11])
        case 1:
            account, instrument, name, *rest = f
            return Amend(account, name, instrument, *rest)
        case 2:
            account, instrument, name, order_id = f
            return Cancel(account, name, instrument, order_id)
        case 3:
            return CancelAll(*f)
        case _:
            return row


def unpack(data: bytes) -> Any:
    """Return what was packed; lists as tuples."""
    return msgpack.unpackb(data, use_list=False, ext_hook=_integer_of)


def _integer_of(code: int, data: bytes) -> int:
    assert code == 1, code
    return int.from_bytes(data, "big", signed=True)
