"""The asynchronous client."""

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import grpc

from exchange.client._account_methods import AccountMethods
from exchange.client._admin_methods import AdminMethods
from exchange.client._call import Caller, Metadata, Statistics
from exchange.client._channels import ChannelOptions, Channels
from exchange.client._environment import Environment
from exchange.client._instruments import InstrumentCache
from exchange.client._market_data_methods import MarketDataMethods
from exchange.client._orders import OrderEntry
from exchange.client._retry import RetryName, RetryPolicy
from exchange.client._streams import Streams
from exchange.client._trading import TradingMethods


class AsyncClient(TradingMethods, MarketDataMethods, AccountMethods, AdminMethods):
    """A client of an exchange, for one event loop.

        async with AsyncClient("localhost:50051", api_key) as client:
            result = await client.place_order("BTC-USDT", Side.BUY, "0.5", "60000.10")

    Args:
        addresses: `host:port` of a gateway, or several: the next one is turned to when one fails.
        api_key: the secret of a key; market data needs none.
        timeout: seconds that a call may take, all its attempts together.
        retry: when a call is tried again: a policy, or "none", "budget" (the default) or, for experiments, "naive".
        settle_timeout: seconds for the one question after a command whose outcome stayed unknown,
            and for the answer of a session's batch to come back after its deadline.
        reconnect_timeout: seconds after which a stream or session that gets no connection gives up;
            None: never.
        credentials: of TLS; None: no TLS.
        keepalive: seconds of silence after which a connection is probed, so that streams notice a
            dead one; None: never. The exchange's gateways allow 5 s and more.
        channel_options: more options of the gRPC channels.
        environment: clock, sleep and randomness.
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
        self._channels = Channels(addresses, credentials=credentials, keepalive=keepalive, options=channel_options)
        metadata: Metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        self._caller = Caller(
            self._channels,
            metadata=metadata,
            timeout=timeout,
            policy=retry if isinstance(retry, RetryPolicy) else RetryPolicy.named(retry),
            environment=environment or Environment(),
        )
        self._instruments = InstrumentCache(self._caller)
        self._orders = OrderEntry(self._caller, self._instruments, settle_timeout)
        self._streams = Streams(self._caller, self._instruments, reconnect_timeout)

    @property
    def statistics(self) -> Statistics:
        """Counts so far, as a copy."""
        return replace(self._caller.statistics)

    @property
    def address(self) -> str:
        """Of the gateway that the next call goes to."""
        return self._channels.address

    async def aclose(self) -> None:
        """Closes the connections; calls and streams under way end with an error."""
        await self._channels.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
