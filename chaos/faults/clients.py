"""What clients do to an exchange: they pull their orders or come back all at once, or stop reading market data."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import grpc
import msgspec
from msgspec import Meta

from chaos.faults.injection import FaultNotInjected, TargetUnknown, Wish
from chaos.worlds.lab import Lab
from exchange.v1 import market_data_pb2, market_data_pb2_grpc

EVERYBODY = "everybody"
OPEN_S_MAX = 10.0


class Storm:
    """All clients of a population, or of all, do the same in the same moment."""

    def __init__(self, lab: Lab, population: str, what: str, words: str) -> None:
        self._lab = lab
        self._population = population
        self._what = what
        self._words = words
        self._count = 0
        self.target = population or EVERYBODY

    async def inject(self) -> None:
        self._count = await self._lab.storm(self._what, self._population)

    async def proof(self) -> str:
        if not self._count:
            raise FaultNotInjected(f"expected clients of {self.target} that {self._words}, found none")
        return f"{self._count} clients {self._words}"

    async def rollback(self) -> None:
        """They go on by themselves."""


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


def mass_cancel(lab: Lab, wish: Wish, arguments: object) -> Storm:
    return Storm(lab, _population(lab, wish), "cancel_all", "cancel all their orders")


def reconnect_storm(lab: Lab, wish: Wish, arguments: object) -> Storm:
    return Storm(lab, _population(lab, wish), "reconnect", "drop their connections and come back")


def _population(lab: Lab, wish: Wish) -> str:
    if wish.target in ("", EVERYBODY):
        return ""
    if wish.target not in lab.populations:
        raise TargetUnknown(f"expected {EVERYBODY} or one of {', '.join(lab.populations)}, was {wish.target!r}")
    return wish.target


def slow_reader(lab: Lab, wish: Wish, arguments: ReaderArguments) -> SlowReader:
    # Addresses are those of the gateways in their order.
    names = [f"gateway-{number}" for number in range(len(lab.addresses))]
    if wish.target not in names:
        raise TargetUnknown(f"expected one of {', '.join(names)}, was {wish.target!r}")
    return SlowReader(lab, lab.addresses[names.index(wish.target)], wish.target, arguments.readers)
