"""A TCP proxy between clients and a gateway, which can delay, hold back and cut what passes. Names are Toxiproxy's."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from dataclasses import dataclass
from typing import Literal

CHUNK_BYTES = 65_536
Direction = Literal["up", "down", "both"]
RETRANSMIT_MS = 200.0
"""Linux's least time until TCP sends again (TCP_RTO_MIN); it doubles each time (RFC 6298, 5.5)."""
RETRANSMITS_MAX = 6
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Toxic:
    """What is done to all that passes in a direction; `up` is to the exchange. `is_cut`: it goes nowhere."""

    direction: Direction = "both"
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float | None = None
    loss: float = 0.0
    """The share of pieces that are lost once, or again: TCP sends them again, so they are late, and all behind them."""
    close_ms: float = 0.0
    """How much later an end hears that the other one has closed."""
    is_cut: bool = False

    def applies(self, direction: Direction) -> bool:
        return self.direction in ("both", direction)


class Proxy:
    """Listens on a port of loopback and passes on to one address."""

    def __init__(self, upstream: str, seed: int = 1) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._toxics: list[Toxic] = []
        self._changed = asyncio.Event()
        self.address = ""
        self.held_bytes = 0
        """Of what came while a direction was cut."""
        self.delayed_chunks = 0
        """By latency, loss or a narrow link."""
        self.late_closes = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    def add(self, toxic: Toxic) -> None:
        self._toxics.append(toxic)

    def remove(self, toxic: Toxic) -> None:
        if toxic in self._toxics:
            self._toxics.remove(toxic)
            self._changed.set()
            self._changed = asyncio.Event()

    def reset(self) -> int:
        """Reset all connections (RST, nothing is flushed); return how many."""
        writers = list(self._writers)
        for writer in writers:
            _abort(writer)
        return len(writers) // 2

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            _abort(writer)  # as a gateway that is gone would
            return
        self._writers.update((writer, up_writer))
        pipes = [
            asyncio.create_task(self._pipe(reader, up_writer, "up")),
            asyncio.create_task(self._pipe(up_reader, writer, "down")),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            for end in (writer, up_writer):
                self._writers.discard(end)
                end.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Pass on what comes, chunk by chunk in its order, until either end is closed."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        passing = asyncio.create_task(self._pass_on(waiting, writer, direction))
        loop = asyncio.get_running_loop()
        try:
            while not passing.done() and (chunk := await reader.read(CHUNK_BYTES)):
                delay_s = self._delay_s(direction)
                self.delayed_chunks += delay_s > 0
                await waiting.put((loop.time() + delay_s, chunk))
            close_s = max((toxic.close_ms for toxic in self._toxics if toxic.applies(direction)), default=0.0) / 1e3
            self.late_closes += close_s > 0
            await waiting.put((loop.time() + close_s, b""))
            await passing
        except ConnectionError:
            pass
        finally:
            passing.cancel()

    async def _pass_on(
        self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, chunk = await waiting.get()
            await asyncio.sleep(due_s - loop.time())
            if not chunk:
                return
            while any(toxic.is_cut and toxic.applies(direction) for toxic in self._toxics):
                self.held_bytes += len(chunk)
                await self._changed.wait()
            rates = [t.bytes_per_s for t in self._toxics if t.bytes_per_s and t.applies(direction)]
            if rates:
                self.delayed_chunks += 1
                await asyncio.sleep(len(chunk) / min(rates))
            writer.write(chunk)
            await writer.drain()

    def _delay_s(self, direction: Direction) -> float:
        delays = [
            toxic.latency_ms
            + self._chance.uniform(-toxic.jitter_ms, toxic.jitter_ms)
            + self._retransmitted_ms(toxic.loss)
            for toxic in self._toxics
            if toxic.applies(direction)
        ]
        return max(sum(delays), 0.0) / 1e3

    def _retransmitted_ms(self, loss: float) -> float:
        """Return how late a piece is for being lost some times, in a row."""
        late_ms, timeout_ms = 0.0, RETRANSMIT_MS
        for _ in range(RETRANSMITS_MAX):
            if not loss or self._chance.random() >= loss:
                break
            late_ms, timeout_ms = late_ms + timeout_ms, timeout_ms * 2
        return late_ms


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a reset, not in order."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
