"""Calls between processes: over real sockets on the loopback address, with whatever may arrive there."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exchange.runtime import calls
from exchange.runtime.calls import CALLS_MAX, KEY_BYTES, Caller, CallServer, Endpoint
from exchange.runtime.messages import pack, unpack
from exchange.runtime.peers import PeerUnavailable

HOST = "127.0.0.1"


class Served:
    """A server's methods: `held` waits until it is let go, and tells how many calls do so."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.held_calls = 0
        self.cancelled = 0
        self.come = asyncio.Condition()

    async def echo(self, *arguments: Any) -> Any:
        return arguments

    async def fail(self, why: str) -> None:
        raise ValueError(why)

    async def unpackable(self) -> Any:
        return object()

    async def held(self) -> str:
        self.held_calls += 1
        async with self.come:
            self.come.notify_all()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            async with self.come:
                self.come.notify_all()
            raise
        return "let go"

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.come, asyncio.timeout(30):
            await self.come.wait_for(condition)


@pytest.fixture
async def served() -> Served:
    return Served()


@pytest.fixture
async def server(served: Served) -> AsyncIterator[CallServer]:
    names = ("echo", "fail", "unpackable", "held")
    server = CallServer({name: getattr(served, name) for name in names})
    yield server
    await server.stop()


@pytest.fixture
async def endpoint(server: CallServer) -> Endpoint:
    return await server.start(HOST)


@pytest.fixture
async def caller(endpoint: Endpoint) -> AsyncIterator[Caller]:
    caller = Caller(finding(endpoint))
    yield caller
    caller.close()


def finding(endpoint: Endpoint) -> Callable[[], Awaitable[Endpoint]]:
    async def find() -> Endpoint:
        return endpoint

    return find


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "little") + content


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_a_call_returns_what_the_method_does(caller: Caller) -> None:
    assert await caller.call("echo", b"\x00\xff", 1, None, ["a", 2.5]) == (b"\x00\xff", 1, None, ("a", 2.5))


@pytest.mark.parametrize("size", [0, 1, 65_535, 1 << 16, 5_000_000])
async def test_frames_of_any_size_arrive(caller: Caller, size: int) -> None:
    assert await caller.call("echo", b"x" * size) == (b"x" * size,)


async def test_calls_go_side_by_side_and_end_in_any_order(caller: Caller, served: Served) -> None:
    held = [asyncio.ensure_future(caller.call("held")) for _ in range(3)]
    answers = await asyncio.gather(*(caller.call("echo", number) for number in range(100)))
    assert answers == [(number,) for number in range(100)]
    await served.until(lambda: served.held_calls == 3)
    assert not any(call.done() for call in held)
    served.let_go.set()
    assert await asyncio.gather(*held) == ["let go"] * 3


@pytest.mark.parametrize(("method", "error"), [("fail", "ValueError: no"), ("unpackable", "TypeError")])
async def test_a_call_that_fails_says_why_and_the_connection_goes_on(caller: Caller, method: str, error: str) -> None:
    arguments = ("no",) if method == "fail" else ()
    with pytest.raises(PeerUnavailable, match=error):
        await caller.call(method, *arguments)
    assert await caller.call("echo") == ()


