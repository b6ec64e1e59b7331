"""What a `Trade` stream takes, what it answers when, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from exchange.gateway import trade_stream
from exchange.gateway.draining import Draining
from exchange.gateway.requests import RequestInvalid
from exchange.gateway.routing import Answer
from exchange.gateway.trade_stream import BATCHES_IN_FLIGHT_MAX, TradeStream
from exchange.overload.classes import WorkClass
from exchange.v1 import trading_pb2
from tests.gateway.failover_world import until


class Served:
    """A stream whose outcomes are known when the test says so."""

    def __init__(self) -> None:
        self.taken: dict[int, asyncio.Future[bytes]] = {}
        self.written: list[int] = []
        self.notices = 0
        self.takes_answers = asyncio.Event()
        self.takes_answers.set()
        self.waits = False
        self.draining = Draining()
        self.work_class = WorkClass.CANCELS
        self.followed: list[bool] = []
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.stream = TradeStream(self, None, 7, self.draining)  # type: ignore[arg-type]  # it stands in for the router
        self.serving = asyncio.create_task(self.stream.serve(self._arrive(), self._write))

    def trade(self, data: bytes, caller: Any, session: int, *, follows_orders: bool) -> Answer:
        self.followed.append(follows_orders)
        number = trading_pb2.TradeRequest.FromString(data).request_id
        if not number:
            raise RequestInvalid(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED", "as the test says")
        self.taken[number] = asyncio.get_running_loop().create_future()
        return Answer(self.taken[number], self.waits, [], self.work_class)

    async def _arrive(self) -> AsyncIterator[bytes]:
        while (data := await self._requests.get()) is not None:
            yield data

    async def _write(self, data: bytes) -> None:
        await self.takes_answers.wait()
        response = trading_pb2.TradeResponse.FromString(data)
        if response.draining:
            self.notices += 1
        else:
            self.written.append(response.request_id)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self._requests.put_nowait(trading_pb2.TradeRequest(request_id=number).SerializeToString())

    def end(self) -> None:
        """Half-close."""
        self._requests.put_nowait(None)

    def know(self, *numbers: int) -> None:
        """Let the outcomes of these be known."""
        for number in numbers:
            self.taken[number].set_result(trading_pb2.TradeResponse(request_id=number).SerializeToString())


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    async with asyncio.timeout(30):
        yield made
    made.serving.cancel()
    await asyncio.gather(made.serving, return_exceptions=True)


async def test_each_batch_is_answered_when_its_outcome_is_known(served: Served) -> None:
    served.send(1, 2, 3)
    await until(lambda: len(served.taken) == 3)
    served.know(3)
    await until(lambda: served.written == [3])
    served.know(1, 2)
    await until(lambda: served.written == [3, 1, 2])


async def test_what_follows_orders_that_are_under_way_is_told_apart(served: Served) -> None:
    served.work_class = WorkClass.ORDERS
    served.send(1)
    await until(lambda: 1 in served.taken)
    served.work_class = WorkClass.PASSIVE
    served.send(2)
    await until(lambda: 2 in served.taken)
    served.know(1)
    await until(lambda: served.written == [1])
    served.send(3)
    await until(lambda: 3 in served.taken)
    assert served.followed == [False, True, False]


async def test_what_is_in_flight_is_answered_after_the_client_has_ended_the_stream(served: Served) -> None:
    served.send(1, 2)
    served.end()
    await until(lambda: len(served.taken) == 2)
    served.know(2, 1)
    await served.serving
    assert served.written == [2, 1]
    assert not served.stream.is_cut


async def test_a_request_that_cannot_be_taken_ends_the_stream_after_the_answers_to_those_before(served: Served) -> None:
    served.send(1, 0, 2)
    await until(lambda: served.stream.refusal)
    served.know(1)
    await served.serving
    assert list(served.taken) == served.written == [1]


async def test_a_stopped_shard_keeps_no_batches_for_others_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_stream, "STUCK_S", 0.001)
    stuck = range(1, 4 * BATCHES_IN_FLIGHT_MAX)
    served.send(*stuck, 1_000)
    await until(lambda: 1_000 in served.taken)
    served.know(1_000)
    await until(lambda: served.written == [1_000])
    served.know(*stuck)
    await until(lambda: sorted(served.written) == [*stuck, 1_000])
    assert served.stream._slots._value == BATCHES_IN_FLIGHT_MAX - 1, "all but the one for what comes next"


async def test_a_client_that_takes_no_answers_is_not_read_any_further(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trade_stream, "STUCK_S", 0.0)
    served.takes_answers.clear()
    served.send(*range(1, 500))
    known = 0
    for _ in range(2_000):
        await asyncio.sleep(0)
        new = [number for number in served.taken if number > known]
        served.know(*new)
        known += len(new)
    assert len(served.taken) == BATCHES_IN_FLIGHT_MAX
    served.takes_answers.set()
    await until(lambda: len(served.taken) > BATCHES_IN_FLIGHT_MAX)


async def test_what_waits_for_its_shard_takes_no_slot(served: Served) -> None:
    served.waits = True
    served.send(*range(1, 2 * BATCHES_IN_FLIGHT_MAX))
    await until(lambda: len(served.taken) == 2 * BATCHES_IN_FLIGHT_MAX - 1)
    served.know(*served.taken)
    await until(lambda: len(served.written) == len(served.taken))
    assert served.stream._slots._value == BATCHES_IN_FLIGHT_MAX - 1


async def test_while_a_gateway_drains_a_stream_is_read_until_its_client_ends_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trade_stream, "NOTICE_S", 60.0)
    served.send(1)
    await until(lambda: served.taken)
    served.draining.begin()
    await until(lambda: served.notices)
    served.send(2)
    served.end()
    await until(lambda: len(served.taken) == 2)
    served.know(1, 2)
    await served.serving
    assert served.written == [1, 2]
    assert served.notices == 1
    assert served.stream.is_cut


async def test_a_client_that_does_not_go_is_cut_off_when_all_that_was_taken_is_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trade_stream, "NOTICE_S", 0.0)
    served.send(1)
    await until(lambda: served.taken)
    served.draining.begin()
    await until(lambda: served.stream._is_over)
    served.send(2)
    assert not served.serving.done()
    served.know(1)
    await served.serving
    assert served.written == [1]
    assert served.stream.is_cut
    assert list(served.taken) == [1]


async def test_a_gateway_that_drains_goes_on_refusing_until_nothing_comes_any_more() -> None:
    draining = Draining()
    silence = asyncio.create_task(draining.fall_silent(0.0, 60.0))
    for _ in range(10):
        draining.note_arrival()
        await asyncio.sleep(0)
        assert not silence.done()
    await silence
    draining.note_arrival()
    await draining.fall_silent(0.0, 0.0)


async def test_a_stream_that_begins_just_as_its_gateway_drains_is_told_too() -> None:
    served = Served()
    served.draining.begin()
    await until(lambda: served.notices)
    served.end()
    await served.serving
    assert served.stream.is_cut
