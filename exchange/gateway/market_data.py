"""MarketDataService: public facts from the gateway's copies, also while a shard is away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import grpc

from exchange.gateway.admin import encode_instrument
from exchange.gateway.book_stream import BookView, snapshot
from exchange.gateway.candles import INTERVALS_S, TradeRow
from exchange.gateway.errors import abort
from exchange.gateway.replica import BookCopy, ShardReplica
from exchange.v1 import market_data_pb2, market_data_pb2_grpc

DEPTHS = (0, 1, 5, 50)
LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
STREAMS_MAX = 2_000
SLOW_READER_S = 10.0
"""A reader that takes nothing for so long is ended."""
TICKER_INTERVAL_S = 0.25
TRADES_PENDING_MAX = 10_000


class MarketDataService(market_data_pb2_grpc.MarketDataServiceServicer):
    """`shard_of` maps instruments to shards."""

    def __init__(self, replicas: Mapping[str, ShardReplica], shard_of: Mapping[str, str]) -> None:
        self._replicas = replicas
        self._shard_of = shard_of
        self._views: dict[tuple[str, int], BookView] = {}
        self._streams = 0

    async def ListInstruments(self, request: Any, context: Any) -> Any:
        instruments = [
            encode_instrument(book.instrument, name, replica.stage)
            for name, replica in self._replicas.items()
            for book in replica.books.values()
        ]
        instruments.sort(key=lambda instrument: instrument.symbol)
        return market_data_pb2.ListInstrumentsResponse(instruments=instruments)

    async def GetOrderBook(self, request: Any, context: Any) -> Any:
        replica, book = await self._find(request.instrument, context)
        return market_data_pb2.GetOrderBookResponse(book=snapshot(replica, book, request.depth))

    async def ListTrades(self, request: Any, context: Any) -> Any:
        _, book = await self._find(request.instrument, context)
        limit = await _limit(request, context)
        rows = list(book.tape.trades)[-limit:]
        return market_data_pb2.ListTradesResponse(trades=[_trade(request.instrument, row) for row in rows])

    async def GetTicker(self, request: Any, context: Any) -> Any:
        replica, book = await self._find(request.instrument, context)
        return market_data_pb2.GetTickerResponse(ticker=_ticker(replica, book))

    async def ListCandles(self, request: Any, context: Any) -> Any:
        _, book = await self._find(request.instrument, context)
        limit = await _limit(request, context)
        if request.interval not in INTERVALS_S:
            await abort(
                context, grpc.StatusCode.INVALID_ARGUMENT, "INTERVAL_INVALID", "interval: expected one of 1S to 1D"
            )
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
        view = self._views.setdefault(key, BookView(replica, *key))
        reader = view.subscribe()
        try:
            while True:
                await _write(context, await reader.next())
        finally:
            view.unsubscribe(reader)
            self._streams -= 1

    async def StreamTrades(self, request: Any, context: Any) -> None:  # type: ignore[override]
        _, book = await self._find(request.instrument, context)
        await self._enter(context)
        pending: deque[TradeRow] = deque()
        more = asyncio.Event()

        def on_trade(trade: TradeRow) -> None:
            pending.append(trade)
            more.set()

        watchers = book.tape.watchers
        watchers.append(on_trade)
        try:
            while True:
                await more.wait()
                more.clear()
                if len(pending) > TRADES_PENDING_MAX:
                    message = f"more than {TRADES_PENDING_MAX} trades waited"
                    await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER", message)
                trades = [_trade(request.instrument, row) for row in pending]
                pending.clear()
                await _write(context, market_data_pb2.StreamTradesResponse(trades=trades))
        finally:
            watchers.remove(on_trade)
            self._streams -= 1

    async def StreamTicker(self, request: Any, context: Any) -> None:  # type: ignore[override]
        replica, _ = await self._find(request.instrument, context)
        await self._enter(context)
        sent = None
        try:
            while True:
                ticker = _ticker(replica, replica.books[request.instrument])
                if ticker != sent:
                    await _write(context, market_data_pb2.StreamTickerResponse(ticker=ticker))
                    sent = ticker
                await asyncio.sleep(TICKER_INTERVAL_S)
        finally:
            self._streams -= 1

    async def _enter(self, context: Any) -> None:
        if self._streams >= STREAMS_MAX:
            message = f"expected at most {STREAMS_MAX} market data streams"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", message, 5_000)
        self._streams += 1

    async def _find(self, symbol: str, context: Any) -> tuple[ShardReplica, BookCopy]:
        replica = self._replicas.get(self._shard_of.get(symbol, ""))
        if replica is None:
            await abort(context, grpc.StatusCode.NOT_FOUND, "INSTRUMENT_UNKNOWN", f"no instrument {symbol!r}")
        return replica, replica.books[symbol]


async def _write(context: Any, message: Any) -> None:
    """Send a message; end the stream if the reader takes too long for it."""
    try:
        async with asyncio.timeout(SLOW_READER_S):
            await context.write(message)
    except TimeoutError:
        text = f"nothing was read for {SLOW_READER_S:.0f} s"
        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER", text)


async def _limit(request: Any, context: Any) -> int:
    limit: int = request.limit or LIMIT_DEFAULT
    if limit > LIMIT_MAX:
        message = f"limit: expected at most {LIMIT_MAX}, was {limit}"
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_INVALID", message)
    return limit


def _trade(symbol: str, row: TradeRow) -> Any:
    return market_data_pb2.Trade(
        instrument=symbol,
        trade_id=row.trade_id,
        price=row.price,
        quantity=row.quantity,
        taker_side=row.taker_side,  # type: ignore[arg-type]
        sequence=row.sequence,
        time_ns=row.time_ns,
    )


def _ticker(replica: ShardReplica, book: BookCopy) -> Any:
    bid = next(iter(book.bids.top(1)), (0, 0, 0))
    ask = next(iter(book.asks.top(1)), (0, 0, 0))
    day = book.tape.last_day(replica.time_ns)
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
        stage=replica.stage,  # type: ignore[arg-type]
    )
