"""Orders that wait by `queue_for`: in order, at the pace of the shard, and not lost when the stage was another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from exchange.engine.words import RejectReason, Stage
from exchange.gateway.held import HeldOrders, Pace, pace_of
from exchange.v1 import trading_pb2, types_pb2
from tests.virtual_time import run


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def runs() -> None:
        run(test())

    return runs


class Shard:
    """Takes orders, or says why not."""

    def __init__(self) -> None:
        self.pace = Pace(0.0)
        self.has_room = True
        self.entered: list[tuple[str, float]] = []
        self.refuses: RejectReason | None = None
        loop = asyncio.get_running_loop()
        self.held = HeldOrders(lambda: self.pace, lambda _: self.has_room, lambda: 321, monotonic_s=loop.time)
        self.now = loop.time

    async def send(self, data: bytes, remaining_ms: int) -> bytes:
        response = trading_pb2.TradeResponse()
        for command in trading_pb2.TradeRequest.FromString(data).commands:
            name = command.place.client_order_id
            if self.refuses is None:
                self.entered.append((name, self.now()))
                response.results.add(outcome=types_pb2.OUTCOME_ACKNOWLEDGED, client_order_id=name)
            else:
                reason = types_pb2.RejectReason.ValueType(self.refuses)
                outcome = types_pb2.OUTCOME_REJECTED
                response.results.add(outcome=outcome, client_order_id=name, reject_reason=reason)
        return response.SerializeToString()

    def enter(self, *names: str, wait_s: float = 5.0) -> asyncio.Future[bytes]:
        commands = [
            trading_pb2.Command(place=trading_pb2.PlaceOrderRequest(client_order_id=name, instrument="BTC-USDT"))
            for name in names
        ]
        request = trading_pb2.TradeRequest(request_id=9, commands=commands)
        return self.held.enter(request.SerializeToString(), wait_s, self.send)


def reasons(answer: bytes) -> list[int]:
    response = trading_pb2.TradeResponse.FromString(answer)
    assert response.request_id == 9
    return [result.reject_reason for result in response.results]


@in_virtual_time
async def test_what_the_shard_lets_in_goes_at_once() -> None:
    shard = Shard()
    shard.pace = Pace(None)
    assert reasons(await shard.enter("a", "b")) == [0, 0]
    assert [name for name, _ in shard.entered] == ["a", "b"]


@in_virtual_time
async def test_orders_enter_in_their_order_at_the_pace_of_the_shard() -> None:
    shard = Shard()
    answers = [shard.enter(f"o{number}") for number in range(20)]
    await asyncio.sleep(1)
    assert not shard.entered
    shard.pace = pace_of(Stage.LIMITED, 20, 0.5)
    since_s = shard.now()
    for answer in answers:
        assert reasons(await answer) == [0]
    assert [name for name, _ in shard.entered] == [f"o{number}" for number in range(20)]
    for number, (_, at_s) in enumerate(shard.entered):
        assert number <= 1 + 10 * (at_s - since_s) + 1e-6, "half of the rate is this gateway's"
    assert shard.now() - since_s < 2.5


@in_virtual_time
async def test_what_the_stage_refuses_all_the_same_keeps_its_place_in_line() -> None:
    shard = Shard()
    shard.pace = Pace(None)
    shard.refuses = RejectReason.STAGE_CANCEL_ONLY
    first = shard.enter("first")
    await asyncio.sleep(0.02)
    second = shard.enter("second")
    await asyncio.sleep(0.5)
    shard.refuses = None
    assert reasons(await first) == reasons(await second) == [0]
    assert [name for name, _ in shard.entered] == ["first", "second"]


@in_virtual_time
async def test_what_has_waited_long_enough_is_refused_as_not_executed() -> None:
    shard = Shard()
    since_s = shard.now()
    answer = await shard.enter("a", wait_s=2.0)
    assert reasons(answer) == [RejectReason.SHARD_UNAVAILABLE]
    assert trading_pb2.TradeResponse.FromString(answer).results[0].retry_after_ms == 321
    assert 1.99 < shard.now() - since_s < 2.1
    shard.pace, shard.refuses = Pace(None), RejectReason.RATE_LIMITED
    assert reasons(await shard.enter("b", wait_s=0.2)) == [RejectReason.RATE_LIMITED]
    assert not shard.entered


@in_virtual_time
async def test_what_is_refused_for_good_does_not_wait_on() -> None:
    shard = Shard()
    shard.pace, shard.refuses = Pace(None), RejectReason.PRICE_INVALID
    since_s = shard.now()
    assert reasons(await shard.enter("a")) == [RejectReason.PRICE_INVALID]
    assert shard.now() == since_s


@in_virtual_time
async def test_nobody_enters_while_the_link_is_full() -> None:
    shard = Shard()
    shard.pace, shard.has_room = Pace(None), False
    waiting = shard.enter("a")
    await asyncio.sleep(1)
    assert len(shard.held) == 1
    shard.has_room = True
    assert reasons(await waiting) == [0]
    assert len(shard.held) == 0


def test_stages_have_a_pace() -> None:
    assert pace_of(Stage.OPEN, 0, 0.5) == Pace(None)
    assert pace_of(Stage.LIMITED, 100, 0.25) == Pace(25.0)
    for stage in (Stage.REPLAYING, Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.HALTED):
        assert pace_of(stage, 100, 1.0) == Pace(0.0)
