"""Calls both ways over one connection between two processes of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from exchange.runtime.messages import pack, unpack
from exchange.runtime.peers import PeerUnavailable

_LENGTH_BYTES = 4


class Wire:
    """`serve` answers the calls of the other side. A call raises `PeerUnavailable` when the connection is gone."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        serve: Callable[[str, Any], Awaitable[Any]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 0
        self._serving: set[asyncio.Task[None]] = set()
        self.is_open = True
        self._task = asyncio.create_task(self._read())

    def start_call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        """Send a call; return what its answer will be."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            answer.set_exception(PeerUnavailable("the connection is gone"))
            return answer
        self._next_id += 1
        self._calls[self._next_id] = answer
        self._write(self._next_id, method, args)
        return answer

    async def call(self, method: str, *args: Any) -> Any:
        return await self.start_call(method, *args)

    async def closed(self) -> None:
        """Wait until the connection is gone, and end what was served to it."""
        await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        self._task.cancel()
        await self.closed()

    def _write(self, call_id: int, method: str, args: Any) -> None:
        data = pack((call_id, method, args))
        self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    async def _read(self) -> None:
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
                call_id, method, args = unpack(await self._reader.readexactly(size))
                if method in {"answer", "unavailable"}:
                    self._take(call_id, method, args)
                else:
                    task = asyncio.create_task(self._answer(call_id, method, args))
                    self._serving.add(task)
                    task.add_done_callback(self._serving.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.is_open = False
            self._writer.close()
            for task in self._serving:
                task.cancel()
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(PeerUnavailable("the connection is gone"))
                    # Whoever asked may be gone as well.
                    answer.exception()

    def _take(self, call_id: int, method: str, args: Any) -> None:
        answer = self._calls.pop(call_id)
        if answer.done():
            return
        if method == "answer":
            answer.set_result(args)
        else:
            answer.set_exception(PeerUnavailable(args))

    async def _answer(self, call_id: int, method: str, args: Any) -> None:
        try:
            result = await self._serve(method, args)
        except PeerUnavailable as error:
            self._write(call_id, "unavailable", str(error))
        else:
            self._write(call_id, "answer", result)
