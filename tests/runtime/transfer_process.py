"""A host in a process of its own, with its carrier if it is a shard, for the test that kills it.

Its clock stands still unless it is told to move, so nothing depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import structlog

from exchange.runtime import carrier, host
from exchange.runtime.carrier import Carrier
from exchange.runtime.feed import FeedGap
from exchange.runtime.host import Host
from exchange.runtime.messages import unpack, unpack_batch
from exchange.runtime.storage import KINDS, open_storage
from tests.runtime.wire import Wire

START_NS = 1_700_000_000_000_000_000
DRIVER_SOCKET = "driver.sock"


class LedgerThroughDriver:
    """The ledger, to which calls go through the driver, so that it can kill somebody at each."""

    def __init__(self, wire: Wire, incarnation: int) -> None:
        self._wire = wire
        self.incarnation = incarnation

    async def submit(self, batch: bytes) -> bytes:
        answer: bytes = await self._wire.call("submit", self.incarnation, batch)
        return answer

    async def feed(self, after_sequence: int, timeout_s: float) -> list[bytes] | None:
        answer = await self._wire.call("feed", self.incarnation, after_sequence, timeout_s)
        return None if answer is None else list(answer)

    async def dump(self) -> bytes:
        raise NotImplementedError

    async def query(self, request: bytes) -> bytes:
        answer: bytes = await self._wire.call("query", self.incarnation, request)
        return answer


class HostProcess:
    def __init__(self, directory: Path, name: str) -> None:
        self._now_ns = START_NS
        kind = KINDS[name.partition("-")[0]]
        self._host = Host(kind, *open_storage(directory, name), clock_ns=lambda: self._now_ns)
        self._carrier = Carrier(name, self._host) if kind.name == "shard" else None
        self._wire: Wire | None = None

    async def run(self, directory: Path, name: str, incarnation: int) -> None:
        await self._host.start()
        reader, writer = await asyncio.open_unix_connection(directory / DRIVER_SOCKET)
        self._wire = Wire(reader, writer, self._serve)
        await self._wire.call("hello", name, incarnation)
        await self._wire.closed()

    async def _serve(self, method: str, args: Any) -> Any:
        machine = self._host.machine
        if method == "submit":
            return await self._host.submit(unpack_batch(unpack(args[-1])))
        if method == "feed":
            after_sequence, timeout_s = args[-2:]
            try:
                return await self._host.at.feed.wait(after_sequence, timeout_s)
            except FeedGap:
                return None
        if method == "query":
            return self._host.kind.query(machine, args[-1])
        if method == "dump":
            return self._host.kind.dump(machine, self._host.epoch)
        if method == "clock":
            (self._now_ns,) = args
            return None
        assert method == "ledger", method
        assert self._carrier is not None
        assert self._wire is not None
        (incarnation,) = args
        self._carrier.set_ledger(LedgerThroughDriver(self._wire, incarnation) if incarnation else None)
        return None


def main(directory: str, name: str, incarnation: int) -> None:
    """Run until the driver is gone."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    carrier.RETRY_S = 0.005
    host.REOPEN_INTERVAL_S = 0.005
    asyncio.run(HostProcess(Path(directory), name).run(Path(directory), name, incarnation))
    # The journal's thread needs no farewell.
    os._exit(0)
