"""MarketDataService: public facts from the gateway's copies, also while a shard is away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from exchange.engine.stages import StageRow
from exchange.gateway.admin import encode_instrument
from exchange.gateway.book_stream import BookView, ReaderLimits, SlowReader, notice, snapshot
from exchange.gateway.errors import abort, abort_as_starting
from exchange.gateway.replica import BookCopy, ShardReplica, all_loaded
from exchange.gateway.trades import INTERVALS_S, Tape, TradeRow
from exchange.v1 import market_data_pb2, market_data_pb2_grpc

DEPTHS = (0, 1, 5, 50)
LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
SLOW_READER_RETRY_MS = 1_000


@dataclass(frozen=True, slots=True)
class MarketDataLimits:
    """Bounds of the streams."""

    streams_max: int = 2_000
    book: ReaderLimits = field(default_factory=ReaderLimits)
    trades_pending_max: int = 10_000
    ticker_interval_s: float = 0.25
    """What happens in between is left out."""


class MarketDataService(market_data_pb2_grpc.MarketDataServiceServicer):
    """`shard_of` maps instruments to shards, `has_host` tells of a shard whether it is there; `clock_ns` is the time of
    day, `clock` counts seconds.
    """

    def __init__(
        self,
        replicas: Mapping[str, ShardReplica],
        shard_of: Mapping[str, str],
        *,
        has_host: Callable[[str], bool] = lambda shard: True,
        limits: MarketDataLimits | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas = replicas
        self._shard_of = shard_of
        self._has_host = has_host
        self._limits = limits or MarketDataLimits()
        self._clock_ns = clock_ns
        self._clock = clock
        self._books: dict[tuple[str, int], BookView] = {}
        self._trades: dict[str, _TradeView] = {}
        self._tickers: dict[str, _TickerView] = {}
        self._streams = 0

    async def ListInstruments(self, request: Any, context: Any) -> market_data_pb2.ListInstrumentsResponse:
        unknown = [name for name, replica in self._replicas.items() if not replica.is_loaded]
        # The others' need not wait for those of a shard that is away for long.
        if len(unknown) == len(self._replicas) or any(map(self._has_host, unknown)):
            await abort_as_starting(context, f"the gateway does not know the instruments of {', '.join(unknown)} yet")
        instruments = [
            encode_instrument(book.instrument, name, notice(replica.stage_of(book.instrument.symbol)))
            for name, replica in self._replicas.items()
            for book in replica.books.values()
        ]
        instruments.sort(key=lambda instrument: instrument.symbol)
        return market_data_pb2.ListInstrumentsResponse(instruments=instruments)

    async def GetOrderBook(self, request: Any, context: Any) -> market_data_pb2.GetOrderBookResponse:
        replica, book = await self._find(request.instrument, context)
        return market_data_pb2.GetOrderBookResponse(book=snapshot(replica, book, request.depth))

    async def ListTrades(self, request: Any, context: Any) -> market_data_pb2.ListTradesResponse:
        _, book = await self._find(request.instrument, context)
        limit = await _limit(request, context)
        rows = list(book.tape.trades)[-limit:]
        return market_data_pb2.ListTradesResponse(trades=[_trade(request.instrument, row) for row in rows])

    async def GetTicker(self, request: Any, context: Any) -> market_data_pb2.GetTickerResponse:
        await self._find(request.instrument, context)
        return market_data_pb2.GetTickerResponse(ticker=self._ticker(request.instrument).now())

    async def ListCandles(self, request: Any, context: Any) -> market_data_pb2.ListCandlesResponse:
        _, book = await self._find(request.instrument, context)
        limit = await _limit(request, context)
        if request.interval not in INTERVALS_S:
            message = "interval: expected one of 1S, 1M, 5M, 1H, 1D"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INTERVAL_INVALID", message)
        candles = [
            market_data_pb2.Candle(
                start_time_ns=row.start_time_ns,
                open_price=row.open,
                high_price=row.high,
                low_price=row.low,
                close_price=row.close,
                volume=row.volume,
                trades=row.trades,
            )
            for row in book.tape.candles(request.interval, limit)
        ]
        return market_data_pb2.ListCandlesResponse(candles=candles)

    # ---------------------------------------------------------------- streams

    async def StreamOrderBook(self, request: Any, context: Any) -> None:  # type: ignore[override]  # writes itself
        replica, _ = await self._find(request.instrument, context)
        if request.depth not in DEPTHS:
            message = f"depth: expected one of {DEPTHS}, was {request.depth}"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "DEPTH_INVALID", message)
        await self._enter(context)
        key = request.instrument, request.depth
        view = self._books.get(key)
        if view is None:
            view = self._books[key] = BookView(replica, *key, clock=self._clock, limits=self._limits.book)
        reader = view.subscribe()
        try:
            while True:
                try:
                    response = await reader.next()
                except SlowReader as error:
                    await _end_slow_reader(context, str(error))
                await context.write(response)
        finally:
            view.unsubscribe(reader)
            self._streams -= 1

    async def StreamTrades(self, request: Any, context: Any) -> None:  # type: ignore[override]
        _, book = await self._find(request.instrument, context)
        await self._enter(context)
        view = self._trades.setdefault(request.instrument, _TradeView(request.instrument))
        reader = view.subscribe(book.tape, self._limits.trades_pending_max)
        try:
            # Tells the client that whatever trades from now on, it will see.
            await context.send_initial_metadata(())
            while True:
                await reader.more.wait()
                if reader.is_slow:
                    await _end_slow_reader(context, f"more than {self._limits.trades_pending_max} trades waited")
                await context.write(market_data_pb2.StreamTradesResponse(trades=reader.take()))
        finally:
            view.unsubscribe(book.tape, reader)
            self._streams -= 1

    async def StreamTicker(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await self._find(request.instrument, context)
        await self._enter(context)
        view = self._ticker(request.instrument)
        sent: market_data_pb2.Ticker | None = None
        try:
            while True:
                ticker = await view.next(sent)
                await context.write(market_data_pb2.StreamTickerResponse(ticker=ticker))
                sent = ticker
        finally:
            self._streams -= 1

    # ---------------------------------------------------------------- what they share

    async def _enter(self, context: Any) -> None:
        if self._streams >= self._limits.streams_max:
            message = f"expected at most {self._limits.streams_max} market data streams"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", message, 5_000)
        self._streams += 1

    async def _find(self, symbol: str, context: Any) -> tuple[ShardReplica, BookCopy]:
        replica = self._replicas.get(self._shard_of.get(symbol, ""))
        if replica is None or symbol not in replica.books:
            if not all_loaded(self._replicas):
                await abort_as_starting(context, f"the gateway does not know yet whether there is {symbol!r}")
            await abort(context, grpc.StatusCode.NOT_FOUND, "INSTRUMENT_UNKNOWN", f"no instrument {symbol!r}")
        return replica, replica.books[symbol]

    def _ticker(self, symbol: str) -> _TickerView:
        view = self._tickers.get(symbol)
        if view is None:
            replica = self._replicas[self._shard_of[symbol]]
            view = _TickerView(replica, symbol, self._clock_ns, self._limits.ticker_interval_s)
            self._tickers[symbol] = view
        return view


class _TradeReader:
    """One stream of trades: bounded, and never thinned out."""

    def __init__(self, pending_max: int) -> None:
        self.more = asyncio.Event()
        self.is_slow = False
        self._pending: deque[market_data_pb2.Trade] = deque()
        self._pending_max = pending_max

    def add(self, trade: market_data_pb2.Trade) -> None:
        if len(self._pending) >= self._pending_max:
            self.is_slow = True
            self._pending.clear()
        elif not self.is_slow:
            self._pending.append(trade)
        self.more.set()

    def take(self) -> list[market_data_pb2.Trade]:
        trades = list(self._pending)[:LIMIT_MAX]
        for _ in trades:
            self._pending.popleft()
        if not self._pending:
            self.more.clear()
        return trades


class _TradeView:
    """The readers of one instrument's trades, for whom each is encoded once."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._readers: list[_TradeReader] = []

    def subscribe(self, tape: Tape, pending_max: int) -> _TradeReader:
        if not self._readers:
            tape.watchers.append(self._on_trade)
        reader = _TradeReader(pending_max)
        self._readers.append(reader)
        return reader

    def unsubscribe(self, tape: Tape, reader: _TradeReader) -> None:
        self._readers.remove(reader)
        if not self._readers:
            tape.watchers.remove(self._on_trade)

    def _on_trade(self, row: TradeRow) -> None:
        trade = _trade(self._symbol, row)
        for reader in self._readers:
            reader.add(trade)


