"""A proxy passes everything on in order, and does to it what it is told, in the direction that it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chaos.faults.links import SlowClose, SlowCloseArguments
from chaos.worlds import proxy as proxies
from chaos.worlds.proxy import Proxy, Toxic

LIMIT_S = 20


@asynccontextmanager
async def echo_through_proxy() -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy = Proxy(f"{host}:{port}")
    await proxy.start()
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(LIMIT_S):
            yield proxy, reader, writer
    finally:
        writer.close()
        await proxy.close()
        server.close()


async def test_all_of_it_passes_in_order() -> None:
    async with echo_through_proxy() as (proxy, reader, writer):
        sent = bytes(range(256)) * 4_000
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        assert (proxy.held_bytes, proxy.delayed_chunks) == (0, 0)


async def test_latency_delays_and_keeps_the_order() -> None:
    async with echo_through_proxy() as (proxy, reader, writer):
        proxy.add(Toxic("down", latency_ms=50, jitter_ms=40))
        begin_s = asyncio.get_running_loop().time()
        for number in range(5):
            writer.write(b"%d" % number)
            await writer.drain()
        assert await reader.readexactly(5) == b"01234"
        assert asyncio.get_running_loop().time() - begin_s >= 0.01
        assert proxy.delayed_chunks


async def test_what_is_cut_off_is_held_and_comes_when_the_link_is_back() -> None:
    async with echo_through_proxy() as (proxy, reader, writer):
        cut = Toxic("down", is_cut=True)
        proxy.add(cut)
        writer.write(b"who is there?")
        while not proxy.held_bytes:
            await asyncio.sleep(0.01)
        answer = asyncio.create_task(reader.readexactly(13))
        await asyncio.sleep(0)
        assert not answer.done()
        proxy.remove(cut)
        assert await answer == b"who is there?"


async def test_a_cut_upwards_keeps_requests_from_the_exchange() -> None:
    async with echo_through_proxy() as (proxy, _, writer):
        proxy.add(Toxic("up", is_cut=True))
        writer.write(b"lost")
        while not proxy.held_bytes:
            await asyncio.sleep(0.01)
        assert proxy.held_bytes == 4


async def test_a_reset_ends_every_connection_as_a_reset() -> None:
    async with echo_through_proxy() as (proxy, reader, writer):
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)


async def test_a_gateway_that_is_gone_is_gone_through_the_proxy_too() -> None:
    proxy = Proxy("127.0.0.1:1")
    await proxy.start()
    host, _, port = proxy.address.rpartition(":")
    try:
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
            writer.close()
    finally:
        await proxy.close()


async def test_what_is_lost_comes_late_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "RETRANSMIT_MS", 1.0)
    async with echo_through_proxy() as (proxy, reader, writer):
        proxy.add(Toxic("up", loss=0.9))
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        assert proxy.delayed_chunks == 1


async def test_a_narrow_link_is_seen_to_be_one() -> None:
    async with echo_through_proxy() as (proxy, reader, writer):
        proxy.add(Toxic("up", bytes_per_s=1_000.0))
        writer.write(bytes(100))
        await reader.readexactly(100)
        assert proxy.delayed_chunks == 1


async def test_a_slow_close_is_heard_late() -> None:
    async with echo_through_proxy() as (proxy, _, _):
        fault = SlowClose("gateway-0", [proxy], SlowCloseArguments(close_ms=10.0))
        await fault.inject()
        assert "closed 10 ms late" in await fault.proof()
        await fault.rollback()
        await fault.rollback()
