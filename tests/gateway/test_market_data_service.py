"""MarketDataService over a real gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from exchange.engine.commands import AddInstrument, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.stages import StageRow
from exchange.engine.words import Stage
from exchange.gateway.book_stream import ReaderLimits
from exchange.gateway.market_data import MarketDataLimits, MarketDataService
from exchange.gateway.replica import ShardReplica
from exchange.runtime.feed import FeedBatch, ShardDump, unpack_batch
from exchange.runtime.messages import pack
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import market_data_pb2_grpc
from tests.gateway.money import rich_shard

SYMBOL = "BTC-USDT"
NS_PER_S = 1_000_000_000
START_NS = 1_700_000_000 * NS_PER_S


class Market:
    """A shard, its copy and the service."""

    def __init__(self, **limits: Any) -> None:
        self.shard = rich_shard("BTC", "USDT")
        self.replica = ShardReplica("shard-0")
        self.replica.load(ShardDump(0, 0, 0, [StageRow("", int(Stage.CANCEL_ONLY), 0, "", 0, 0)], []))
        self.replica.set_away(False)
        self.with_host = {"shard-0"}
        self.replicas = {"shard-0": self.replica}
        self.now_ns = START_NS
        self.clock_s = 0.0
        self.does(AddInstrument(Instrument(SYMBOL, "BTC", "USDT", 2, 4, 6)), SetStage(int(Stage.OPEN)))
        self.service = MarketDataService(
            self.replicas,
            {SYMBOL: "shard-0"},
            has_host=self.with_host.__contains__,
            limits=MarketDataLimits(**{"ticker_interval_s": 0.0, **limits}),
            clock_ns=lambda: self.now_ns,
            clock=lambda: self.clock_s,
        )

    def does(self, *batch: Any) -> None:
        first = self.shard.sequence + 1
        applied = self.shard.apply(self.now_ns, batch)
        sent = pack(FeedBatch(1, first, self.shard.sequence, self.now_ns, list(applied.events)))
        self.replica.apply(unpack_batch(sent))

    def places(self, price: int, quantity: int = 1, side: int = 1, account: int = 1) -> None:
        self.does(PlaceOrder(account, f"n{self.shard.sequence}", SYMBOL, side, 1, 1, price, quantity))

    def trades(self, price: int, quantity: int = 1) -> None:
        """Let a buyer take what a seller has just offered."""
        self.places(price, quantity, side=2, account=2)
        self.places(price, quantity)


@asynccontextmanager
async def serving(market: Market, *client_options: tuple[str, int]) -> AsyncIterator[Any]:
    """Serve the market; gives a stub."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    market_data_pb2_grpc.add_MarketDataServiceServicer_to_server(market.service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        channel_to = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=client_options)
        async with asyncio.timeout(10), channel_to as channel:
            yield market_data_pb2_grpc.MarketDataServiceStub(channel)
    finally:
        await server.stop(None)


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds."""
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0)


async def read_to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


def reason_of(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    trailers = dict(error.trailing_metadata() or ())
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    assert info.domain == "evenkeel"
    return error.code(), info.reason


async def test_instruments_are_listed_with_their_shard_and_its_stage() -> None:
    market = Market()
    async with serving(market) as stub:
        (instrument,) = (await stub.ListInstruments(md.ListInstrumentsRequest())).instruments
        assert (instrument.symbol, instrument.shard, instrument.stage) == (SYMBOL, "shard-0", Stage.OPEN)
        assert (instrument.price_scale, instrument.quantity_scale, instrument.quote_scale) == (2, 4, 6)
        market.does(SetStage(int(Stage.LIMITED), 5, "ramp", next_stage_time_ns=8))
        (instrument,) = (await stub.ListInstruments(md.ListInstrumentsRequest())).instruments
        ticker = (await stub.GetTicker(md.GetTickerRequest(instrument=SYMBOL))).ticker
        for told in (instrument, ticker):
            assert (told.stage, told.stage_reason, told.next_stage_time_ns) == (Stage.LIMITED, "ramp", 8)
        market.replica.set_away(True)
        (instrument,) = (await stub.ListInstruments(md.ListInstrumentsRequest())).instruments
        assert (instrument.stage, instrument.stage_reason) == (Stage.REPLAYING, "the shard is away")


@pytest.mark.parametrize("depth", [0, 1, 3, 1_000])
async def test_the_order_book_is_given_to_any_depth_also_while_the_shard_is_away(depth: int) -> None:
    market = Market()
    for price in range(90, 100):
        market.places(price)
    market.replica.set_away(True)
    async with serving(market) as stub:
        book = (await stub.GetOrderBook(md.GetOrderBookRequest(instrument=SYMBOL, depth=depth))).book
    assert [level.price for level in book.bids] == list(range(99, 89, -1))[: depth or None]
    assert (book.snapshot, book.sequence, book.stage) == (True, 12, Stage.REPLAYING)


async def test_trades_are_the_newest_newest_last() -> None:
    market = Market()
    for price in range(100, 110):
        market.trades(price, 2)
    async with serving(market) as stub:
        trades = (await stub.ListTrades(md.ListTradesRequest(instrument=SYMBOL, limit=3))).trades
        assert [(trade.trade_id, trade.price) for trade in trades] == [(8, 107), (9, 108), (10, 109)]
        assert (trades[-1].taker_side, trades[-1].quantity, trades[-1].sequence) == (1, 2, 22)
        assert len((await stub.ListTrades(md.ListTradesRequest(instrument=SYMBOL))).trades) == 10


async def test_the_ticker_is_of_the_last_24_hours() -> None:
    market = Market()
    market.trades(100, 5)
    market.now_ns += 3_600 * NS_PER_S
    market.trades(120)
    market.trades(110, 2)
    market.places(90, 7)
    market.places(130, 8, side=2, account=2)
    async with serving(market) as stub:

        async def ticker() -> Any:
            return (await stub.GetTicker(md.GetTickerRequest(instrument=SYMBOL))).ticker

        first = await ticker()
        assert (first.open_price, first.high_price, first.low_price, first.last_price) == (100, 120, 100, 110)
        assert (first.volume, first.trades, first.last_quantity) == (8, 3, 2)
        assert (first.bid_price, first.bid_quantity, first.ask_price, first.ask_quantity) == (90, 7, 130, 8)
        # Time alone takes the first trade out of sight, though nothing happens in the shard.
        market.now_ns += 23 * 3_600 * NS_PER_S
        second = await ticker()
        assert (second.open_price, second.volume, second.trades, second.last_price) == (120, 3, 2, 110)
        market.now_ns += 3_600 * NS_PER_S
        assert (await ticker()).trades == 0


async def test_candles_are_given_by_interval() -> None:
    market = Market()
    for price in (100, 103, 101):
        market.trades(price)
        market.now_ns += 30 * NS_PER_S
    async with serving(market) as stub:
        request = md.ListCandlesRequest(instrument=SYMBOL, interval=md.CANDLE_INTERVAL_1S, limit=2)
        assert [candle.open_price for candle in (await stub.ListCandles(request)).candles] == [103, 101]
        request.interval = md.CANDLE_INTERVAL_1D
        (day,) = (await stub.ListCandles(request)).candles
        assert (day.open_price, day.high_price, day.low_price, day.close_price) == (100, 103, 100, 101)
        assert (day.volume, day.trades) == (3, 3)


UNKNOWN = grpc.StatusCode.NOT_FOUND, "INSTRUMENT_UNKNOWN"
Call = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda stub: stub.GetOrderBook(md.GetOrderBookRequest(instrument="X")), UNKNOWN),
        (lambda stub: stub.ListTrades(md.ListTradesRequest(instrument="X")), UNKNOWN),
        (lambda stub: stub.GetTicker(md.GetTickerRequest()), UNKNOWN),
        (lambda stub: stub.ListCandles(md.ListCandlesRequest(instrument="X", interval=md.CANDLE_INTERVAL_1S)), UNKNOWN),
        (lambda stub: stub.StreamOrderBook(md.StreamOrderBookRequest(instrument="X")).read(), UNKNOWN),
        (lambda stub: stub.StreamTrades(md.StreamTradesRequest(instrument="X")).read(), UNKNOWN),
        (lambda stub: stub.StreamTicker(md.StreamTickerRequest(instrument="X")).read(), UNKNOWN),
        (
            lambda stub: stub.StreamOrderBook(md.StreamOrderBookRequest(instrument=SYMBOL, depth=7)).read(),
            (grpc.StatusCode.INVALID_ARGUMENT, "DEPTH_INVALID"),
        ),
        (
            lambda stub: stub.ListTrades(md.ListTradesRequest(instrument=SYMBOL, limit=1_001)),
            (grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_INVALID"),
        ),
        (
            lambda stub: stub.ListCandles(
                md.ListCandlesRequest(instrument=SYMBOL, interval=md.CANDLE_INTERVAL_1S, limit=1_001)
            ),
            (grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_INVALID"),
        ),
        (
            lambda stub: stub.ListCandles(md.ListCandlesRequest(instrument=SYMBOL)),
            (grpc.StatusCode.INVALID_ARGUMENT, "INTERVAL_INVALID"),
        ),
    ],
)
async def test_a_request_that_cannot_be_served_says_why(call: Call, expected: tuple[grpc.StatusCode, str]) -> None:
    async with serving(Market()) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(stub)
        assert reason_of(error.value) == expected


STARTING = grpc.StatusCode.UNAVAILABLE, "STARTING"


@pytest.mark.parametrize("has_host", [True, False])
async def test_nothing_is_said_to_be_unknown_while_a_shard_has_not_told_what_it_has(has_host: bool) -> None:
    market = Market()
    market.replicas["shard-1"] = ShardReplica("shard-1")
    if has_host:
        market.with_host.add("shard-1")
    async with serving(market) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.GetOrderBook(md.GetOrderBookRequest(instrument="X"))
        assert reason_of(error.value) == STARTING
        assert (await stub.GetOrderBook(md.GetOrderBookRequest(instrument=SYMBOL))).book.instrument == SYMBOL
        if has_host:
            # It will be told in a moment.
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.ListInstruments(md.ListInstrumentsRequest())
            assert reason_of(error.value) == STARTING
        else:
            listed = (await stub.ListInstruments(md.ListInstrumentsRequest())).instruments
            assert [instrument.symbol for instrument in listed] == [SYMBOL]


async def test_no_instruments_are_listed_before_any_shard_has_told_what_it_has() -> None:
    market = Market()
    market.replicas["shard-0"] = ShardReplica("shard-0")
    market.with_host.clear()
    async with serving(market) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ListInstruments(md.ListInstrumentsRequest())
        assert reason_of(error.value) == STARTING


@pytest.mark.parametrize("depth", [0, 1, 5, 50])
async def test_the_order_book_streams_a_snapshot_and_then_each_change(depth: int) -> None:
    market = Market()
    market.places(100)
    async with serving(market) as stub:
        stream = stub.StreamOrderBook(md.StreamOrderBookRequest(instrument=SYMBOL, depth=depth))
        (first,) = (await stream.read()).updates
        assert (first.snapshot, first.sequence) == (True, 3)
        market.does(*(PlaceOrder(1, f"b{n}", SYMBOL, 1, 1, 1, 101 + n, 1) for n in range(3)))
        updates: list[Any] = []
        while len(updates) < 3:
            updates += (await stream.read()).updates
        assert [(update.previous_sequence, update.sequence) for update in updates] == [(3, 4), (4, 5), (5, 6)]
        assert [max(level.price for level in update.bids) for update in updates] == [101, 102, 103]


async def test_trades_stream_from_the_moment_that_the_call_is_accepted() -> None:
    market = Market()
    market.trades(99)
    async with serving(market) as stub:
        streams = [stub.StreamTrades(md.StreamTradesRequest(instrument=SYMBOL)) for _ in range(2)]
        for stream in streams:
            await stream.initial_metadata()
        for price in (100, 101):
            market.trades(price)
        for stream in streams:
            found: list[Any] = []
            while len(found) < 2:
                found += (await stream.read()).trades
            assert [(trade.trade_id, trade.price) for trade in found] == [(2, 100), (3, 101)]


async def test_the_ticker_streams_what_it_is_and_leaves_out_what_it_was_in_between() -> None:
    market = Market()
    async with serving(market) as stub:
        stream = stub.StreamTicker(md.StreamTickerRequest(instrument=SYMBOL))
        assert (await stream.read()).ticker.stage == Stage.OPEN
        for price in (100, 101, 102):
            market.trades(price)
        assert (await stream.read()).ticker.last_price == 102
        # Somebody else's question must not take the change from the stream.
        market.trades(103)
        assert (await stub.GetTicker(md.GetTickerRequest(instrument=SYMBOL))).ticker.last_price == 103
        assert (await stream.read()).ticker.last_price == 103
        market.replica.set_away(True)
        assert (await stream.read()).ticker.stage == Stage.REPLAYING


async def test_there_are_only_so_many_streams_and_one_that_ends_makes_room() -> None:
    market = Market(streams_max=1)
    async with serving(market) as stub:
        first = stub.StreamTrades(md.StreamTradesRequest(instrument=SYMBOL))
        await first.initial_metadata()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.StreamTicker(md.StreamTickerRequest(instrument=SYMBOL)).read()
        assert reason_of(error.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        first.cancel()
        await until(lambda: not market.service._streams)
        assert not market.replica.books[SYMBOL].tape.watchers
        second = stub.StreamTicker(md.StreamTickerRequest(instrument=SYMBOL))
        assert (await second.read()).ticker.instrument == SYMBOL


class Stuck:
    """The context of a call whose client reads `reads` messages and then no more."""

    def __init__(self, reads: int) -> None:
        self.reads = reads
        self.written: list[Any] = []
        self.is_stuck = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.ended: tuple[grpc.StatusCode, str] | None = None

    async def send_initial_metadata(self, metadata: Any) -> None: ...

    async def write(self, message: Any) -> None:
        if len(self.written) == self.reads:
            self.is_stuck.set()
            await self.goes_on.wait()
        self.written.append(message)

    def time_remaining(self) -> None: ...

    async def abort(self, code: grpc.StatusCode, message: str, trailers: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"]).details[0].Unpack(info)
        self.ended = code, info.reason
        raise asyncio.CancelledError


SLOW = grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER"


async def test_a_client_that_stops_reading_costs_little_and_learns_why_its_stream_has_ended() -> None:
    market = Market(book=ReaderLimits(pending_max=64, merged_levels_max=64, behind_s_max=10.0))
    # Without the probe the connection takes in 64 KB, not what it deems the network to hold.
    async with serving(market, ("grpc.http2.bdp_probe", 0)) as stub:
        stream = stub.StreamOrderBook(md.StreamOrderBookRequest(instrument=SYMBOL))
        await stream.read()
        (reader,) = market.service._books[SYMBOL, 0]._readers
        price = 0
        async with asyncio.timeout(10):
            while reader._behind_since is None:
                price += 1
                market.places(price)
                await asyncio.sleep(0)
        market.clock_s += 11
        market.places(price + 1)
        assert not reader._pending
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_the_end(stream)
        assert reason_of(caught.value) == SLOW
    assert not market.replica.books[SYMBOL].watchers


async def test_a_book_stream_whose_reader_stays_behind_is_ended() -> None:
    market = Market(book=ReaderLimits(pending_max=2, behind_s_max=10.0))
    context = Stuck(1)
    request = md.StreamOrderBookRequest(instrument=SYMBOL)
    task = asyncio.ensure_future(market.service.StreamOrderBook(request, context))
    await until(lambda: bool(context.written))
    market.places(100)
    await context.is_stuck.wait()
    for n in range(10):
        market.places(80 + n)
    market.clock_s += 11
    context.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.ended == SLOW
    assert len(context.written) == 2, "nothing after the message that it was stuck with"


async def test_a_trade_stream_whose_reader_falls_behind_is_ended_rather_than_thinned_out() -> None:
    market = Market(trades_pending_max=3)
    context = Stuck(0)
    task = asyncio.ensure_future(market.service.StreamTrades(md.StreamTradesRequest(instrument=SYMBOL), context))
    await until(lambda: bool(market.replica.books[SYMBOL].tape.watchers))
    market.trades(100)
    await context.is_stuck.wait()
    for n in range(10):
        market.trades(101 + n)
    context.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.ended == SLOW
