import asyncio
import zlib

import grpc
import pytest
from google.protobuf.message import Message

from exchange.client import (
    AsyncClient,
    ClientClosed,
    ExecutionType,
    GapDetected,
    Overloaded,
    PermissionDenied,
    TransportError,
)
from exchange.v1 import market_data_pb2, trading_pb2
from tests.client.fake_gateway import (
    DRAINING,
    LOST,
    FakeGateway,
    Refusal,
    VirtualTime,
    plays,
    take,
)

# Executions.


def executions(*sequences: int, shard: str = "shard-0", **start: int) -> Message:
    return trading_pb2.StreamExecutionsResponse(
        executions=[
            trading_pb2.Execution(
                shard=shard,
                sequence=sequence,
                instrument="BTC-USDT",
                order_id=sequence,
                type=trading_pb2.EXECUTION_TYPE_NEW,
            )
            for sequence in sequences
        ],
        start_sequences={name.replace("_", "-"): value for name, value in start.items()},
    )


async def test_executions_go_on_where_each_shard_was(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream(
        "StreamExecutions",
        plays(
            executions(shard_0=10, shard_1=20),
            executions(11, 13),
            executions(25, shard="shard-2"),
            LOST,
        ),
        plays(executions(13, 14), executions(25, shard="shard-2"), executions(15), None),
    )
    async with client.stream_executions() as stream:
        seen = await take(stream, 5)
    assert [execution.sequence for execution in seen] == [11, 13, 25, 14, 15]
    assert seen[0].type is ExecutionType.NEW
    first, second = gateway.requests["StreamExecutions"]
    assert dict(first.after_sequences) == {}
    # Before the last one, of which there may be more; and also of the shard that was silent, or its
    # executions during the loss would be missed.
    assert dict(second.after_sequences) == {"shard-0": 12, "shard-1": 20, "shard-2": 24}
    assert stream.reconnects == 1


async def test_executions_go_on_from_where_a_silent_stream_was(client: AsyncClient, gateway: FakeGateway) -> None:
    progress = trading_pb2.StreamExecutionsResponse(sequences={"shard-0": 90, "shard-1": 5})
    gateway.script_stream(
        "StreamExecutions",
        plays(executions(shard_0=10, shard_1=20), executions(11), progress, LOST),
        plays(executions(91), None),
    )
    async with client.stream_executions() as stream:
        seen = await take(stream, 2)
    assert [execution.sequence for execution in seen] == [11, 91]
    assert dict(gateway.requests["StreamExecutions"][1].after_sequences) == {"shard-0": 90, "shard-1": 20}


async def test_executions_start_after_what_the_user_has_seen(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("StreamExecutions", plays(executions(8), None))
    async with client.stream_executions(after={"shard-0": 7}) as stream:
        await take(stream, 1)
    assert dict(gateway.requests["StreamExecutions"][0].after_sequences) == {"shard-0": 7}


async def test_executions_of_one_command_that_a_lost_connection_split_come_once_each(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script_stream(
        "StreamExecutions",
        plays(executions(7, 8, 8), LOST),
        plays(executions(8, 8), LOST),
        plays(executions(8, 8, 8), executions(8, 9), None),
    )
    async with client.stream_executions() as stream:
        seen = await take(stream, 6)
        assert stream.position == {"shard-0": 8}
    assert [execution.sequence for execution in seen] == [7, 8, 8, 8, 8, 9]


async def test_executions_that_are_no_longer_held_are_a_gap(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream(
        "StreamExecutions",
        plays(executions(8), LOST),
        plays(Refusal(grpc.StatusCode.OUT_OF_RANGE)),
    )
    stream = client.stream_executions()
    await take(stream, 1)
    with pytest.raises(GapDetected) as caught:
        await anext(stream)
    assert caught.value.position == {"shard-0": 7}


# Coming back.


TICK = market_data_pb2.StreamTickerResponse(ticker=market_data_pb2.Ticker(bid_price=100))


async def test_a_stream_comes_back_with_growing_jittered_waits(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script_stream("StreamTicker", plays(LOST), plays(LOST), plays(LOST), plays(TICK, None))
    async with client.stream_ticker("BTC-USDT") as stream:
        (ticker,) = await take(stream, 1)
    assert str(ticker.bid_price) == "1.00"
    assert ticker.ask_price is None
    assert time.slept == pytest.approx([0.05, 0.1, 0.2])
    assert stream.reconnects == client.statistics.reconnects == 3


async def test_after_a_connection_that_held_the_waits_are_short_again(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script_stream("StreamTicker", plays(LOST), plays(LOST), plays(TICK, LOST), plays(TICK, None))
    async with client.stream_ticker("BTC-USDT") as stream:
        await take(stream, 1)
        time.now += 60
        await take(stream, 1)
    assert time.slept == pytest.approx([0.05, 0.1, 0.05])


async def test_a_stream_that_the_server_ends_in_good_order_comes_back(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script_stream("StreamTicker", plays(TICK), plays(TICK, None))
    async with client.stream_ticker("BTC-USDT") as stream:
        assert len(await take(stream, 2)) == 2


async def test_a_stream_turns_to_the_next_address(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script_stream("StreamTicker", plays(TICK, LOST))
    other_gateway.script_stream("StreamTicker", plays(TICK, None))
    addresses = [gateway.address, other_gateway.address]
    async with (
        AsyncClient(addresses, environment=time.environment) as client,
        client.stream_ticker("BTC-USDT") as stream,
    ):
        await take(stream, 2)
        assert client.address == other_gateway.address


async def test_a_stream_leaves_a_draining_gateway_at_once_and_waits_where_all_drain(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    other_gateway.script_stream("StreamExecutions", plays(executions(2), DRAINING), plays(DRAINING))
    gateway.script_stream(
        "StreamExecutions", plays(executions(1), DRAINING), plays(DRAINING), plays(executions(3), None)
    )
    addresses = [gateway.address, other_gateway.address]
    async with (
        AsyncClient(addresses, environment=time.environment) as client,
        client.stream_executions() as stream,
    ):
        assert [execution.sequence for execution in await take(stream, 3)] == [1, 2, 3]
    # Half of what a move is spread over; then, with nowhere left to go, half of the backoff.
    assert time.slept == [0.025, 0.025, 0.05, 0.1]
    assert client.statistics.failovers == 4


async def test_a_stream_obeys_pushback(client: AsyncClient, gateway: FakeGateway, time: VirtualTime) -> None:
    busy = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", pushback="1500")
    gateway.script_stream("StreamTicker", plays(busy), plays(TICK, None))
    async with client.stream_ticker("BTC-USDT") as stream:
        await take(stream, 1)
    assert time.slept == [1.5]


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"), Overloaded),
        (Refusal(grpc.StatusCode.PERMISSION_DENIED), PermissionDenied),
        (Refusal(grpc.StatusCode.UNAVAILABLE, pushback="-1"), TransportError),
    ],
)
async def test_a_stream_ends_with_what_coming_back_cannot_mend(
    client: AsyncClient, gateway: FakeGateway, refusal: Refusal, kind: type[Exception]
) -> None:
    gateway.script_stream("StreamTicker", plays(refusal))
    with pytest.raises(kind):
        await anext(client.stream_ticker("BTC-USDT"))


async def test_a_stream_without_a_connection_for_too_long_gives_up(gateway: FakeGateway, time: VirtualTime) -> None:
    gateway.script_stream("StreamTicker", plays(LOST))
    client = AsyncClient(gateway.address, reconnect_timeout=5.0, environment=time.environment)
    async with client:
        start = time.now
        with pytest.raises(TransportError):
            await anext(client.stream_ticker("BTC-USDT"))
    assert 5.0 <= time.now - start <= 7.0


async def test_closing_the_client_ends_its_streams_with_an_error(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("StreamTicker", plays(TICK, None))
    stream = client.stream_ticker("BTC-USDT")
    await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await client.aclose()
    with pytest.raises(ClientClosed):
        await reading


# Order books.


def update(
    sequence: int, previous: int = 0, *, quantity: int = 5, wrong: bool = False
) -> market_data_pb2.OrderBookUpdate:
    """The book with one bid at 100; without `previous`, a snapshot."""
    return market_data_pb2.OrderBookUpdate(
        snapshot=not previous,
        sequence=sequence,
        previous_sequence=previous,
        bids=[market_data_pb2.PriceLevel(price=100, quantity=quantity, orders=1)],
        checksum=zlib.crc32(f"100:{quantity}".encode()) ^ wrong,
    )


def book(*updates: market_data_pb2.OrderBookUpdate) -> Message:
    return market_data_pb2.StreamOrderBookResponse(updates=updates)


async def test_a_book_is_kept_from_a_snapshot_and_changes(client: AsyncClient, gateway: FakeGateway) -> None:
    changes = book(update(12, 10, quantity=6), update(13, 12, quantity=7))
    gateway.script_stream("StreamOrderBook", plays(book(update(10)), changes, None))
    async with client.stream_order_book("BTC-USDT", depth=5) as stream:
        first = await anext(stream)
        kept = first.copy()
        second = await anext(stream)
    assert first is second
    assert (kept.sequence, kept.bids.raw()) == (10, [(100, 5, 1)])
    assert (second.sequence, second.bids.raw()) == (13, [(100, 7, 1)])
    assert gateway.requests["StreamOrderBook"][0].depth == 5


@pytest.mark.parametrize(
    "bad", [update(12, 11, quantity=6), update(12, 10, quantity=6, wrong=True)], ids=["gap", "checksum"]
)
async def test_a_book_that_went_wrong_is_subscribed_to_anew_and_never_yielded(
    client: AsyncClient, gateway: FakeGateway, bad: market_data_pb2.OrderBookUpdate
) -> None:
    gateway.script_stream(
        "StreamOrderBook",
        plays(book(update(10)), book(bad), None),
        plays(book(update(20, quantity=9)), None),
    )
    async with client.stream_order_book("BTC-USDT") as stream:
        sequences = [(await anext(stream)).sequence for _ in range(2)]
        assert stream.resyncs == client.statistics.resyncs == 1
        assert stream.reconnects == 0
    assert sequences == [10, 20]
    assert len(gateway.requests["StreamOrderBook"]) == 2


async def test_a_book_that_stays_wrong_is_not_asked_for_in_a_rush(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    wrong = plays(book(update(10, wrong=True)))
    gateway.script_stream("StreamOrderBook", *[wrong] * 8, plays(book(update(10)), None))
    async with client.stream_order_book("BTC-USDT") as stream:
        await anext(stream)
        assert stream.resyncs == 8
    assert time.slept == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


async def test_a_book_after_a_lost_connection_starts_from_a_snapshot(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream(
        "StreamOrderBook",
        plays(book(update(10)), LOST),
        plays(book(update(12, 10, quantity=6)), None),  # follows on, but nothing says from where
        plays(book(update(12, quantity=6)), None),
    )
    async with client.stream_order_book("BTC-USDT") as stream:
        assert [(await anext(stream)).sequence for _ in range(2)] == [10, 12]
        assert (stream.reconnects, stream.resyncs) == (1, 1)


async def test_a_book_that_is_asked_for_once_is_checked_too(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("GetOrderBook", market_data_pb2.GetOrderBookResponse(book=update(10)))
    assert (await client.order_book("BTC-USDT")).sequence == 10
    wrong = market_data_pb2.GetOrderBookResponse(book=update(10, wrong=True))
    gateway.script("GetOrderBook", wrong)
    with pytest.raises(GapDetected):
        await client.order_book("BTC-USDT")


# Trades.


def trades(*ids: int) -> list[market_data_pb2.Trade]:
    return [market_data_pb2.Trade(instrument="BTC-USDT", trade_id=i, price=100, quantity=1) for i in ids]


def traded(*ids: int) -> Message:
    return market_data_pb2.StreamTradesResponse(trades=trades(*ids))


async def test_trades_that_a_lost_connection_hid_are_read_up(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("StreamTrades", plays(traded(4, 5), LOST), plays(traded(9, 10), None))
    gateway.script("ListTrades", market_data_pb2.ListTradesResponse(trades=trades(*range(1, 11))))
    async with client.stream_trades("BTC-USDT") as stream:
        assert [trade.trade_id for trade in await take(stream, 7)] == [4, 5, 6, 7, 8, 9, 10]
        assert stream.gaps == 0


async def test_a_trade_is_seen_once(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("StreamTrades", plays(traded(4, 5), LOST), plays(traded(4, 5, 6), None))
    async with client.stream_trades("BTC-USDT") as stream:
        assert [trade.trade_id for trade in await take(stream, 3)] == [4, 5, 6]


async def test_trades_that_are_no_longer_listed_count_as_a_gap(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("StreamTrades", plays(traded(4), LOST), plays(traded(9), None))
    gateway.script("ListTrades", market_data_pb2.ListTradesResponse(trades=trades(7, 8, 9)))
    async with client.stream_trades("BTC-USDT") as stream:
        assert [trade.trade_id for trade in await take(stream, 4)] == [4, 7, 8, 9]
        assert stream.gaps == 1
