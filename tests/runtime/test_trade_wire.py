"""Requests read and answers written byte by byte: what protobuf makes of the same bytes, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AmendOrder, CancelAll, CancelOrder, PlaceOrder
from exchange.engine.events import Result
from exchange.gateway import requests
from exchange.gateway.requests import Needs, RequestInvalid, needs_of
from exchange.runtime import codec
from exchange.runtime.codec import decode_trade
from exchange.runtime.messages import Segment, SegmentKind
from exchange.runtime.trade_wire import read_commands, survey, write_results
from exchange.v1 import trading_pb2, types_pb2

ACCOUNT, SESSION = 7, 70

_integers = st.sampled_from([0, 1, 127, 128, 1 << 31, 1 << 40, (1 << 63) - 1, -1])
_small = st.sampled_from([0, 1, 2, 3, 127, 128, (1 << 31) - 1])
_names = st.sampled_from(["", "a", "B-1", "n" * 36, "n" * 300, "\u00e9"])
_place = st.fixed_dictionaries(
    {},
    optional={
        "client_order_id": _names,
        "instrument": _names,
        "side": st.sampled_from([0, 1, 2, -1]),
        "type": _small,
        "time_in_force": _small,
        "price": _integers,
        "quantity": _integers,
        "post_only": st.booleans(),
        "self_trade_prevention": _small,
        "expire_time_ns": _integers,
        "queue_for_ms": _small,
    },
)
_named = {"instrument": _names, "client_order_id": _names, "order_id": st.integers(0, 1 << 40)}
_cancel = st.fixed_dictionaries({}, optional=_named)
_amend = st.fixed_dictionaries(
    {}, optional={**_named, "price": _integers, "quantity": _integers, "requeue": st.booleans()}
)
_cancel_all = st.fixed_dictionaries({}, optional={"instrument": _names, "side": _small})


@st.composite
def _commands(draw: st.DrawFn) -> list[trading_pb2.Command]:
    """Commands of which many set the same fields, and some do not."""
    shapes = draw(st.lists(st.sampled_from(["place", "place", "cancel", "amend", "cancel_all", ""]), max_size=12))
    alike = {
        "place": draw(_place),
        "cancel": draw(_cancel),
        "amend": draw(_amend),
        "cancel_all": draw(_cancel_all),
    }
    others = {"place": _place, "cancel": _cancel, "amend": _amend, "cancel_all": _cancel_all}
    owner = draw(st.sampled_from([0, 0, 5]))
    commands = []
    for shape in shapes:
        fields: Any = alike[shape] if shape and draw(st.integers(0, 9)) else draw(others[shape]) if shape else {}
        message = trading_pb2.Command(on_behalf_of=owner if draw(st.integers(0, 9)) else 9)
        if shape:
            getattr(message, shape).SetInParent()
            getattr(message, shape).MergeFrom(type(getattr(message, shape))(**fields))
        commands.append(message)
    return commands


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    request = trading_pb2.TradeRequest(
        request_id=draw(st.sampled_from([0, 1, 300, (1 << 64) - 1])),
        commands=draw(_commands()),
        cancel_on_disconnect=draw(st.booleans()),
        deadline_ms=draw(st.sampled_from([0, 9, 5_000, (1 << 32) - 1])),
    )
    return request.SerializeToString()


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A request of which some bytes are others, or gone, or there twice."""
    data = bytearray(draw(_requests()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert", "twice", "end"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 4))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "twice":
                data[at:at] = data[at : at + draw(st.integers(1, 12))]
            case _:
                del data[at:]
    return bytes(data)


def _segment(data: bytes) -> Segment:
    return Segment(int(SegmentKind.TRADE), ACCOUNT, SESSION, 1_000, data)


def _commands_by_protobuf(data: bytes) -> list[Any]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(codec, "read_commands", lambda *_: None)
        return decode_trade(_segment(data))


def _needs_by_protobuf(data: bytes) -> Needs:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(requests, "survey", lambda *_: None)
        return needs_of(data)


@settings(deadline=None)
@given(data=_requests())
def test_what_is_read_is_what_protobuf_reads(data: bytes) -> None:
    assert decode_trade(_segment(data)) == _commands_by_protobuf(data)
    assert needs_of(data) == _needs_by_protobuf(data)


@settings(deadline=None, max_examples=1_000)
@given(data=st.one_of(_damaged(), _damaged(), st.binary(max_size=40)))
def test_damage_is_left_to_protobuf_or_means_the_same(data: bytes) -> None:
    read, seen = read_commands(data, ACCOUNT, SESSION), survey(data)
    assert (read is None) == (seen is None)
    try:
        trading_pb2.TradeRequest.FromString(data)
    except DecodeError:
        assert read is None
        assert decode_trade(_segment(data)) == []
        with pytest.raises(RequestInvalid):
            needs_of(data)
    else:
        assert decode_trade(_segment(data)) == _commands_by_protobuf(data)
        assert needs_of(data) == _needs_by_protobuf(data)


def test_every_cut_of_a_request_is_left_to_protobuf_or_means_the_same() -> None:
    data = _request(*(_order(number) for number in range(3)), *_others(1))
    for end in range(len(data)):
        cut = data[:end]
        assert decode_trade(_segment(cut)) == _commands_by_protobuf(cut)


def _request(*commands: trading_pb2.Command) -> bytes:
    return trading_pb2.TradeRequest(request_id=1, commands=commands, deadline_ms=800).SerializeToString()


def _order(number: int, **fields: Any) -> trading_pb2.Command:
    order: dict[str, Any] = {
        "instrument": "BTC-USDT",
        "client_order_id": f"o{number}",
        "side": types_pb2.SIDE_BUY,
        "type": types_pb2.ORDER_TYPE_LIMIT,
        "price": 100 + number,
        "quantity": 1 + number,
    }
    return trading_pb2.Command(place=trading_pb2.PlaceOrderRequest(**{**order, **fields}))


def _others(number: int) -> tuple[trading_pb2.Command, ...]:
    cancel = trading_pb2.CancelOrderRequest(instrument="ETH-USDT", client_order_id=f"c{number}")
    amend = trading_pb2.AmendOrderRequest(instrument="BTC-USDT", order_id=number + 1, quantity=5)
    cancel_all = trading_pb2.CancelAllOrdersRequest(instrument="BTC-USDT", side=types_pb2.SIDE_SELL)
    return (
        trading_pb2.Command(cancel=cancel),
        trading_pb2.Command(amend=amend, on_behalf_of=9),
        trading_pb2.Command(cancel_all=cancel_all),
    )


def test_what_a_serializer_writes_is_read_without_protobuf() -> None:
    data = _request(*(command for number in range(20) for command in (_order(number), *_others(number))))
    commands = read_commands(data, ACCOUNT, SESSION)
    assert commands is not None
    assert commands[4:8] == [
        PlaceOrder(ACCOUNT, "o1", "BTC-USDT", 1, 1, 0, 101, 2, session=SESSION),
        CancelOrder(ACCOUNT, "ETH-USDT", "c1"),
        AmendOrder(9, "BTC-USDT", "", 2, 0, 5),
        CancelAll(ACCOUNT, "BTC-USDT", 2),
    ]
    assert [type(command) for command in commands] == [PlaceOrder, CancelOrder, AmendOrder, CancelAll] * 20
    assert survey(data) == (40, 40, 800, {"BTC-USDT", "ETH-USDT"}, True, False, False)


def test_orders_of_one_instrument_share_its_name() -> None:
    commands = read_commands(_request(_order(1), _order(2)), ACCOUNT, SESSION)
    assert commands is not None
    names = [command.instrument for command in commands if isinstance(command, PlaceOrder)]
    assert names[0] is names[1]


def _packed(body: bytes, rest: bytes = b"") -> bytes:
    command = b"\x0a" + bytes([len(body)]) + body + rest
    return b"\x12" + bytes([len(command)]) + command


_NAMED = b"\x0a\x01B\x12\x01o"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_packed(_NAMED + b"\x0a\x01C"), "a field that comes twice"),
        (_packed(b"\x12\x01o\x0a\x01B"), "fields out of order"),
        (_packed(_NAMED + b"\x60\x01"), "a field that orders do not have"),
        (_packed(_NAMED + b"\x1a\x01\x01"), "a number that comes as text"),
        (_packed(b"\x08\x01"), "a text that comes as a number"),
        (_packed(b"\x0a\x02\xc3\xa9"), "a name beyond ASCII"),
        (_packed(_NAMED + b"\x30" + b"\xff" * 9 + b"\x01"), "a number below 0"),
        (_packed(_NAMED + b"\x18\x80\x80\x80\x80\x10"), "an enumeration beyond 32 bits"),
        (_packed(_NAMED, b"\x0a\x03\x0a\x01C"), "a body in two parts"),
        (_packed(_NAMED, b"\x1a\x03\x0a\x01C"), "two commands in one"),
        (b"\x12\x02\x78\x05", "no command at all"),
        (b"\x12\x00", "an empty command"),
        (b"\x2a\x01x", "a field that requests do not have"),
        (b"\x13\x14", "a group"),
        (_packed(_NAMED)[:-1], "a request cut off"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "a length beyond all bounds"),
    ],
)
def test_what_no_serializer_writes_is_left_to_protobuf(data: bytes, why: str) -> None:
    assert read_commands(data, ACCOUNT, SESSION) is None, why
    assert survey(data) is None, why
    assert decode_trade(_segment(data)) == _commands_by_protobuf(data)


