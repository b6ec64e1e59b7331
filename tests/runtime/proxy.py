"""A TCP proxy that holds back or cuts what goes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 1 << 16


class Proxy:
    """Listens on a free port and passes on to `target_port`, both on the loopback address.

    Each direction has a gate: while it is closed, what comes is kept and passed on when it opens, or is lost by `cut`.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._changed = threading.Condition()
        self._is_closed = {"up": False, "down": False}
        self._held = {"up": b"", "down": b""}
        self._cuts = 0
        self._sockets: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        self._is_stopped = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def hold(self, direction: str) -> None:
        """Close a gate: `up` to the server, `down` to the client."""
        with self._changed:
            self._held[direction] = b""
            self._is_closed[direction] = True

    def wait_held(self, direction: str, content: bytes, limit_s: float = 30) -> None:
        """Wait until a closed gate holds that content back."""
        with self._changed:
            assert self._changed.wait_for(lambda: content in self._held[direction], limit_s), "nothing came"

    def release(self) -> None:
        """Open both gates; what was held is passed on, unless it was cut."""
        with self._changed:
            self._is_closed = {"up": False, "down": False}
            self._changed.notify_all()

    def say(self, content: bytes) -> None:
        """Send that to the clients, as if the server had."""
        with self._changed:
            for client in self._clients & self._sockets:
                client.sendall(content)

    def cut(self) -> None:
        """Close all connections; what is held is lost. New ones are taken."""
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            _close(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_stopped = True
        _close(self._listener)
        self.release()
        self.cut()

    def _accept(self) -> None:
        while not self._is_stopped:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=10)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            with self._changed:
                self._sockets |= {client, server}
                self._clients.add(client)
                cuts = self._cuts
            for direction, source, sink in (("up", client, server), ("down", server, client)):
                buffer = _Buffer(cuts)
                for work in (self._take, self._give):
                    threading.Thread(target=work, args=(direction, source, sink, buffer), daemon=True).start()

    def _take(self, direction: str, source: socket.socket, sink: socket.socket, buffer: _Buffer) -> None:
        """Read on also while the gate is closed; what is kept is passed on even if the sender has gone."""
        data = b"first"
        while data:
            try:
                data = source.recv(_CHUNK_BYTES)
            except OSError:
                data = b""
            with self._changed:
                if self._is_closed[direction]:
                    self._held[direction] += data
                buffer.content += data
                buffer.is_ended = not data
                self._changed.notify_all()

    def _give(self, direction: str, source: socket.socket, sink: socket.socket, buffer: _Buffer) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: (
                            self._cuts > buffer.cuts
                            or (not self._is_closed[direction] and (buffer.content or buffer.is_ended))
                        )
                    )
                    data, buffer.content = buffer.content, b""
                    if self._cuts > buffer.cuts or not data:
                        return
                sink.sendall(data)
        except OSError:
            pass
        finally:
            _close(source)
            _close(sink)


@dataclass
class _Buffer:
    """What one connection has in one direction. `cuts`: how many there had been when it began."""

    cuts: int
    content: bytes = b""
    is_ended: bool = False


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
