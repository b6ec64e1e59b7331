"""Streams that outlive their connection: they open again, go on where they were, and tell a gap."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from exchange.client._accounts import Balance, BalanceChange, BalanceUpdate
from exchange.client._book import OrderBook
from exchange.client._call import Caller
from exchange.client._channels import Gateway
from exchange.client._errors import (
    GATEWAY_DRAINING,
    ClientClosed,
    EvenkeelError,
    GapDetected,
    TransportError,
    Unavailable,
    forbids_return,
    from_rpc_error,
)
from exchange.client._instruments import Instrument, InstrumentCache
from exchange.client._market_data import Ticker, Trade
from exchange.client._results import Execution
from exchange.client._rpcs import (
    LIST_TRADES,
    STREAM_BALANCES,
    STREAM_EXECUTIONS,
    STREAM_ORDER_BOOK,
    STREAM_TICKER,
    STREAM_TRADES,
    RequestT,
    ResponseT,
    Rpc,
)
from exchange.v1 import account_pb2, market_data_pb2, trading_pb2

logger = logging.getLogger("exchange.client")

T = TypeVar("T")

# A connection that held this long was a good one: the next failure is the first of its kind again.
_STABLE_S = 10.0
_TRADES_MAX = 1000
# The streams of a gateway that drains go elsewhere at once, but not all at the same moment.
_MOVE_S_MAX = 0.05


class Stream(AsyncIterator[T]):
    """What happens, as it happens, until it is closed; an async iterator and context manager.

    It opens again by itself after a loss (with full jitter, at the next address if there is one), for
    as long as `reconnect_timeout` of the client. It ends by raising what coming back cannot mend.
    """

    def __init__(self) -> None:
        self.reconnects = 0
        """Connections after the first one."""
        self.resyncs = 0
        """Of an order book: subscriptions anew after a gap or a wrong checksum."""
        self.gaps = 0
        """Of trades: times that some were missed for good."""
        self.position: dict[str, int] = {}
        """Of executions: shard → sequence up to which all were surely read; for `after`. Of balances: "ledger"
        and shards, up to where all is in the updates that were read."""
        self._source: AsyncGenerator[T, None] | None = None

    def _reads(self, source: AsyncGenerator[T, None]) -> "Stream[T]":
        self._source = source
        return self

    def __aiter__(self) -> "Stream[T]":
        return self

    async def __anext__(self) -> T:
        if self._source is None:
            raise StopAsyncIteration
        return await anext(self._source)

    async def aclose(self) -> None:
        if self._source is not None:
            await self._source.aclose()

    async def __aenter__(self) -> "Stream[T]":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class Reconnect:
    """Whether and when a broken stream is opened again."""

    def __init__(self, caller: Caller, what: str, timeout_s: float | None) -> None:
        self._caller = caller
        self._what = what
        self._timeout_s = timeout_s
        self._failures = 0
        self._moves = 0
        """Gateways in a row that were left because they drain."""
        self._opened = caller.environment.clock()
        self._down_since: float | None = None

    def opened(self) -> None:
        self._opened = self._caller.environment.clock()

    def heard(self) -> None:
        """A message came, so the stream is up."""
        self._down_since = None
        self._moves = 0

    async def broken(self, gateway: Gateway, rpc_error: grpc.aio.AioRpcError | None) -> None:
        """Waits until the stream may be opened again; without an error, the server ended it.

        Raises:
            EvenkeelError: it is over.
        """
        environment = self._caller.environment
        error = None if rpc_error is None else from_rpc_error(rpc_error)
        if self._caller.channels.closed:
            raise ClientClosed(f"{self._what}: the client was closed") from rpc_error
        if error is not None:
            self._caller.note_failure(gateway, error)
            if rpc_error is not None and rpc_error.code() is grpc.StatusCode.OUT_OF_RANGE:
                raise GapDetected(f"{self._what}: {error}") from rpc_error
            # For a stream, which has time, what is away is worth waiting for without a hint.
            may_return = error.worth_retrying or isinstance(error, Unavailable)
            if not may_return or (rpc_error is not None and forbids_return(rpc_error)):
                raise error from rpc_error
        elif self._caller.channels.move_on(gateway):
            # A gateway that ends a stream in good order is about to leave.
            self._caller.statistics.failovers += 1

        if isinstance(error, Unavailable) and error.reason_name == GATEWAY_DRAINING:
            self._moves += 1
            if self._moves <= self._caller.channels.others:
                # It is no failure, and the next gateway is there.
                self._caller.statistics.reconnects += 1
                await environment.sleep(environment.random() * _MOVE_S_MAX)
                return
        now = environment.clock()
        if now - self._opened >= _STABLE_S:
            self._failures = 0
            self._down_since = None
        self._failures += 1
        if self._down_since is None:
            self._down_since = now
        if self._timeout_s is not None and now - self._down_since >= self._timeout_s:
            raise error or TransportError(f"{self._what}: the server ends it again and again")
        delay_s = (error.retry_after if error is not None else None) or self._backoff_s()
        logger.info("stream_reconnecting stream=%s delay_s=%.3f error=%s", self._what, delay_s, error)
        self._caller.statistics.reconnects += 1
        await environment.sleep(delay_s)

    async def resync(self, error: GapDetected) -> None:
        """Waits until a book that went wrong may be subscribed to again."""
        environment = self._caller.environment
        if environment.clock() - self._opened >= _STABLE_S:
            self._failures = 0
        self._failures += 1
        logger.warning("book_resyncing error=%s", error)
        self._caller.statistics.resyncs += 1
        await environment.sleep(self._backoff_s())

    def _backoff_s(self) -> float:
        return self._caller.policy.backoff_s(self._failures, self._caller.environment.random)


class Streams:
    """Opens the streams of a client."""

    def __init__(self, caller: Caller, instruments: InstrumentCache, reconnect_timeout: float | None) -> None:
        self._caller = caller
        self._instruments = instruments
        self._reconnect_timeout_s = reconnect_timeout

    def reconnect(self, what: str) -> Reconnect:
        return Reconnect(self._caller, what, self._reconnect_timeout_s)

    def executions(self, after: Mapping[str, int] | None) -> Stream[Execution]:
        stream = Stream[Execution]()
        stream.position = dict(after or {})
        return stream._reads(self._executions(stream))

    def balances(self, account_id: int, after: Mapping[str, int] | None) -> Stream[BalanceUpdate]:
        stream = Stream[BalanceUpdate]()
        stream.position = dict(after or {})
        return stream._reads(self._balances(stream, account_id))

    def order_book(self, symbol: str, depth: int) -> Stream[OrderBook]:
        stream = Stream[OrderBook]()
        return stream._reads(self._order_book(stream, symbol, depth))

    def trades(self, symbol: str) -> Stream[Trade]:
        stream = Stream[Trade]()
        return stream._reads(self._trades(stream, symbol))

    def ticker(self, symbol: str) -> Stream[Ticker]:
        stream = Stream[Ticker]()
        return stream._reads(self._ticker(stream, symbol))

    async def _follow(
        self,
        stream: Stream[Any],
        rpc: Rpc[RequestT, ResponseT],
        request: Callable[[], RequestT],
        accept: Callable[[ResponseT], None] | None = None,
    ) -> AsyncGenerator[ResponseT, None]:
        """The responses of one connection after the other.

        `request` is asked anew for each, so that it can say where to go on; `accept` raises
        GapDetected for a response that does not follow on, and the next connection begins.
        """
        reconnect = self.reconnect(rpc.name)
        while True:
            gateway = self._caller.channels.current
            reconnect.opened()
            call = gateway.server_stream(rpc)(request(), metadata=self._caller.metadata)
            rpc_error: grpc.aio.AioRpcError | None = None
            gap: GapDetected | None = None
            try:
                async for response in call:
                    reconnect.heard()
                    if accept is not None:
                        accept(response)
                    yield response
            except grpc.aio.AioRpcError as error:
                rpc_error = error
            except GapDetected as error:
                gap = error
            except asyncio.CancelledError as cancelled:
                if self._caller.was_closed():
                    raise ClientClosed(f"{rpc.name}: the client was closed") from cancelled
                raise
            finally:
                call.cancel()
            if gap is not None:
                stream.resyncs += 1
                await reconnect.resync(gap)
            else:
                await reconnect.broken(gateway, rpc_error)
                stream.reconnects += 1

    async def _executions(self, stream: Stream[Execution]) -> AsyncGenerator[Execution, None]:
        # One command's executions share a sequence, and may come in more than one message. So a
        # connection goes on *before* the last sequence seen, and as many of it are left out as were read.
        read: dict[str, tuple[int, int]] = {}
        leave_out: dict[str, tuple[int, int]] = {}

        def request() -> trading_pb2.StreamExecutionsRequest:
            leave_out.clear()
            leave_out.update(read)
            return trading_pb2.StreamExecutionsRequest(after_sequences=stream.position)

        try:
            async with aclosing(self._follow(stream, STREAM_EXECUTIONS, request)) as responses:
                async for response in responses:
                    # Also of shards that are silent so far, so that nothing of them is missed when
                    # the connection breaks before their first execution.
                    for shard, sequence in response.start_sequences.items():
                        stream.position.setdefault(shard, sequence)
                    for shard, sequence in response.sequences.items():
                        # The next gateway may be behind the last.
                        if sequence > stream.position.get(shard, -1):
                            stream.position[shard] = sequence
                            read.pop(shard, None)
                    for message in response.executions:
                        shard, sequence = message.shard, message.sequence
                        again, count = leave_out.get(shard, (0, 0))
                        if sequence == again and count:
                            leave_out[shard] = (again, count - 1)
                            continue
                        latest, count = read.get(shard, (0, 0))
                        read[shard] = (sequence, count + 1 if sequence == latest else 1)
                        stream.position[shard] = sequence - 1
                        instrument = await self._instruments.get(message.instrument)
                        yield Execution.from_proto(message, instrument)
        except GapDetected as gap:
            gap.position = dict(stream.position)
            raise

    async def _balances(self, stream: Stream[BalanceUpdate], account_id: int) -> AsyncGenerator[BalanceUpdate, None]:
        # Of a command whose changes come in more than one message, those that came first.
        begun: list[BalanceChange] = []

        def request() -> account_pb2.StreamBalancesRequest:
            begun.clear()
            return account_pb2.StreamBalancesRequest(account_id=account_id, after_sequences=stream.position)

        try:
            async with aclosing(self._follow(stream, STREAM_BALANCES, request)) as responses:
                async for response in responses:
                    position = stream.position
                    is_first = not position
                    # The next gateway may be behind the last: it neither turns back the position nor tells twice.
                    changes = begun + [
                        BalanceChange.from_proto(m) for m in response.changes if m.sequence > position.get(m.source, -1)
                    ]
                    for source, sequence in response.sequences.items():
                        position[source] = max(position.get(source, -1), sequence)
                    begun[:] = [c for c in changes if c.sequence > position.get(c.source, -1)]
                    changes = [c for c in changes if c.sequence <= position.get(c.source, -1)]
                    if changes or is_first:
                        balances = tuple(Balance.from_proto(message) for message in response.balances)
                        away = tuple(response.unavailable_shards)
                        yield BalanceUpdate(balances, tuple(changes), dict(position), away)
        except GapDetected as gap:
            gap.position = dict(stream.position)
            raise

    async def _order_book(self, stream: Stream[OrderBook], symbol: str, depth: int) -> AsyncGenerator[OrderBook, None]:
        instrument = await self._instruments.get(symbol)
        book = OrderBook(instrument, depth)

        def request() -> market_data_pb2.StreamOrderBookRequest:
            book.expect_snapshot()
            return market_data_pb2.StreamOrderBookRequest(instrument=symbol, depth=depth)

        def accept(response: market_data_pb2.StreamOrderBookResponse) -> None:
            for update in response.updates:
                book.apply(update)

        responses = self._follow(stream, STREAM_ORDER_BOOK, request, accept)
        async with aclosing(responses):
            async for _ in responses:
                yield book

    async def _trades(self, stream: Stream[Trade], symbol: str) -> AsyncGenerator[Trade, None]:
        instrument = await self._instruments.get(symbol)
        last_id = 0

        def request() -> market_data_pb2.StreamTradesRequest:
            return market_data_pb2.StreamTradesRequest(instrument=symbol)

        async with aclosing(self._follow(stream, STREAM_TRADES, request)) as responses:
            async for response in responses:
                messages = [trade for trade in response.trades if trade.trade_id > last_id]
                # Trade ids count without a gap, so one says that the connection was lost between.
                if messages and last_id and messages[0].trade_id > last_id + 1:
                    missed = await self._missed_trades(instrument, last_id, messages[0].trade_id)
                    if len(missed) < messages[0].trade_id - last_id - 1:
                        stream.gaps += 1
                        logger.warning("trades_missed instrument=%s after=%d", symbol, last_id)
                    messages = [*missed, *messages]
                for message in messages:
                    last_id = message.trade_id
                    yield Trade.from_proto(message, instrument)

    async def _missed_trades(self, instrument: Instrument, last_id: int, next_id: int) -> list[market_data_pb2.Trade]:
        """Those between the two ids that the exchange still lists."""
        request = market_data_pb2.ListTradesRequest(instrument=instrument.symbol, limit=_TRADES_MAX)
        try:
            response = await self._caller.call(LIST_TRADES, request)
        except EvenkeelError as error:
            logger.warning("trades_not_listed instrument=%s error=%s", instrument.symbol, error)
            return []  # the caller counts them as a gap
        return [trade for trade in response.trades if last_id < trade.trade_id < next_id]

    async def _ticker(self, stream: Stream[Ticker], symbol: str) -> AsyncGenerator[Ticker, None]:
        instrument = await self._instruments.get(symbol)

        def request() -> market_data_pb2.StreamTickerRequest:
            return market_data_pb2.StreamTickerRequest(instrument=symbol)

        async with aclosing(self._follow(stream, STREAM_TICKER, request)) as responses:
            async for response in responses:
                yield Ticker.from_proto(response.ticker, instrument)
