"""One `Trade` stream: batches in, answers out, to the end of the stream or of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from exchange.gateway.auth import Caller
from exchange.gateway.draining import Draining
from exchange.gateway.routing import RequestInvalid, Router, read_request

BATCHES_IN_FLIGHT_MAX = 64
"""Of a stream, but for those that wait by `queue_for`, which each shard's queue bounds."""


class TradeStream:
    """Reads requests and answers them in their order. One that waits for its shard is overtaken by later answers."""

    def __init__(self, router: Router, caller: Caller, session: int, draining: Draining) -> None:
        self.cancel_on_disconnect = False
        self.refusal: RequestInvalid | None = None
        """What ended the stream: a request that cannot be taken."""
        self.is_cut = False
        """Whether it was ended because the gateway drains, all that was taken being answered."""
        self._router = router
        self._caller = caller
        self._session = session
        self._draining = draining
        self._answers: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX)
        self._waiting: set[asyncio.Future[bytes]] = set()
        self._is_reading = False

    async def serve(self, requests: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]) -> None:
        """Return when everything that was taken is answered: at the end of the requests, or when the gateway drains."""
        reader = asyncio.create_task(self._read(requests))

        def end() -> None:
            if self._is_reading:
                reader.cancel()

        try:
            with self._draining.watching(end):
                while (answer := await self._answers.get()) is not None:
                    await write(await answer)
                    if answer not in self._waiting:
                        self._slots.release()
                    self._waiting.discard(answer)
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in self._requests(aiter(requests)):
                self._take(data)
        except RequestInvalid as error:
            self.refusal = error
        else:
            if self._waiting:
                await asyncio.wait(self._waiting)
        finally:
            self._answers.put_nowait(None)

    async def _requests(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield requests as there are slots for them, until the gateway drains: what is not read then is not taken."""
        first = True
        while True:
            await self._slots.acquire()
            self.is_cut = self._draining.is_on
            if self.is_cut:
                return
            self._is_reading = True
            try:
                data = await anext(requests, None)
            except asyncio.CancelledError:
                self.is_cut = self._draining.is_on
                if not self.is_cut:
                    raise
                data = None
            finally:
                self._is_reading = False
            if data is None:
                return
            if first:
                self.cancel_on_disconnect = read_request(data).cancel_on_disconnect
                first = False
            yield data

    def _take(self, data: bytes) -> None:
        answer = self._router.trade(data, self._caller, self._session if self.cancel_on_disconnect else 0)
        if answer.waits:
            self._waiting.add(answer.response)
            answer.response.add_done_callback(self._answers.put_nowait)
            self._slots.release()
        else:
            self._answers.put_nowait(answer.response)
