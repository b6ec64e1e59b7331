"""Where a TradeRequest goes: whole to the one shard that can take it, and what it takes to see that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.engine.ledger_words import Permission
from exchange.gateway import requests
from exchange.gateway.auth import Caller
from exchange.gateway.held import HeldOrders, Pace
from exchange.gateway.limits import Limits
from exchange.gateway.links import Link
from exchange.gateway.pending import PendingCommands
from exchange.gateway.requests import RequestInvalid
from exchange.gateway.routing import COMMANDS_MAX, Router
from exchange.overload.account_limits import Tier
from exchange.overload.classes import WorkClass
from exchange.runtime.codec import decode_trade
from exchange.runtime.messages import Segment, SegmentReply
from exchange.settings import Settings
from exchange.v1 import trading_pb2

SHARD_OF = {"BTC-USDT": "shard-0", "ETH-USDT": "shard-1"}
TRADER = Caller(7, "key", (int(Permission.TRADE),))
OPERATOR = Caller(7, "key", (int(Permission.TRADE), int(Permission.OPERATOR)))

_, CANCELS, PASSIVE, ORDERS, _ = WorkClass

Make = Callable[..., trading_pb2.Command]


class RecordingLink(Link):
    """Writes down what it is to send, and answers nothing."""

    def __init__(self, machine: str) -> None:
        super().__init__(machine, "gateway-0", 1)
        self.sent: list[tuple[Segment, int]] = []

    @property
    def is_up(self) -> bool:
        return True

    def enqueue(
        self, segment: Segment, work_class: WorkClass = ORDERS, commands: int = 1
    ) -> asyncio.Future[SegmentReply]:
        self.sent.append((segment, work_class))
        return asyncio.get_running_loop().create_future()


def place(instrument: str = "BTC-USDT", *, on_behalf_of: int = 0, **fields: Any) -> trading_pb2.Command:
    order = trading_pb2.PlaceOrderRequest(instrument=instrument, client_order_id="o1", price=5, quantity=2, **fields)
    return trading_pb2.Command(place=order, on_behalf_of=on_behalf_of)


def cancel(instrument: str = "BTC-USDT", *, on_behalf_of: int = 0) -> trading_pb2.Command:
    body = trading_pb2.CancelOrderRequest(instrument=instrument, client_order_id="o1")
    return trading_pb2.Command(cancel=body, on_behalf_of=on_behalf_of)


def post_only(instrument: str = "BTC-USDT") -> trading_pb2.Command:
    return place(instrument, post_only=True)


def amend(instrument: str = "BTC-USDT", **fields: Any) -> trading_pb2.Command:
    body = trading_pb2.AmendOrderRequest(instrument=instrument, client_order_id="o1", **fields)
    return trading_pb2.Command(amend=body)


def cancel_all(instrument: str = "BTC-USDT") -> trading_pb2.Command:
    return trading_pb2.Command(cancel_all=trading_pb2.CancelAllOrdersRequest(instrument=instrument))


def packed(*commands: trading_pb2.Command) -> bytes:
    return trading_pb2.TradeRequest(request_id=3, commands=commands, deadline_ms=700).SerializeToString()


class Routed:
    """A router over two recording links."""

    def __init__(self) -> None:
        self.links = {shard: RecordingLink(shard) for shard in SHARD_OF.values()}
        pending = {shard: PendingCommands() for shard in self.links}
        held = {shard: HeldOrders(lambda: Pace(None), lambda _: True, lambda: 200) for shard in self.links}
        self.router = Router(self.links, SHARD_OF, pending, held, Limits(Settings(), lambda _: int(Tier.UNLIMITED)))

    def sent_by(self, data: bytes, caller: Caller = TRADER) -> list[tuple[Segment, int]]:
        self.router.trade(data, caller)
        return [sent for link in self.links.values() for sent in link.sent]


# Few enough to be read one by one, and enough to be read by columns.
@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize(
    ("make", "priority"),
    [(place, ORDERS), (amend, PASSIVE), (post_only, PASSIVE), (cancel, CANCELS), (cancel_all, CANCELS)],
)
async def test_what_one_shard_can_take_goes_there_as_it_came(make: Make, priority: int, times: int) -> None:
    data = packed(*[make()] * times)
    ((segment, sent_as),) = Routed().sent_by(data)
    assert (segment.data, segment.account, segment.remaining_ms, sent_as) == (data, 7, 700, priority)


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize(("make", "work_class"), [(place, ORDERS), (amend, PASSIVE), (post_only, PASSIVE)])
async def test_cancels_stay_with_the_orders_that_they_came_with(make: Make, work_class: int, times: int) -> None:
    ((_, sent_as),) = Routed().sent_by(packed(*[cancel()] * times, make()))
    assert sent_as == work_class


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("others", [[place(), post_only()], [amend(), amend(price=3)], [amend(requeue=True)]])
async def test_a_request_is_as_urgent_as_its_least_urgent_command(
    others: list[trading_pb2.Command], times: int
) -> None:
    ((_, sent_as),) = Routed().sent_by(packed(*[cancel()] * times, *others))
    assert sent_as == ORDERS


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("other", [cancel("ETH-USDT"), place("NONE"), place(queue_for_ms=5), trading_pb2.Command()])
async def test_what_one_shard_cannot_take_is_not_sent_whole(other: trading_pb2.Command, times: int) -> None:
    data = packed(*[place()] * times, other)
    assert data not in [segment.data for segment, _ in Routed().sent_by(data)]


async def test_orders_that_may_wait_differently_long_stay_in_their_order() -> None:
    waits = [0, 5_000, 5_000, 0, 20_000]
    data = packed(*[place(queue_for_ms=wait) for wait in waits], place("ETH-USDT"))
    sent = [segment for segment, _ in Routed().sent_by(data)]
    parts = [
        [command.place.queue_for_ms for command in trading_pb2.TradeRequest.FromString(segment.data).commands]
        for segment in sent
    ]
    assert parts == [[0], [5_000, 5_000], [0], [20_000], [0]]
    assert [segment.remaining_ms for segment in sent] == [700, 5_000, 700, 8_000, 700]


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("make", [place, cancel])
async def test_only_an_operator_may_act_for_others(make: Make, times: int) -> None:
    data = packed(*[make()] * times, make(on_behalf_of=9))
    with pytest.raises(RequestInvalid, match="on behalf of another account"):
        Routed().sent_by(data)
    assert len(Routed().sent_by(data, OPERATOR)) == 1


async def test_a_message_has_only_so_many_commands() -> None:
    assert len(Routed().sent_by(packed(*[cancel()] * COMMANDS_MAX))) == 1
    with pytest.raises(RequestInvalid, match="expected at most 1000 commands in a message, was 1001"):
        Routed().sent_by(packed(*[cancel()] * (COMMANDS_MAX + 1)))


@pytest.mark.parametrize("data", [b"\x12", b"\x12\x05" * 200, packed(place(), place())[:-1] + b"\xff" * 300])
async def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(RequestInvalid, match="not a TradeRequest"):
        Routed().sent_by(data)


async def test_a_command_of_no_kind_behind_one_that_names_its_instrument_twice_cancels_nothing() -> None:
    # No serializer writes this. Counted by columns alone, each command has its instrument.
    body = place().place.SerializeToString() + trading_pb2.PlaceOrderRequest(instrument="BTC-USDT").SerializeToString()
    doubled = b"\x0a" + bytes([len(body)]) + body
    data = b"\x12" + bytes([len(doubled)]) + doubled + b"\x12\x00" + packed(*[place()] * 40)
    ((segment, _),) = Routed().sent_by(data)
    commands = decode_trade(segment)
    assert len(commands) == 42
    assert commands[1] == (7, "", "", 0), "it names nothing, so the shard refuses it"


_kinds: list[Make] = [place, post_only, amend, cancel, cancel_all]
_commands = st.builds(
    lambda make, instrument: make(instrument), st.sampled_from(_kinds), st.sampled_from(["BTC-USDT", "ETH-USDT", ""])
)


@given(
    st.lists(_commands, min_size=20, max_size=40),
    st.lists(
        st.sampled_from(
            [
                amend(price=3),
                amend(requeue=True),
                place(queue_for_ms=3),
                place(on_behalf_of=4),
                cancel(),
                trading_pb2.Command(),
            ]
        )
    ),
)
def test_by_columns_and_one_by_one_a_request_needs_the_same(
    commands: list[trading_pb2.Command], others: list[trading_pb2.Command]
) -> None:
    data = packed(*commands, *others)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(requests, "read_columns", lambda _: None)
        one_by_one = requests.needs_of(data)
    assert requests.needs_of(data) == one_by_one
