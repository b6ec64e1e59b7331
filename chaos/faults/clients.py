"""What clients do to an exchange: they pull all orders at once, or stop reading what they asked for."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import grpc
import msgspec
from msgspec import Meta

from chaos.faults.injection import FaultNotInjected, Wish
from chaos.worlds.lab import Lab
from exchange.client import AsyncClient, EvenkeelError
from exchange.v1 import market_data_pb2, market_data_pb2_grpc

CANCEL_S_MAX = 10.0
OPEN_S_MAX = 10.0


class MassCancel:
    """Every client of a population cancels all its orders, in every market, at once."""

    def __init__(self, lab: Lab, population: str) -> None:
        self._lab = lab
        self._keys = lab.keys[population]
        self._count = 0
        self._failed: list[str] = []
        self.target = population

    async def inject(self) -> None:
        await asyncio.gather(*(self._cancel(key) for key in self._keys))

    async def _cancel(self, key: str) -> None:
        async with AsyncClient(self._lab.addresses, key, timeout=CANCEL_S_MAX) as client:
            try:
                result = await client.cancel_all_orders()
            except EvenkeelError as error:
                self._failed.append(f"{type(error).__name__}: {error}")
            else:
                self._count += result.cancelled_orders

    async def proof(self) -> str:
        if self._failed:
            raise FaultNotInjected(
                f"expected all {len(self._keys)} clients to cancel, {len(self._failed)} could not: {self._failed[0]}"
            )
        return f"{len(self._keys)} clients cancelled {self._count:,} orders"

    async def rollback(self) -> None:
        """They quote again by themselves."""


class ReaderArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    readers: Annotated[int, Meta(ge=1, le=1_000)] = 10


class SlowReader:
    """Readers open streams of every market's book and take nothing of it."""

    def __init__(self, lab: Lab, address: str, target: str, readers: int) -> None:
        self._markets = list(lab.markets)
        self._key = lab.probe_key
        self._address = address
        self._readers = readers
        self._channels: list[grpc.aio.Channel] = []
        self._streams: list[Any] = []
        self.target = target

    async def inject(self) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
        metadata = (("authorization", f"Bearer {self._key}"),)
        for _ in range(self._readers):
            channel = grpc.aio.insecure_channel(self._address, options)
            self._channels.append(channel)
            stub = market_data_pb2_grpc.MarketDataServiceStub(channel)
            for market in self._markets:
                request = market_data_pb2.StreamOrderBookRequest(instrument=market)
                self._streams.append(stub.StreamOrderBook(request, metadata=metadata))

    async def proof(self) -> str:
        """Read the first update of each, so that it is a reader, and nothing more."""
        try:
            async with asyncio.timeout(OPEN_S_MAX):
                await asyncio.gather(*(stream.read() for stream in self._streams))
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            raise FaultNotInjected(f"expected {self._readers} readers to be served, found {error!r}") from error
        return f"{len(self._streams)} streams are open and not read"

    async def rollback(self) -> None:
        for stream in self._streams:
            stream.cancel()
        for channel in self._channels:
            await channel.close()
        self._streams.clear()
        self._channels.clear()


def mass_cancel(lab: Lab, wish: Wish, arguments: object) -> MassCancel:
    if wish.target not in lab.keys:
        raise FaultNotInjected(f"expected a population ({', '.join(lab.keys)}), was {wish.target!r}")
    return MassCancel(lab, wish.target)


def slow_reader(lab: Lab, wish: Wish, arguments: ReaderArguments) -> SlowReader:
    # Addresses are those of the gateways in their order.
    names = [f"gateway-{number}" for number in range(len(lab.addresses))]
    if wish.target not in names:
        raise FaultNotInjected(f"expected one of {', '.join(names)}, was {wish.target!r}")
    return SlowReader(lab, lab.addresses[names.index(wish.target)], wish.target, arguments.readers)
