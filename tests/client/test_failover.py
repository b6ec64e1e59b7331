import asyncio

import grpc
import pytest

from exchange.client import (
    AsyncClient,
    ClientClosed,
    PlaceOrder,
    RetryPolicy,
    Side,
    TransportError,
    Unavailable,
)
from exchange.v1 import admin_pb2, trading_pb2, types_pb2
from tests.client.fake_gateway import (
    DRAINING,
    LOST,
    FakeGateway,
    Hang,
    Refusal,
    VirtualTime,
    accepted,
    rejected,
    until,
)

STATUS = admin_pb2.GetStatusResponse(version="1")
PLACED = trading_pb2.PlaceOrderResponse(result=accepted("a"))


@pytest.fixture
def addresses(gateway: FakeGateway, other_gateway: FakeGateway) -> list[str]:
    for fake in (gateway, other_gateway):
        fake.script("GetStatus", STATUS)
        fake.script("PlaceOrder", PLACED)
    return [gateway.address, other_gateway.address]


async def test_one_address_is_kept_as_long_as_it_answers(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway
) -> None:
    async with AsyncClient(addresses) as client:
        for _ in range(5):
            await client.status()
    assert len(gateway.requests["GetStatus"]) == 5
    assert other_gateway.requests["GetStatus"] == []