class _TickerView:
    """One instrument's ticker, for all of its readers: worked out once, and no more often than they may get it."""

    def __init__(self, replica: ShardReplica, symbol: str, clock_ns: Callable[[], int], interval_s: float) -> None:
        self._replica = replica
        self._symbol = symbol
        self._clock_ns = clock_ns
        self._interval_s = interval_s
        self._key: tuple[int, StageRow, int] | None = None
        self._latest = market_data_pb2.Ticker()
        self._waiting: list[tuple[asyncio.Future[None], market_data_pb2.Ticker]] = []
        """Streams, each with what it sent last."""
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> market_data_pb2.Ticker:
        """Return the ticker as it is now; the same object for as long as it stays the same."""
        now_ns = max(self._replica.time_ns, self._clock_ns())
        # Of the time it is only the minute that counts: the last 24 hours are counted in minutes.
        book = self._replica.books[self._symbol]
        key = book.sequence, self._replica.stage_of(self._symbol), now_ns // 60_000_000_000
        if key != self._key:
            ticker = _encode_ticker(self._replica, book, now_ns)
            self._key = key
            if ticker != self._latest:
                self._latest = ticker
        return self._latest

    async def next(self, sent: market_data_pb2.Ticker | None) -> market_data_pb2.Ticker:
        """Wait for the end of the interval at least, then until the ticker is another one than `sent`."""
        if sent is not None:
            other = asyncio.get_running_loop().create_future()
            self._waiting.append((other, sent))
            self._arm()
            await other
        return self.now()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        latest = self.now()
        waiting, self._waiting = self._waiting, []
        for other, sent in waiting:
            if sent is latest and not other.done():
                self._waiting.append((other, sent))
            elif not other.done():
                other.set_result(None)
        if self._waiting:
            self._arm()