async def test_who_does_not_wait_any_more_disturbs_nobody(caller: Caller, served: Served) -> None:
    call = asyncio.ensure_future(caller.call("held"))
    await served.until(lambda: served.held_calls == 1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    served.let_go.set()
    assert await caller.call("echo", 1) == (1,)


async def test_calls_end_when_the_server_does_and_its_methods_when_the_caller_does(
    caller: Caller, endpoint: Endpoint, server: CallServer, served: Served
) -> None:
    other = Caller(finding(endpoint))
    left = asyncio.ensure_future(other.call("held"))
    await served.until(lambda: served.held_calls == 1)
    other.close()
    with pytest.raises(PeerUnavailable, match="connection lost"):
        await left
    await served.until(lambda: served.cancelled == 1)

    call = asyncio.ensure_future(caller.call("held"))
    await served.until(lambda: served.held_calls == 2)
    await server.stop()
    with pytest.raises(PeerUnavailable, match="connection lost"):
        await call
    with pytest.raises(PeerUnavailable, match="Connect"):
        await caller.call("echo")


async def test_a_caller_connects_again_after_it_lost_the_connection(caller: Caller, server: CallServer) -> None:
    await caller.call("echo")
    (connection,) = server.served
    connection.close()
    for _ in range(100):
        try:
            assert await caller.call("echo", 2) == (2,)
            break
        except PeerUnavailable:
            continue
    else:
        pytest.fail("never connected again")


async def test_many_who_call_at_once_share_one_connection(endpoint: Endpoint, server: CallServer) -> None:
    asked = 0

    async def find() -> Endpoint:
        nonlocal asked
        asked += 1
        return endpoint

    caller = Caller(find)
    caller.open()
    assert await asyncio.gather(*(caller.call("echo", n) for n in range(20))) == [(n,) for n in range(20)]
    assert (asked, len(server.served)) == (1, 1)
    caller.close()


async def test_a_server_that_cannot_be_found_is_looked_for_again(endpoint: Endpoint) -> None:
    found: list[Endpoint] = []

    async def find() -> Endpoint:
        if not found:
            raise PeerUnavailable("nobody knows it")
        return found[0]

    caller = Caller(find)
    with pytest.raises(PeerUnavailable, match="nobody knows it"):
        await caller.call("echo")
    found.append(endpoint)
    assert await caller.call("echo") == ()
    caller.close()


async def test_nobody_hears_of_an_attempt_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    caller = Caller(finding(Endpoint(HOST, port, b"k" * KEY_BYTES)))
    opening = caller.open()
    await asyncio.wait([opening])
    del opening, caller
    gc.collect()
    assert caplog.records == []


async def test_a_host_that_does_not_take_the_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CONNECT_WAIT_S", 0.01)
    # A queue of one that is full: the next one's handshake is not answered.
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex((HOST, port))
        with pytest.raises(PeerUnavailable, match="Timeout"):
            await Caller(finding(Endpoint(HOST, port, b"k" * KEY_BYTES))).call("echo")
        for connection in waiting:
            connection.close()


async def test_connections_are_given_up_when_the_other_side_is_silent(caller: Caller, server: CallServer) -> None:
    await caller.call("echo")
    ends = [line._transport.get_extra_info("socket") for line in (caller._line, *server.served) if line is not None]
    assert len(ends) == 2
    for end in ends:
        with socket.socket(fileno=socket.dup(end.fileno())) as real:
            assert real.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [real.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [1, 1, 3, 4_000]


def test_the_loop_that_actors_have_does_as_well() -> None:
    async def calls_and_losses() -> None:
        served = Served()
        server = CallServer({"echo": served.echo, "held": served.held})
        caller = Caller(finding(await server.start(HOST)))
        contents = [bytes([n]) * (n * 10_000) for n in range(100)]
        answers = await asyncio.gather(*(caller.call("echo", content) for content in contents))
        assert answers == [(content,) for content in contents]
        held = asyncio.ensure_future(caller.call("held"))
        await served.until(lambda: served.held_calls == 1)
        await server.stop()
        with pytest.raises(PeerUnavailable, match="connection lost"):
            await held
        await served.until(lambda: served.cancelled == 1)

    uvloop.run(calls_and_losses())


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "sent",
    [
        framed(b"x" * KEY_BYTES),
        framed(b""),
        framed(b"x" * KEY_BYTES + b"y"),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["wrong key", "no key", "key too long", "huge", "http"],
)
async def test_who_has_not_the_key_is_turned_away(endpoint: Endpoint, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    with capture_logs() as logs:
        writer.write(sent + framed(pack((1, "echo", ()))))
        assert await until_closed(reader) == b""
    assert [entry["event"] for entry in logs] == ["calls.broken"]
    writer.close()


async def test_who_says_nothing_is_turned_away(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "KEY_WAIT_S", 0.01)
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(framed(endpoint.key)[:20])
    assert await until_closed(reader) == b""
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        framed(b"\xc1"),
        framed(pack(5)),
        framed(pack((1, "echo"))),
        framed(pack((1, "no_such_method", ()))),
        framed(pack((1, "fail", ()))),
        framed(pack((1, ["echo"], ()))),
        b"\xff\xff\xff\xff",
    ],
    ids=["not packed", "no call", "no arguments", "unknown method", "too few", "no name", "huge"],
)
async def test_what_is_no_call_ends_the_connection_alone(endpoint: Endpoint, caller: Caller, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    with capture_logs() as logs:
        writer.write(framed(endpoint.key) + sent)
        assert await until_closed(reader) == b""
    assert [entry["event"] for entry in logs] == ["calls.broken"]
    assert await caller.call("echo", 1) == (1,)
    writer.close()


async def test_a_server_that_answers_nonsense_is_left() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4 + KEY_BYTES + 4)
        writer.write(framed(b"\xc1"))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as nonsense:
        port = nonsense.sockets[0].getsockname()[1]
        caller = Caller(finding(Endpoint(HOST, port, b"k" * KEY_BYTES)))
        with capture_logs() as logs, pytest.raises(PeerUnavailable, match="connection lost"):
            await caller.call("echo")
    assert [entry["event"] for entry in logs] == ["calls.broken"]


async def test_who_asks_for_too_much_at_once_is_read_no_further(endpoint: Endpoint, served: Served) -> None:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    # So much more that the last do not come in one read with the first.
    extra = 100_000
    held = framed(pack((1, "held", ())))
    writer.write(framed(endpoint.key) + held * (CALLS_MAX + extra))
    await served.until(lambda: served.held_calls >= CALLS_MAX)
    assert served.held_calls < CALLS_MAX + extra
    served.let_go.set()
    # Then it goes on with all of them.
    answer = framed(pack((1, True, "let go")))
    async with asyncio.timeout(60):
        assert await reader.readexactly(len(answer) * (CALLS_MAX + extra)) == answer * (CALLS_MAX + extra)
    assert served.held_calls == CALLS_MAX + extra
    writer.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 60), max_size=20))
def test_however_frames_are_cut_they_arrive_whole(contents: list[bytes], cuts: list[int]) -> None:
    class Kept(calls._Frames):
        def __init__(self) -> None:
            super().__init__(1_000)
            self.frames: list[bytes] = []

        def _take(self, frame: bytes) -> None:
            self.frames.append(frame)

    kept = Kept()
    stream = b"".join(map(framed, contents))
    for cut in [*cuts, len(stream)]:
        kept.data_received(stream[:cut])
        stream = stream[cut:]
    assert kept.frames == contents


async def test_an_answer_has_the_number_of_its_call(endpoint: Endpoint) -> None:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(framed(endpoint.key) + framed(pack((7, "echo", (1,)))) + framed(pack((8, "fail", ("no",)))))
    answers = []
    for _ in range(2):
        length = int.from_bytes(await reader.readexactly(4), "little")
        answers.append(unpack(await reader.readexactly(length)))
    assert answers == [(7, True, (1,)), (8, False, "ValueError: no")]
    writer.close()
