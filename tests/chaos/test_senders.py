"""The naive client is as careless as it is meant to be, and what each sender reports is what it was told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import grpc
import pytest

from chaos.load.record import Ending
from chaos.load.senders import NAIVE_ATTEMPTS_MAX, SENDERS
from exchange.client import Instrument, PlaceOrder, Side
from exchange.v1 import trading_pb2, types_pb2
from tests.client.fake_gateway import BTC, FakeGateway, Refusal, accepted, rejected

INSTRUMENT = Instrument.from_proto(BTC)
PRICE_INVALID = types_pb2.REJECT_REASON_PRICE_INVALID
BUSY = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after_ms=200, pushback="-1")
ORDER = PlaceOrder(
    instrument=INSTRUMENT.symbol,
    side=Side.BUY,
    quantity=INSTRUMENT.min_quantity,
    price=Decimal(100),
    client_order_id="a",
)


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    fake = await FakeGateway().start()
    yield fake
    await fake.stop()


async def test_a_naive_client_sends_the_same_order_again_and_again(gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", BUSY)
    sender = SENDERS["naive"]([gateway.address], "key", INSTRUMENT, 1.0)
    assert await sender.place(ORDER) == (Ending.UNKNOWN, "RESOURCE_EXHAUSTED")
    assert sender.attempts == len(gateway.requests["PlaceOrder"]) == NAIVE_ATTEMPTS_MAX
    assert {request.client_order_id for request in gateway.requests["PlaceOrder"]} == {"a"}
    await sender.close()


async def test_the_sdk_does_not_come_back_where_it_is_told_not_to(gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", BUSY)
    sender = SENDERS["sdk"]([gateway.address], "key", INSTRUMENT, 1.0)
    assert await sender.place(ORDER) == (Ending.REFUSED, "QUEUE_FULL")
    assert len(gateway.requests["PlaceOrder"]) == 1
    await sender.close()


@pytest.mark.parametrize("name", sorted(SENDERS))
async def test_what_was_acknowledged_and_what_was_rejected_is_told_apart(gateway: FakeGateway, name: str) -> None:
    sender = SENDERS[name]([gateway.address], "key", INSTRUMENT, 1.0)
    gateway.script("PlaceOrder", trading_pb2.PlaceOrderResponse(result=accepted("a")))
    assert (await sender.place(ORDER))[0] == Ending.ACKNOWLEDGED
    gateway.script("PlaceOrder", trading_pb2.PlaceOrderResponse(result=rejected(PRICE_INVALID, "a")))
    assert (await sender.place(ORDER))[0] == Ending.REJECTED
    await sender.close()