async def _end_slow_reader(context: Any, message: str) -> NoReturn:
    await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER", message, SLOW_READER_RETRY_MS)


async def _limit(request: Any, context: Any) -> int:
    limit: int = request.limit or LIMIT_DEFAULT
    if limit > LIMIT_MAX:
        message = f"limit: expected at most {LIMIT_MAX}, was {limit}"
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_INVALID", message)
    return limit


def _trade(symbol: str, row: TradeRow) -> market_data_pb2.Trade:
    return market_data_pb2.Trade(
        instrument=symbol,
        trade_id=row.trade_id,
        price=row.price,
        quantity=row.quantity,
        taker_side=row.taker_side,  # type: ignore[arg-type]
        sequence=row.sequence,
        time_ns=row.time_ns,
    )


def _encode_ticker(replica: ShardReplica, book: BookCopy, now_ns: int) -> market_data_pb2.Ticker:
    bid = next(iter(book.bids.top(1)), (0, 0, 0))
    ask = next(iter(book.asks.top(1)), (0, 0, 0))
    day = book.tape.last_day(now_ns)
    return market_data_pb2.Ticker(
        instrument=book.instrument.symbol,
        bid_price=bid[0],
        bid_quantity=bid[1],
        ask_price=ask[0],
        ask_quantity=ask[1],
        last_price=book.tape.last_price,
        last_quantity=book.tape.last_quantity,
        open_price=day.open,
        high_price=day.high,
        low_price=day.low,
        volume=day.volume,
        trades=day.trades,
        sequence=book.sequence,
        time_ns=book.time_ns,
        **notice(replica.stage_of(book.instrument.symbol)),
    )
