"""A TradeRequest read by columns: the same commands as one by one, whatever the bytes; and what the client is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AmendOrder, CancelAll, CancelOrder, PlaceOrder
from exchange.engine.events import Result
from exchange.runtime import codec
from exchange.runtime.codec import decode_trade, encode_trade
from exchange.runtime.columns import DECODE_BYTES_MIN, decode_columns, read_columns
from exchange.runtime.messages import Segment, SegmentKind
from exchange.v1 import trading_pb2, types_pb2

ACCOUNT, SESSION = 7, 70
_LONG = "n" * DECODE_BYTES_MIN

_integers = st.sampled_from([0, 1, 127, 128, 1 << 40, -1])
_small = st.integers(0, 3)
_names = st.sampled_from(["", "a", "B-1"])
_place = st.fixed_dictionaries(
    {},
    optional={
        "client_order_id": _names,
        "instrument": _names,
        "side": _small,
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


def _one_by_one(monkeypatch: pytest.MonkeyPatch, segment: Segment) -> list[Any]:
    with monkeypatch.context() as patched:
        patched.setattr(codec, "decode_columns", lambda *_: None)
        return decode_trade(segment)


def _segment(data: bytes) -> Segment:
    return Segment(int(SegmentKind.TRADE), ACCOUNT, SESSION, 1_000, data)


@settings(deadline=None)
@given(commands=_commands())
def test_by_columns_and_one_by_one_commands_are_the_same(commands: list[trading_pb2.Command]) -> None:
    # Long enough to be read by columns.
    padding = trading_pb2.Command(cancel=trading_pb2.CancelOrderRequest(instrument="X", client_order_id=_LONG))
    for first in ([], [padding]):
        request = trading_pb2.TradeRequest(request_id=3, commands=[*first, *commands], deadline_ms=9)
        segment = _segment(request.SerializeToString())
        with pytest.MonkeyPatch.context() as monkeypatch:
            assert decode_trade(segment) == _one_by_one(monkeypatch, segment)


def _request(*commands: trading_pb2.Command) -> tuple[trading_pb2.TradeRequest, bytes]:
    request = trading_pb2.TradeRequest(request_id=1, commands=commands)
    return request, request.SerializeToString()


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


def test_orders_cancels_and_amends_in_turn_keep_their_places() -> None:
    request, data = _request(
        *(
            command
            for number in range(20)
            for command in (
                _order(number),
                trading_pb2.Command(
                    cancel=trading_pb2.CancelOrderRequest(instrument="BTC-USDT", client_order_id=f"c{number}")
                ),
                trading_pb2.Command(
                    amend=trading_pb2.AmendOrderRequest(instrument="BTC-USDT", order_id=number + 1, quantity=5)
                ),
            )
        )
    )
    decoded = decode_columns(request, data, ACCOUNT, SESSION)
    assert decoded is not None
    assert len(decoded) == 60
    assert decoded[3:6] == [
        PlaceOrder(ACCOUNT, "o1", "BTC-USDT", 1, 1, 0, 101, 2, session=SESSION),
        CancelOrder(ACCOUNT, "BTC-USDT", "c1"),
        AmendOrder(ACCOUNT, "BTC-USDT", "", 2, 0, 5),
    ]
    assert [type(command) for command in decoded] == [PlaceOrder, CancelOrder, AmendOrder] * 20


def test_commands_on_behalf_of_others_are_theirs() -> None:
    commands = [_order(number) for number in range(40)]
    for number, command in enumerate(commands):
        command.on_behalf_of = 100 + number
    request, data = _request(*commands)
    decoded = decode_columns(request, data, ACCOUNT, 0)
    assert decoded is not None
    assert [command.account for command in decoded if isinstance(command, PlaceOrder)] == list(range(100, 140))


@pytest.mark.parametrize("fields", [{"post_only": True}, {"price": 0}, {"client_order_id": ""}])
def test_columns_that_only_some_orders_fill_are_left_alone(fields: dict[str, Any]) -> None:
    request, data = _request(*(_order(number) for number in range(40)), _order(40, **fields))
    assert decode_columns(request, data, ACCOUNT, 0) is None
    assert len(decode_trade(_segment(data))) == 41


def test_a_field_that_comes_twice_does_not_shift_those_of_others() -> None:
    # As no serializer writes it: the first order names its instrument twice, the second not at all.
    twice = _order(0).place.SerializeToString() + trading_pb2.PlaceOrderRequest(instrument="B").SerializeToString()
    nameless = _order(1, instrument="").place.SerializeToString()
    rest = [_order(number).place.SerializeToString() for number in range(2, 40)]
    bodies = [twice, nameless, *rest]
    data = b"".join(
        b"\x12" + bytes([len(body) + 2]) + b"\x0a" + bytes([len(body)]) + body for body in bodies if len(body) < 120
    )
    request = trading_pb2.TradeRequest.FromString(data)
    assert decode_columns(request, data, ACCOUNT, SESSION) is None
    decoded = decode_trade(_segment(data))
    assert [command.instrument for command in decoded[:3]] == ["B", "", "BTC-USDT"]  # type: ignore[union-attr]


def test_what_is_short_is_read_one_by_one() -> None:
    _, data = _request(_order(1))
    assert read_columns(data) is None
    assert decode_trade(_segment(data)) == [PlaceOrder(ACCOUNT, "o1", "BTC-USDT", 1, 1, 0, 101, 2, session=SESSION)]


def test_an_answer_says_of_each_command_what_became_of_it() -> None:
    results = [
        Result(10, "a", 10, int(types_pb2.ORDER_STATUS_OPEN), 2, 5),
        Result(11, "b", 0, int(types_pb2.ORDER_STATUS_REJECTED), 0, 0, int(types_pb2.REJECT_REASON_ORDER_UNKNOWN)),
        Result(12, "a", 10, int(types_pb2.ORDER_STATUS_CANCELLED), 2, 0, 0, 1, duplicate=True),
        Result(13, "", 0, 0, 0, 0, cancelled_orders=4),
    ]
    answer = trading_pb2.TradeResponse.FromString(encode_trade(_segment(_request(_order(1))[1]), results))
    ack, rejected = types_pb2.OUTCOME_ACKNOWLEDGED, types_pb2.OUTCOME_REJECTED
    assert answer.request_id == 1
    assert list(answer.results) == [
        trading_pb2.OrderResult(
            outcome=ack,
            client_order_id="a",
            order_id=10,
            status=types_pb2.ORDER_STATUS_OPEN,
            filled_quantity=2,
            open_quantity=5,
            sequence=10,
        ),
        trading_pb2.OrderResult(
            outcome=rejected,
            client_order_id="b",
            status=types_pb2.ORDER_STATUS_REJECTED,
            reject_reason=types_pb2.REJECT_REASON_ORDER_UNKNOWN,
            sequence=11,
        ),
        trading_pb2.OrderResult(
            outcome=ack,
            client_order_id="a",
            order_id=10,
            status=types_pb2.ORDER_STATUS_CANCELLED,
            filled_quantity=2,
            close_reason=types_pb2.CLOSE_REASON_REQUESTED,
            duplicate=True,
            sequence=12,
        ),
        trading_pb2.OrderResult(outcome=ack, cancelled_orders=4, sequence=13),
    ]


def test_commands_of_a_kind_without_columns_are_read_one_by_one() -> None:
    request, data = _request(
        *(_order(number) for number in range(40)),
        trading_pb2.Command(cancel_all=trading_pb2.CancelAllOrdersRequest(instrument="BTC-USDT")),
    )
    assert decode_columns(request, data, ACCOUNT, 0) is None
    assert decode_trade(_segment(data))[-1] == CancelAll(ACCOUNT, "BTC-USDT")
