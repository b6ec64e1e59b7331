from collections.abc import AsyncIterator

import pytest

from exchange.client import AsyncClient
from tests.client.fake_gateway import FakeGateway, VirtualTime


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    fake = await FakeGateway().start()
    yield fake
    await fake.stop()


@pytest.fixture
async def other_gateway() -> AsyncIterator[FakeGateway]:
    fake = await FakeGateway().start()
    yield fake
    await fake.stop()


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
async def client(gateway: FakeGateway, time: VirtualTime) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.address, "secret", environment=time.environment) as made:
        yield made
