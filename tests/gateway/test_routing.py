"""Where a TradeRequest goes: whole to the one shard that can take it, and what it takes to see that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.engine.commands import PlaceOrder
from exchange.engine.ledger_words import Permission
from exchange.engine.words import RejectReason
from exchange.gateway import requests
from exchange.gateway.admission import Admission
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
from exchange.runtime.messages import ReplyStatus, Segment, SegmentReply
from exchange.settings import RateLimit, RateLimits, Settings
from exchange.v1 import trading_pb2, types_pb2

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

    def __init__(self, *, knows_all: bool = True) -> None:
        self.links: dict[str, RecordingLink] = {shard: RecordingLink(shard) for shard in SHARD_OF.values()}
        pending = {shard: PendingCommands() for shard in self.links}
        held = {shard: HeldOrders(lambda: Pace(None), lambda _: True, lambda: 200) for shard in self.links}
        limits = Limits(Settings(), lambda _: int(Tier.UNLIMITED))
        self.router = Router(self.links, SHARD_OF, pending, held, limits, knows_all=lambda: knows_all)

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


@pytest.mark.parametrize(
    ("knows_all", "reason", "comes_back"),
    [(True, RejectReason.INSTRUMENT_UNKNOWN, False), (False, RejectReason.SHARD_UNAVAILABLE, True)],
)
@pytest.mark.parametrize("make", [place, cancel, amend, cancel_all])
async def test_an_instrument_is_unknown_only_to_a_gateway_that_knows_all_shards(
    make: Make, knows_all: bool, reason: RejectReason, comes_back: bool
) -> None:
    """One that has just started may not have heard of it yet."""
    answer = Routed(knows_all=knows_all).router.trade(packed(make("NONE")), TRADER)
    (result,) = trading_pb2.TradeResponse.FromString(await answer.response).results
    assert (result.outcome, int(result.reject_reason)) == (types_pb2.OUTCOME_REJECTED, int(reason))
    assert (result.retry_after_ms > 0) is comes_back


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


async def test_a_command_of_no_kind_behind_one_that_names_its_instrument_twice_goes_no_further() -> None:
    # No serializer writes this: 42 commands that name 42 instruments, and yet one of them none.
    body = place().place.SerializeToString() + trading_pb2.PlaceOrderRequest(instrument="BTC-USDT").SerializeToString()
    doubled = b"\x0a" + bytes([len(body)]) + body
    data = b"\x12" + bytes([len(doubled)]) + doubled + b"\x12\x00" + packed(*[place()] * 40)
    ((segment, _),) = Routed().sent_by(data)
    commands = decode_trade(segment)
    assert [type(command) for command in commands] == [PlaceOrder] * 41


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
def test_a_request_needs_what_protobuf_says_that_it_does(
    commands: list[trading_pb2.Command], others: list[trading_pb2.Command]
) -> None:
    data = packed(*commands, *others)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(requests, "survey", lambda _: None)
        by_protobuf = requests.needs_of(data)
    assert requests.needs_of(data) == by_protobuf


async def test_passive_orders_do_not_overtake_the_orders_that_their_stream_sent_before() -> None:
    routed = Routed()
    assert routed.router.trade(packed(post_only()), TRADER).work_class == PASSIVE
    assert routed.router.trade(packed(post_only()), TRADER, follows_orders=True).work_class == ORDERS
    assert routed.router.trade(packed(cancel()), TRADER, follows_orders=True).work_class == CANCELS
    assert [work_class for _, work_class in routed.links["shard-0"].sent] == [PASSIVE, ORDERS, CANCELS]


# ---------------------------------------------------------------- cancels, where orders wait


class AnsweringLink(RecordingLink):
    """Refuses orders for the queue, and does the rest; of the first segments, what `fates` says: refuses, does, or
    keeps them waiting. `backlog`: orders wait there.
    """

    backlog = False
    refuses = True
    fates: Sequence[str] = ()

    def __init__(self, machine: str) -> None:
        super().__init__(machine)
        self.waiting: list[tuple[Segment, asyncio.Future[SegmentReply]]] = []
        link = self

        class _Admission(Admission[Any]):
            @property
            def has_backlog(self) -> bool:
                return link.backlog

        self.admission = _Admission(machine, Settings(), lambda: 0.0, lambda: 0.5)

    def enqueue(
        self, segment: Segment, work_class: WorkClass = ORDERS, commands: int = 1
    ) -> asyncio.Future[SegmentReply]:
        reply = super().enqueue(segment, work_class, commands)
        usual = "refuse" if work_class.is_sheddable and self.refuses else "do"
        fate = (*self.fates[len(self.sent) - 1 :], usual)[0]
        if fate == "refuse":
            reason = int(RejectReason.QUEUE_FULL)
            reply.set_result(SegmentReply(int(ReplyStatus.REFUSED), reason, b"", "full", 345, "queue"))
        elif fate == "do":
            self.do(segment, reply)
        else:
            self.waiting.append((segment, reply))
        return reply

    def do(self, segment: Segment, reply: asyncio.Future[SegmentReply]) -> None:
        request = trading_pb2.TradeRequest.FromString(segment.data)
        response = trading_pb2.TradeResponse(request_id=request.request_id)
        for command in request.commands:
            name = getattr(getattr(command, command.WhichOneof("command") or ""), "client_order_id", "")
            response.results.add(outcome=types_pb2.OUTCOME_ACKNOWLEDGED, client_order_id=name)
        reply.set_result(SegmentReply(int(ReplyStatus.DONE), 0, response.SerializeToString()))


def named(name: str) -> trading_pb2.Command:
    return trading_pb2.Command(cancel=trading_pb2.CancelOrderRequest(instrument="BTC-USDT", client_order_id=name))


def shapes(link: RecordingLink) -> list[tuple[list[str], int]]:
    """The commands of each segment that was sent, and its class."""
    found: list[tuple[list[str], int]] = []
    for segment, work_class in link.sent:
        commands = trading_pb2.TradeRequest.FromString(segment.data).commands
        kinds = [command.WhichOneof("command") or "" for command in commands]
        bodies = [getattr(command, kind) for command, kind in zip(commands, kinds, strict=True)]
        names = [getattr(body, "client_order_id", "") for body in bodies]
        found.append(([f"{kind} {name}".strip() for kind, name in zip(kinds, names, strict=True)], work_class))
    return found


async def answered(routed: Routed, data: bytes) -> tuple[list[tuple[str, int, int]], list[SegmentReply]]:
    answer = routed.router.trade(data, TRADER)
    results = trading_pb2.TradeResponse.FromString(await answer.response).results
    return [(r.client_order_id, r.reject_reason, r.retry_after_ms) for r in results], answer.refusals


@pytest.fixture
async def busy() -> Routed:
    routed = Routed()
    routed.links = {shard: AnsweringLink(shard) for shard in SHARD_OF.values()}
    routed.router._links = routed.links
    return routed


@pytest.mark.parametrize("times", [1, 40])
async def test_cancels_are_not_refused_along_with_the_orders_that_they_came_with(busy: Routed, times: int) -> None:
    data = packed(*[place()] * times, named("x"), named("o1"))
    results, refusals = await answered(busy, data)
    full = int(RejectReason.QUEUE_FULL)
    assert results == [("o1", full, 345)] * times + [("x", 0, 0), ("o1", 0, 0)]
    assert [refusal.shed for refusal in refusals] == ["queue"]
    whole, cancels = shapes(busy.links["shard-0"])
    assert whole == (["place o1"] * times + ["cancel x", "cancel o1"], ORDERS)
    assert cancels == (["cancel x", "cancel o1"], CANCELS)


async def test_cancels_for_a_shard_are_not_refused_along_with_the_orders_for_another(busy: Routed) -> None:
    results, _ = await answered(busy, packed(place(), cancel("ETH-USDT"), cancel_all("ETH-USDT")))
    assert results == [("o1", int(RejectReason.QUEUE_FULL), 345), ("o1", 0, 0), ("", 0, 0)]
    assert shapes(busy.links["shard-1"]) == [(["cancel o1", "cancel_all"], CANCELS)]


@pytest.mark.parametrize("orders", [0, 1])
async def test_cancels_that_were_refused_with_their_part_stay_behind_the_parts_before(
    busy: Routed, orders: int
) -> None:
    """The first part waits in the link, the last is refused: its cancel comes once the first is answered."""
    link = busy.links["shard-0"]
    assert isinstance(link, AnsweringLink)
    link.fates = ["wait", "do", "refuse"]
    patient = place(queue_for_ms=5_000)
    answer = busy.router.trade(packed(place(), patient, *[place()] * orders, named("o1")), TRADER)
    for _ in range(20):
        await asyncio.sleep(0)
    last = (["place o1"] * orders + ["cancel o1"], ORDERS)
    assert shapes(link) == [(["place o1"], ORDERS), (["place o1"], ORDERS), last]
    link.do(*link.waiting[0])
    results = trading_pb2.TradeResponse.FromString(await answer.response).results
    assert [result.reject_reason for result in results] == [0, 0, *[int(RejectReason.QUEUE_FULL)] * orders, 0]
    assert shapes(link)[3:] == [(["cancel o1"], CANCELS)]


async def test_where_orders_wait_cancels_of_others_go_ahead_and_those_of_the_request_stay_in_order(
    busy: Routed,
) -> None:
    link = busy.links["shard-0"]
    assert isinstance(link, AnsweringLink)
    link.backlog, link.refuses = True, False
    results, _ = await answered(busy, packed(named("a"), place(), named("o1"), named("b"), cancel_all(), place()))
    assert [reason for _, reason, _ in results] == [0] * 6
    assert shapes(link)[0] == (["cancel a", "cancel b"], CANCELS)
    rest, work_class = shapes(link)[1]
    assert work_class == ORDERS
    assert rest[:2] == ["place o1", "cancel o1"]


async def test_without_a_backlog_a_request_stays_whole(busy: Routed) -> None:
    link = busy.links["shard-0"]
    assert isinstance(link, AnsweringLink)
    link.refuses = False
    await answered(busy, packed(named("a"), place()))
    assert shapes(link) == [(["cancel a", "place o1"], ORDERS)]


async def test_orders_beyond_the_limit_of_their_account_are_refused_and_their_cancels_done(busy: Routed) -> None:
    link = busy.links["shard-0"]
    assert isinstance(link, AnsweringLink)
    link.refuses = False
    limits = RateLimits(standard=RateLimit(orders_per_s=1, burst=2))
    settings = Settings(rate_limits=limits)
    tiers = {7: int(Tier.STANDARD)}
    busy.router.limits = Limits(settings, tiers.__getitem__, monotonic_s=lambda: 0.0, random=lambda: 0.5)
    assert [reason for _, reason, _ in (await answered(busy, packed(place(), place(), named("a"))))[0]] == [0, 0, 0]
    results, refusals = await answered(busy, packed(named("b"), place()))
    limited = int(RejectReason.RATE_LIMITED)
    assert [reason for _, reason, _ in results] == [0, limited]
    assert results[1][2] == 1_250, "in a second there is another one"
    assert [refusal.shed for refusal in refusals] == ["rate"]
    assert busy.router.limits.limited == 1
    assert busy.router.limits.state(TRADER) == (1, 0, 2.0)
    assert busy.router.limits.state(OPERATOR) is None
    answer = busy.router.trade(packed(*[place()] * 30), OPERATOR)
    assert not any(
        result.reject_reason for result in trading_pb2.TradeResponse.FromString(await answer.response).results
    )
    tiers[7] = int(Tier.UNLIMITED)
    assert (await answered(busy, packed(place())))[0][0][1] == 0
