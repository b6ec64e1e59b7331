import asyncio

import grpc
import pytest

from exchange.client import (
    AsyncClient,
    ClientClosed,
    RetryPolicy,
    Side,
    TransportError,
    Unavailable,
)
from exchange.v1 import admin_pb2, trading_pb2
from tests.client.fake_gateway import LOST, FakeGateway, Hang, Refusal, VirtualTime, accepted, until

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


@pytest.mark.parametrize("part", ["SHARD", "JOURNAL", "LEDGER", "SUPERVISOR"])
async def test_a_part_that_is_away_is_away_at_every_gateway(
    addresses: list[str], gateway: FakeGateway, part: str
) -> None:
    gateway.script("GetStatus", Refusal(grpc.StatusCode.UNAVAILABLE, f"{part}_UNAVAILABLE"))
    async with AsyncClient(addresses) as client:
        with pytest.raises(Unavailable):
            await client.status()
        assert client.address == gateway.address


async def test_a_shard_that_is_away_is_away_at_every_gateway(addresses: list[str], gateway: FakeGateway) -> None:
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "REJECT_REASON_SHARD_UNAVAILABLE")
    gateway.script("PlaceOrder", away)
    async with AsyncClient(addresses) as client:
        with pytest.raises(Unavailable):
            await client.place_order("BTC-USDT", Side.BUY, 1, 1)
        assert client.address == gateway.address


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