_results = st.builds(
    Result,
    sequence=st.integers(0, (1 << 63) - 1),
    client_order_id=st.sampled_from(["", "a", "n" * 36, "n" * 70, "n" * 100, "n" * 127, "n" * 20_000, "\u00e9"]),
    order_id=_integers.filter(lambda value: value >= 0),
    status=st.integers(0, 7),
    filled=_integers.filter(lambda value: value >= 0),
    open=_integers.filter(lambda value: value >= 0),
    reject_reason=st.sampled_from([0, 1, 127, 128, 506]),
    close_reason=st.integers(0, 9),
    duplicate=st.booleans(),
    cancelled_orders=st.sampled_from([0, 1, 128, 1_000_000]),
)


@settings(deadline=None)
@given(request_id=st.sampled_from([0, 1, 127, 128, (1 << 64) - 1]), results=st.lists(_results, max_size=8))
def test_answers_are_written_as_protobuf_writes_them(request_id: int, results: list[Result]) -> None:
    answer = trading_pb2.TradeResponse(request_id=request_id)
    for r in results:
        answer.results.add(
            outcome=types_pb2.OUTCOME_REJECTED if r.reject_reason else types_pb2.OUTCOME_ACKNOWLEDGED,
            client_order_id=r.client_order_id,
            order_id=r.order_id,
            status=r.status,
            filled_quantity=r.filled,
            open_quantity=r.open,
            reject_reason=r.reject_reason,
            sequence=r.sequence,
            duplicate=r.duplicate,
            cancelled_orders=r.cancelled_orders,
            close_reason=r.close_reason,
        )
    assert write_results(request_id, results) == answer.SerializeToString()


def test_a_request_id_of_64_bits_comes_back() -> None:
    request = trading_pb2.TradeRequest(request_id=(1 << 64) - 1, commands=[_order(1)])
    answer = codec.encode_trade(_segment(request.SerializeToString()), [Result(1, "o1", 1, 1, 0, 2)])
    assert trading_pb2.TradeResponse.FromString(answer).request_id == (1 << 64) - 1
