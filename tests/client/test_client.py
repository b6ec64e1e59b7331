"""The blocking client. The gateway of these tests lives on a loop of its own, as in another process."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.message import Message

from exchange.client import (
    AsyncClient,
    Client,
    ClientClosed,
    InvalidNumber,
    PlaceOrder,
    Side,
    TimedOut,
)
from exchange.v1 import account_pb2, market_data_pb2, trading_pb2, types_pb2
from tests.client.fake_gateway import FakeGateway, Hang, accepted, plays, silence


class Elsewhere:
    """A loop on another thread, for what must answer while the test blocks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def remote() -> Iterator[FakeGateway]:
    elsewhere = Elsewhere()
    fake = elsewhere.run(FakeGateway().start())
    yield fake
    elsewhere.run(fake.stop())
    elsewhere.close()


@pytest.fixture
def blocking(remote: FakeGateway) -> Iterator[Client]:
    with Client(remote.address, "secret") as client:
        yield client


def echo(request: Any) -> Message:
    return trading_pb2.PlaceOrderResponse(result=accepted(request.client_order_id, open_quantity=request.quantity))


def test_every_method_of_the_asynchronous_client_is_there_with_its_signature() -> None:
    names = {name for name in dir(AsyncClient) if not name.startswith("_")} - {"aclose"}
    assert names <= set(dir(Client))
    for name in names - {"statistics", "address"}:
        ours = inspect.signature(getattr(Client, name)).parameters
        theirs = inspect.signature(getattr(AsyncClient, name)).parameters
        assert list(ours.values()) == list(theirs.values()), name
    assert list(inspect.signature(Client).parameters.values()) == list(
        inspect.signature(AsyncClient).parameters.values()
    )


def test_a_call_blocks_until_its_result(blocking: Client, remote: FakeGateway) -> None:
    remote.script("PlaceOrder", echo)
    result = blocking.place_order("BTC-USDT", Side.BUY, "0.5", "60000.10")
    assert result.open_quantity == Decimal("0.5")
    assert blocking.statistics.attempts == 2  # the instruments are one


def test_errors_come_through_as_they_are(blocking: Client, remote: FakeGateway) -> None:
    with pytest.raises(InvalidNumber):
        blocking.place_order("BTC-USDT", Side.BUY, "0.00001", 1)
    remote.script("PlaceOrder", Hang())
    remote.script("GetStatus", Hang())
    with pytest.raises(TimedOut):
        blocking.status(timeout=0.05)


def test_several_threads_share_a_client(blocking: Client, remote: FakeGateway) -> None:
    remote.script("PlaceOrder", echo)

    def place(number: int) -> str:
        result = blocking.place_order("BTC-USDT", Side.BUY, 1, 1, client_order_id=f"o-{number}")
        return result.client_order_id

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(place, range(40))) == [f"o-{number}" for number in range(40)]


def test_a_listing_is_a_plain_iterator(blocking: Client, remote: FakeGateway) -> None:
    orders = [types_pb2.Order(instrument="BTC-USDT", order_id=i) for i in (1, 2)]
    remote.script("ListOrders", trading_pb2.ListOrdersResponse(orders=orders))
    assert [order.order_id for order in blocking.list_orders()] == [1, 2]


def test_a_stream_is_a_plain_iterator_that_can_be_left(blocking: Client, remote: FakeGateway) -> None:
    async def play(request: Any, context: Any) -> AsyncIterator[Message]:
        for bid in (100, 200):
            ticker = market_data_pb2.Ticker(bid_price=bid)
            yield market_data_pb2.StreamTickerResponse(ticker=ticker)
        await silence()

    remote.script_stream("StreamTicker", play)
    with blocking.stream_ticker("BTC-USDT") as tickers:
        assert [next(tickers).bid_price for _ in range(2)] == [Decimal("1.00"), Decimal("2.00")]
    assert list(tickers) == []


def test_money_is_moved_and_followed_without_an_event_loop(blocking: Client, remote: FakeGateway) -> None:
    entry = account_pb2.LedgerEntry(asset="USDT", change="-12.50", available="87.50", sequence=5)
    remote.script("Transfer", account_pb2.TransferResponse(entry=entry))
    assert blocking.transfer(3, "USDT", "12.50").entry.available == Decimal("87.50")
    remote.script("ListLedgerEntries", account_pb2.ListLedgerEntriesResponse(entries=[entry]))
    assert [entry.change for entry in blocking.ledger_entries()] == [Decimal("-12.50")]
    remote.script_stream("StreamBalances", plays(account_pb2.StreamBalancesResponse(sequences={"ledger": 4}), None))
    with blocking.stream_balances() as updates:
        assert next(updates).sequences == {"ledger": 4}


def test_a_session_blocks_until_its_results(blocking: Client, remote: FakeGateway) -> None:
    async def play(requests: Any, context: Any) -> AsyncIterator[Message]:
        async for request in requests:
            results = [accepted(command.place.client_order_id) for command in request.commands]
            yield trading_pb2.TradeResponse(request_id=request.request_id, results=results)

    remote.script_stream("Trade", play)
    order = PlaceOrder(instrument="BTC-USDT", side=Side.BUY, quantity=1, price=1, client_order_id="a")
    with blocking.trade() as session:
        assert [result.client_order_id for result in session.send([order])] == ["a"]
        (raw,) = session.send_encoded(session.encode([order]))
        assert raw.order_id == 7


def test_closing_ends_the_thread_and_a_second_time_does_nothing(remote: FakeGateway) -> None:
    threads = threading.active_count()
    client = Client(remote.address)
    client.instruments()
    client.close()
    client.close()
    assert threading.active_count() == threads
    with pytest.raises(ClientClosed):
        client.instruments()
