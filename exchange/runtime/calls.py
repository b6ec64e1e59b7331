"""Calls from one process of the exchange to another, over a TCP connection of their own.

A frame is its length (4 bytes, little-endian) and so many bytes. The first that a caller sends is the server's key;
then each is packed: (number, method, arguments) one way, (number, whether it was done, result or error) the other, in
the order in which the calls end. A connection that breaks that is closed, and so is one whose other side is silent.

NOTE: every gateway makes two such calls for a record, so not over Ray: docs/architecture.md has what either takes.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import structlog

from exchange.runtime.messages import pack, unpack
from exchange.runtime.peers import PeerUnavailable

FRAME_BYTES_MAX = 512 << 20
KEY_BYTES = 32
KEY_WAIT_S = 1.0
CONNECT_WAIT_S = 1.0
CALLS_MAX = 1_000
"""In progress for one connection; what it sends beyond is not read before one of them has ended."""
SILENCE_S_MAX = 4
"""The kernel of the other side answers, whatever its process does: if not for so long, the link is cut."""

_LENGTH_BYTES = 4

_log = structlog.get_logger()

Method = Callable[..., Awaitable[Any]]


class Endpoint(NamedTuple):
    """Where a server is, and the key without which it takes no call."""

    host: str
    port: int
    key: bytes


class _Frames(asyncio.Protocol):
    """Cuts what arrives into frames."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._received = bytearray()
        self._transport: Any = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        at = 0
        while len(received) - at >= _LENGTH_BYTES and not self._is_closed:
            start = at + _LENGTH_BYTES
            length = int.from_bytes(received[at:start], "little")
            if length > self._frame_bytes_max:
                self._break(f"expected a frame of at most {self._frame_bytes_max} bytes, was {length}")
                break
            if len(received) < start + length:
                break
            at = start + length
            with memoryview(received) as view:
                frame = bytes(view[start:at])
            self._take(frame)
        del received[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True

    def _take(self, frame: bytes) -> None:
        raise NotImplementedError

    def _send(self, frame: bytes) -> None:
        if not self._is_closed:
            self._transport.writelines((len(frame).to_bytes(_LENGTH_BYTES, "little"), frame))

    def _break(self, error: str) -> None:
        """Close a connection that does not keep to the protocol."""
        _log.warning("calls.broken", error=error)
        self.close()

    def close(self) -> None:
        self._is_closed = True
        self._transport.abort()


def _socket(address: str) -> socket.socket:
    """Return a socket whose connection the kernel closes if the other side has gone without a word."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_S_MAX - 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S_MAX * 1_000)
    return connection


# -------------------------------------------------------------------- who is called


class CallServer:
    """Serves these methods, by name, on a port of its own. What they take and return must be packable."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self.methods = methods
        self.key = secrets.token_bytes(KEY_BYTES)
        self.served: set[_Served] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str) -> Endpoint:
        """Listen on a free port of this address."""
        # Connections have the options of the socket that they come by.
        listening = _socket(host)
        listening.bind((host, 0))
        self._server = await asyncio.get_running_loop().create_server(lambda: _Served(self), sock=listening)
        return Endpoint(host, listening.getsockname()[1], self.key)

    async def stop(self) -> None:
        """Close everything; calls in progress are cancelled."""
        if self._server is not None:
            self._server.close()
        for served in list(self.served):
            served.close()


class _Served(_Frames):
    """A caller's connection, as the server has it."""

    def __init__(self, server: CallServer) -> None:
        super().__init__(KEY_BYTES)
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_key = False
        self._no_key: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.served.add(self)
        self._no_key = asyncio.get_running_loop().call_later(KEY_WAIT_S, self._break, "no key came")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.served.discard(self)
        self._end_wait_for_key()
        for task in self._tasks:
            task.cancel()

    def _end_wait_for_key(self) -> None:
        if self._no_key is not None:
            self._no_key.cancel()

    def _take(self, frame: bytes) -> None:
        if not self._has_key:
            self._take_key(frame)
            return
        try:
            number, method, arguments = unpack(frame)
            call = self._server.methods[method](*arguments)
        except Exception as error:  # whatever came is no call
            self._break(f"no call: {error!r}"[:200])
            return
        task = asyncio.ensure_future(self._serve(number, call))
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        if len(self._tasks) >= CALLS_MAX:
            self._transport.pause_reading()

    def _take_key(self, key: bytes) -> None:
        if not hmac.compare_digest(key, self._server.key):
            self._break("not the key")
            return
        self._has_key = True
        self._frame_bytes_max = FRAME_BYTES_MAX
        self._end_wait_for_key()

    async def _serve(self, number: int, call: Awaitable[Any]) -> None:
        try:
            answer = pack((number, True, await call))
        except Exception as error:  # the caller is told, whatever it is
            answer = pack((number, False, f"{type(error).__name__}: {error}"[:500]))
        self._send(answer)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) == CALLS_MAX - 1 and not self._is_closed:
            self._transport.resume_reading()


# -------------------------------------------------------------------- who calls


class Caller:
    """Calls the server that `find` tells of; the connection is opened when it is needed, and again when it was lost.

    `find` is asked once. Calls raise `PeerUnavailable` if there is no connection, it is lost before the answer is
    there, or the method raised something: whether the call took effect is unknown.
    """

    def __init__(self, find: Callable[[], Awaitable[Endpoint]]) -> None:
        self._find = find
        self._endpoint: Endpoint | None = None
        self._line: _Line | None = None
        self._opening: asyncio.Task[_Line] | None = None

    def open(self) -> asyncio.Task[_Line]:
        """Begin to connect, if that is not under way."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(_forget)
        return self._opening

    async def call(self, method: str, *arguments: Any) -> Any:
        line = self._line
        if line is None or line.error is not None:
            line = await asyncio.shield(self.open())
        return await line.call(method, arguments)

    async def _open(self) -> _Line:
        if self._endpoint is None:
            self._endpoint = await self._find()
        host, port, key = self._endpoint
        loop = asyncio.get_running_loop()
        connection = _socket(host)
        try:
            async with asyncio.timeout(CONNECT_WAIT_S):
                await loop.sock_connect(connection, (host, port))
            _, line = await loop.create_connection(lambda: _Line(key), sock=connection)
        except OSError as error:
            connection.close()
            raise PeerUnavailable(f"{host}:{port}: {error!r}") from error
        self._line = line
        return line

    def close(self) -> None:
        if self._line is not None:
            self._line.close()


class _Line(_Frames):
    """A connection, as its caller has it."""

    def __init__(self, key: bytes) -> None:
        super().__init__(FRAME_BYTES_MAX)
        self.error: str | None = None
        """Why it is lost."""
        self._key = key
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send(self._key)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.error = f"connection lost: {exc!r}"
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(PeerUnavailable(self.error))

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self.error is not None:
            raise PeerUnavailable(self.error)
        self._number = number = self._number + 1
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self._send(pack((number, method, arguments)))
            return await answer
        finally:
            self._answers.pop(number, None)

    def _take(self, frame: bytes) -> None:
        try:
            number, is_done, result = unpack(frame)
        except Exception as error:  # whatever came is no answer
            self._break(f"no answer: {error!r}"[:200])
            return
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if is_done:
            answer.set_result(result)
        else:
            answer.set_exception(PeerUnavailable(result))


def _forget(opening: asyncio.Task[Any]) -> None:
    """Take note of how an attempt ended that nobody waits for."""
    if not opening.cancelled():
        opening.exception()
