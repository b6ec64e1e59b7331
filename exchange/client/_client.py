"""The blocking client: the asynchronous one on a thread of its own, method by method."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import grpc

from exchange.client._async_client import AsyncClient
from exchange.client._call import Statistics
from exchange.client._channels import ChannelOptions
from exchange.client._commands import Command
from exchange.client._environment import Environment
from exchange.client._errors import ClientClosed
from exchange.client._results import OrderResult
from exchange.client._retry import RetryName, RetryPolicy
from exchange.client._session import TradeSession
from exchange.v1 import trading_pb2

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    """An event loop on a private thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a program that forgets to close its client can end.
        self._thread = threading.Thread(target=self._loop.run_forever, name="evenkeel-client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            coroutine.close()
            raise ClientClosed("expected an open client, was closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C above all: what nobody waits for any more must not go on.
            future.cancel()
            raise

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingStream(Iterator[T], Generic[T]):
    """A stream or listing as a plain iterator. Close it, or leave its `with`, to end it early."""

    def __init__(self, loop: _Loop, source: AsyncIterator[T]) -> None:
        self._loop = loop
        self.source = source
        """The asynchronous one, for its counters: `reconnects`, `resyncs`, `gaps`, `position`."""

    def __next__(self) -> T:
        try:
            return self._loop.run(self._next())
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self) -> T:
        return await anext(self.source)

    def close(self) -> None:
        self._loop.run(self._close())

    async def _close(self) -> None:
        aclose = getattr(self.source, "aclose", None)
        if aclose is not None:
            await aclose()

    def __enter__(self) -> "BlockingStream[T]":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class BlockingTradeSession:
    """`TradeSession` for threads: each may send, and their batches are in flight together."""

    def __init__(self, loop: _Loop, session: TradeSession) -> None:
        self._loop = loop
        self._session = session

    def send(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[OrderResult]:
        """As `TradeSession.send`."""
        return self._loop.run(self._session.send(commands, timeout=timeout))

    def encode(self, commands: Sequence[Command]) -> list[trading_pb2.Command]:
        """As `TradeSession.encode`."""
        return self._loop.run(self._session.encode(commands))

    def send_encoded(
        self, commands: Sequence[trading_pb2.Command], *, timeout: float | None = None
    ) -> Sequence[trading_pb2.OrderResult]:
        """As `TradeSession.send_encoded`."""
        return self._loop.run(self._session.send_encoded(commands, timeout=timeout))

    def __enter__(self) -> "BlockingTradeSession":
        self._loop.run(self._session.__aenter__())
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        self._loop.run(self._session.__aexit__(exc_type, *exc_info))


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """The method of the same signature that waits."""

    @functools.wraps(method)
    def wait(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._client, *args, **kwargs))

    return wait


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncIterator[T]],
) -> Callable[Concatenate["Client", P], BlockingStream[T]]:
    """The method of the same signature that returns a plain iterator."""

    @functools.wraps(method)
    def iterate(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> BlockingStream[T]:
        return BlockingStream(self._loop, method(self._client, *args, **kwargs))

    return iterate


class Client:
    """The client for programs without an event loop; safe to use from several threads.

        with Client("localhost:50051", api_key) as client:
            result = client.place_order("BTC-USDT", Side.BUY, "0.5", "60000.10")

    Arguments and methods are those of `AsyncClient`; where that one returns an asynchronous iterator,
    this one returns a plain one.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        api_key: str | None = None,
        *,
        timeout: float = 1.0,
        retry: RetryPolicy | RetryName = "budget",
        settle_timeout: float = 1.0,
        reconnect_timeout: float | None = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
        keepalive: float | None = 10.0,
        channel_options: ChannelOptions = (),
        environment: Environment | None = None,
    ) -> None:
        self._client = AsyncClient(
            addresses,
            api_key,
            timeout=timeout,
            retry=retry,
            settle_timeout=settle_timeout,
            reconnect_timeout=reconnect_timeout,
            credentials=credentials,
            keepalive=keepalive,
            channel_options=channel_options,
            environment=environment,
        )
        self._loop = _Loop()

    place_order = _blocking(AsyncClient.place_order)
    place_orders = _blocking(AsyncClient.place_orders)
    amend_order = _blocking(AsyncClient.amend_order)
    cancel_order = _blocking(AsyncClient.cancel_order)
    cancel_all_orders = _blocking(AsyncClient.cancel_all_orders)
    cancel_all_after = _blocking(AsyncClient.cancel_all_after)
    get_order = _blocking(AsyncClient.get_order)
    list_orders = _iterating(AsyncClient.list_orders)
    stream_executions = _iterating(AsyncClient.stream_executions)

    instruments = _blocking(AsyncClient.instruments)
    order_book = _blocking(AsyncClient.order_book)
    trades = _blocking(AsyncClient.trades)
    ticker = _blocking(AsyncClient.ticker)
    candles = _blocking(AsyncClient.candles)
    stream_order_book = _iterating(AsyncClient.stream_order_book)
    stream_trades = _iterating(AsyncClient.stream_trades)
    stream_ticker = _iterating(AsyncClient.stream_ticker)

    assets = _blocking(AsyncClient.assets)
    balances = _blocking(AsyncClient.balances)
    ledger_entries = _iterating(AsyncClient.ledger_entries)
    fees = _blocking(AsyncClient.fees)
    transfer = _blocking(AsyncClient.transfer)
    stream_balances = _iterating(AsyncClient.stream_balances)

    create_instrument = _blocking(AsyncClient.create_instrument)
    create_account = _blocking(AsyncClient.create_account)
    set_account_tier = _blocking(AsyncClient.set_account_tier)
    list_accounts = _iterating(AsyncClient.list_accounts)
    create_api_key = _blocking(AsyncClient.create_api_key)
    list_api_keys = _iterating(AsyncClient.list_api_keys)
    revoke_api_key = _blocking(AsyncClient.revoke_api_key)
    create_asset = _blocking(AsyncClient.create_asset)
    deposit = _blocking(AsyncClient.deposit)
    withdraw = _blocking(AsyncClient.withdraw)
    hold_stage = _blocking(AsyncClient.hold_stage)
    resume = _blocking(AsyncClient.resume)
    skip_stage = _blocking(AsyncClient.skip_stage)
    unpark = _blocking(AsyncClient.unpark)
    status = _blocking(AsyncClient.status)
    settings = _blocking(AsyncClient.settings)
    settings_history = _blocking(AsyncClient.settings_history)
    check_settings = _blocking(AsyncClient.check_settings)
    apply_settings = _blocking(AsyncClient.apply_settings)
    revert_settings = _blocking(AsyncClient.revert_settings)
    audit = _blocking(AsyncClient.audit)
    events = _blocking(AsyncClient.events)
    start_maintenance = _blocking(AsyncClient.start_maintenance)
    maintenance = _blocking(AsyncClient.maintenance)

    def trade(
        self,
        *,
        cancel_on_disconnect: bool = False,
        timeout: float | None = None,
        in_flight_max: int = 64,
    ) -> BlockingTradeSession:
        """As `AsyncClient.trade`: `with client.trade() as session`."""
        session = self._client.trade(
            cancel_on_disconnect=cancel_on_disconnect,
            timeout=timeout,
            in_flight_max=in_flight_max,
        )
        return BlockingTradeSession(self._loop, session)

    @property
    def statistics(self) -> Statistics:
        """Counts so far, as a copy."""
        return self._client.statistics

    @property
    def address(self) -> str:
        """Of the gateway that the next call goes to."""
        return self._client.address

    def close(self) -> None:
        """Closes the connections and ends the thread; a second time it does nothing."""
        if not self._loop.closed:
            self._loop.run(self._client.aclose())
            self._loop.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
