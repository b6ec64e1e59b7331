"""The market data half of a client: public, no key needed."""

from exchange.client._book import OrderBook
from exchange.client._call import Caller
from exchange.client._enums import CandleInterval
from exchange.client._instruments import Instrument, InstrumentCache
from exchange.client._market_data import Candle, Ticker, Trade
from exchange.client._rpcs import GET_ORDER_BOOK, GET_TICKER, LIST_CANDLES, LIST_TRADES
from exchange.client._streams import Stream, Streams
from exchange.v1 import market_data_pb2


class MarketDataMethods:
    """Answered also while a shard is away, from its last state; `stage` says so."""

    _caller: Caller
    _instruments: InstrumentCache
    _streams: Streams

    async def instruments(self, *, timeout: float | None = None) -> list[Instrument]:
        """All that is traded, asked anew at each call."""
        return await self._instruments.fetch(timeout)

    async def order_book(self, instrument: str, depth: int = 0, *, timeout: float | None = None) -> OrderBook:
        """The book as it is now; `depth` levels a side, 0: all."""
        scales = await self._instruments.get(instrument)
        request = market_data_pb2.GetOrderBookRequest(instrument=instrument, depth=depth)
        response = await self._caller.call(GET_ORDER_BOOK, request, timeout=timeout)
        book = OrderBook(scales, depth)
        book.apply(response.book)
        return book

    async def trades(self, instrument: str, limit: int = 100, *, timeout: float | None = None) -> list[Trade]:
        """The newest `limit` (at most 1,000), newest last."""
        scales = await self._instruments.get(instrument)
        request = market_data_pb2.ListTradesRequest(instrument=instrument, limit=limit)
        response = await self._caller.call(LIST_TRADES, request, timeout=timeout)
        return [Trade.from_proto(message, scales) for message in response.trades]

    async def ticker(self, instrument: str, *, timeout: float | None = None) -> Ticker:
        """The last 24 hours."""
        scales = await self._instruments.get(instrument)
        request = market_data_pb2.GetTickerRequest(instrument=instrument)
        response = await self._caller.call(GET_TICKER, request, timeout=timeout)
        return Ticker.from_proto(response.ticker, scales)

    async def candles(
        self,
        instrument: str,
        interval: CandleInterval,
        limit: int = 100,
        *,
        timeout: float | None = None,
    ) -> list[Candle]:
        """The newest `limit` (at most 1,000), newest last."""
        scales = await self._instruments.get(instrument)
        request = market_data_pb2.ListCandlesRequest(
            instrument=instrument,
            interval=market_data_pb2.CandleInterval.ValueType(interval),
            limit=limit,
        )
        response = await self._caller.call(LIST_CANDLES, request, timeout=timeout)
        return [Candle.from_proto(message, scales) for message in response.candles]

    def stream_order_book(self, instrument: str, depth: int = 0) -> Stream[OrderBook]:
        """The book, yielded after each change; `depth` is 1, 5, 50, or 0 for all.

        It is one live object (`copy()` keeps a moment). Each change is checked to follow on the one
        before, and each state against the exchange's checksum; a book that went wrong is subscribed to
        anew by itself, and counted in the stream's `resyncs`.
        """
        return self._streams.order_book(instrument, depth)

    def stream_trades(self, instrument: str) -> Stream[Trade]:
        """Trades as they happen. What a lost connection hid is read up, as far as the exchange lists
        it; the stream's `gaps` counts where that was not far enough."""
        return self._streams.trades(instrument)

    def stream_ticker(self, instrument: str) -> Stream[Ticker]:
        """The ticker, whenever it changes."""
        return self._streams.ticker(instrument)
