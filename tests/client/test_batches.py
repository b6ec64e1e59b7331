import grpc
import pytest

from exchange.client import AsyncClient, Overloaded, PlaceOrder, Side
from exchange.v1 import trading_pb2, types_pb2
from tests.client.fake_gateway import (
    LOST,
    FakeGateway,
    Refusal,
    VirtualTime,
    accepted,
    rejected,
    unknown,
)

BUSY_FOR_GOOD = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "REJECT_REASON_QUEUE_FULL")


def batch(*results: trading_pb2.OrderResult) -> trading_pb2.PlaceOrdersResponse:
    return trading_pb2.PlaceOrdersResponse(results=results)


def order_named(name: str) -> PlaceOrder:
    return PlaceOrder(instrument="BTC-USDT", side=Side.BUY, quantity=1, price=1, client_order_id=name)


ORDERS = [order_named("a"), order_named("b"), order_named("c")]


def names(request: trading_pb2.PlaceOrdersRequest) -> str:
    return "".join(order.client_order_id for order in request.orders)


async def test_a_batch_sends_again_only_what_is_open_or_may_come_back(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    busy = rejected(types_pb2.REJECT_REASON_QUEUE_FULL, "b", retry_after_ms=70)
    gateway.script(
        "PlaceOrders",
        batch(accepted("a"), busy, unknown("c")),
        batch(accepted("b"), accepted("c", duplicate=True)),
    )
    results = await client.place_orders(ORDERS)
    assert [result.client_order_id for result in results] == ["a", "b", "c"]
    assert all(result.accepted for result in results)
    assert [names(request) for request in gateway.requests["PlaceOrders"]] == ["abc", "bc"]
    assert time.slept == [0.07]


async def test_a_batch_keeps_its_known_outcomes_beside_the_unknown(client: AsyncClient, gateway: FakeGateway) -> None:
    final = rejected(types_pb2.REJECT_REASON_WOULD_TAKE, "b")
    gateway.script("PlaceOrders", batch(accepted("a"), final, unknown("c")), BUSY_FOR_GOOD)
    results = await client.place_orders(ORDERS)
    assert [result.outcome.name for result in results] == ["ACKNOWLEDGED", "REJECTED", "UNKNOWN"]
    assert gateway.requests["GetOrder"] == []


async def test_a_batch_that_is_lost_is_unknown_order_by_order(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrders", LOST)
    results = await client.place_orders(ORDERS)
    assert [(result.client_order_id, result.unknown) for result in results] == [
        ("a", True),
        ("b", True),
        ("c", True),
    ]
    assert len(gateway.requests["PlaceOrders"]) == 3


async def test_a_passing_rejection_after_a_lost_batch_stays_unknown(client: AsyncClient, gateway: FakeGateway) -> None:
    busy = rejected(types_pb2.REJECT_REASON_QUEUE_FULL, "b")
    gateway.script("PlaceOrders", LOST, batch(accepted("a"), busy, accepted("c")), LOST)
    results = await client.place_orders(ORDERS)
    assert [result.unknown for result in results] == [False, True, False]


async def test_a_batch_that_was_surely_not_executed_raises(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrders", BUSY_FOR_GOOD)
    with pytest.raises(Overloaded):
        await client.place_orders(ORDERS)


async def test_an_empty_batch_is_not_sent(client: AsyncClient, gateway: FakeGateway) -> None:
    assert await client.place_orders([]) == []
    assert gateway.requests["PlaceOrders"] == []