async def test_an_address_that_cannot_be_connected_to_is_left(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    await gateway.stop()
    async with AsyncClient(addresses, environment=time.environment) as client:
        assert (await client.status()).version == "1"
        await client.status()
        assert client.address == other_gateway.address
        assert client.statistics.failovers == 1


async def test_an_order_lost_at_one_gateway_is_sent_to_the_next_under_the_same_id(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script("PlaceOrder", LOST)
    async with AsyncClient(addresses, environment=time.environment) as client:
        assert (await client.place_order("BTC-USDT", Side.BUY, 1, 1)).accepted
    assert gateway.requests["PlaceOrder"] == other_gateway.requests["PlaceOrder"]


async def test_a_gateway_that_is_silent_is_left(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway
) -> None:
    gateway.script("GetStatus", Hang())
    async with AsyncClient(addresses) as client:
        with pytest.raises(TransportError):
            await client.status(timeout=0.05)
        assert client.address == other_gateway.address


async def test_many_calls_that_fail_together_turn_once(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway
) -> None:
    gateway.script("GetStatus", LOST)
    async with AsyncClient(addresses, retry=RetryPolicy(attempts_max=1)) as client:
        results = await asyncio.gather(*(client.status() for _ in range(7)), return_exceptions=True)
        assert all(isinstance(result, TransportError) for result in results)
        assert client.address == other_gateway.address


@pytest.mark.parametrize("part", ["SHARD", "LEDGER", "SUPERVISOR"])
async def test_a_part_that_is_away_from_one_gateway_is_looked_for_at_the_others(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime, part: str
) -> None:
    gateway.script("GetStatus", Refusal(grpc.StatusCode.UNAVAILABLE, f"{part}_UNAVAILABLE", retry_after_ms=500))
    async with AsyncClient(addresses, environment=time.environment) as client:
        await client.status()
        assert client.address == other_gateway.address
        assert client.statistics.failovers == 1
    assert time.slept == [], "the pushback is that of the other gateway"


@pytest.mark.parametrize("part", ["JOURNAL", "FUNDS"])
async def test_what_is_away_at_every_gateway_is_not_looked_for(
    addresses: list[str], gateway: FakeGateway, part: str
) -> None:
    gateway.script("GetStatus", Refusal(grpc.StatusCode.UNAVAILABLE, f"{part}_UNAVAILABLE"))
    async with AsyncClient(addresses) as client:
        with pytest.raises(Unavailable):
            await client.status()
        assert client.address == gateway.address


async def test_a_shard_that_is_away_is_looked_for_once_around(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "REJECT_REASON_SHARD_UNAVAILABLE", retry_after_ms=300)
    gateway.script("PlaceOrder", away)
    other_gateway.script("PlaceOrder", away)
    async with AsyncClient(addresses, environment=time.environment) as client:
        with pytest.raises(Unavailable):
            await client.place_order("BTC-USDT", Side.BUY, 1, 1, client_order_id="a")
    orders = gateway.requests["PlaceOrder"] + other_gateway.requests["PlaceOrder"]
    assert [order.client_order_id for order in orders] == ["a"] * 3
    assert time.slept == [0.3], "then the exchange is obeyed"


async def test_looking_elsewhere_costs_the_retry_budget(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway
) -> None:
    gateway.script("PlaceOrder", Refusal(grpc.StatusCode.UNAVAILABLE, "SHARD_UNAVAILABLE", retry_after_ms=300))
    async with AsyncClient(addresses, retry=RetryPolicy(budget_max=0)) as client:
        with pytest.raises(Unavailable):
            await client.place_order("BTC-USDT", Side.BUY, 1, 1)
    assert other_gateway.requests["PlaceOrder"] == []


async def test_orders_of_a_batch_whose_shard_is_away_are_sent_elsewhere(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    away = rejected(types_pb2.REJECT_REASON_SHARD_UNAVAILABLE, "b", retry_after_ms=500)
    gateway.script("PlaceOrders", trading_pb2.PlaceOrdersResponse(results=[accepted("a"), away]))
    other_gateway.script("PlaceOrders", trading_pb2.PlaceOrdersResponse(results=[accepted("b")]))
    orders = [
        PlaceOrder(instrument="BTC-USDT", side=Side.BUY, quantity=1, price=1, client_order_id=name)
        for name in ("a", "b")
    ]
    async with AsyncClient(addresses, environment=time.environment) as client:
        assert all(result.accepted for result in await client.place_orders(orders))
    (again,) = other_gateway.requests["PlaceOrders"]
    assert [order.client_order_id for order in again.orders] == ["b"]
    assert time.slept == []


async def test_a_draining_gateway_is_left_without_waiting_and_without_budget(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script("PlaceOrder", DRAINING)
    policy = RetryPolicy(budget_max=0)
    async with AsyncClient(addresses, retry=policy, environment=time.environment) as client:
        calls = (client.place_order("BTC-USDT", Side.BUY, 1, 1) for _ in range(30))
        assert all(result.accepted for result in await asyncio.gather(*calls))
        assert client.statistics.failovers == 1
    assert time.slept == []


async def test_where_every_gateway_drains_the_call_ends(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script("PlaceOrder", DRAINING)
    other_gateway.script("PlaceOrder", DRAINING)
    async with AsyncClient(addresses, environment=time.environment) as client:
        with pytest.raises(Unavailable, match="GATEWAY_DRAINING"):
            await client.place_order("BTC-USDT", Side.BUY, 1, 1)


async def test_an_order_in_flight_at_a_gateway_that_dies_is_asked_for_with_the_same_id(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway
) -> None:
    gateway.script("PlaceOrder", Hang())
    async with AsyncClient(addresses) as client:
        order = asyncio.create_task(client.place_order("BTC-USDT", Side.BUY, 1, 1, client_order_id="a", timeout=10))
        await until(lambda: gateway.requests["PlaceOrder"])
        await gateway.stop()
        assert (await order).accepted
    assert [order.client_order_id for order in other_gateway.requests["PlaceOrder"]] == ["a"]


async def test_the_last_address_is_followed_by_the_first(
    addresses: list[str], gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script("GetStatus", LOST, STATUS)
    other_gateway.script("GetStatus", LOST)
    async with AsyncClient(addresses, environment=time.environment) as client:
        assert (await client.status()).version == "1"
        assert client.address == gateway.address


async def test_a_closed_client_says_so(addresses: list[str]) -> None:
    client = AsyncClient(addresses)
    await client.aclose()
    with pytest.raises(ClientClosed):
        await client.status()


async def test_closing_a_client_ends_its_calls_with_an_error_rather_than_a_cancellation(
    addresses: list[str], gateway: FakeGateway
) -> None:
    gateway.script("GetStatus", Hang())
    client = AsyncClient(addresses, retry=RetryPolicy(attempts_max=1))
    call = asyncio.create_task(client.status(timeout=10))
    await until(lambda: gateway.requests["GetStatus"])
    await client.aclose()
    with pytest.raises(TransportError):
        await call


def test_a_client_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="addresses: expected at least one"):
        AsyncClient([])
