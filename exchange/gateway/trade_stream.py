"""One `Trade` stream: batches in, answers out, to the end of the stream or of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from exchange.gateway.auth import Caller
from exchange.gateway.draining import Draining
from exchange.gateway.requests import RequestInvalid, read_request
from exchange.gateway.routing import Router
from exchange.overload.classes import WorkClass
from exchange.v1 import trading_pb2

BATCHES_IN_FLIGHT_MAX = 64
"""Of a stream, but for those that wait by `queue_for` or are stuck, which each shard's queue bounds."""
STUCK_S = 0.1
"""Without any answer for so long, the batches in flight wait for a shard that is away, and keep no others out."""
NOTICE_S = 0.25
"""How long a stream that is told to go is read on, for its client to end it."""

_NOTICE = trading_pb2.TradeResponse(draining=True).SerializeToString()


class TradeStream:
    """Reads requests, and answers each when its outcome is known: no shard holds up the answers of another one."""

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
        self._in_flight: set[asyncio.Future[bytes]] = set()
        self._orders_in_flight: set[asyncio.Future[bytes]] = set()
        """Those among them that nothing of the stream may overtake but cancels."""
        self._answers: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX)
        self._has_slot: set[asyncio.Future[bytes]] = set()
        self._is_reading = False
        self._is_over = False
        """Nothing more is read."""

    async def serve(self, requests: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]) -> None:
        """Return when everything that was taken is answered: at the end of the requests, or when the gateway drains."""
        loop = asyncio.get_running_loop()
        reader = asyncio.create_task(self._read(requests))

        def end() -> None:
            # What was read is in the router's hands: only the wait for more may be broken off.
            self._is_over = True
            if self._is_reading:
                reader.cancel()

        def give_notice() -> None:
            # A client that writes just as its stream ends does not get to see why it ended, so it is told first.
            notice: asyncio.Future[bytes] = loop.create_future()
            notice.set_result(_NOTICE)
            self._answers.put_nowait(notice)
            loop.call_later(NOTICE_S, end)

        try:
            with self._draining.watching(give_notice):
                if self._draining.is_on:
                    give_notice()
                while (answer := await self._answers.get()) is not None:
                    await write(answer.result())
                    self._release(answer)
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in self._requests(aiter(requests)):
                self._take(data)
        except RequestInvalid as error:
            self.refusal = error
        try:
            if self._in_flight:
                await asyncio.wait(self._in_flight)
        finally:
            self._answers.put_nowait(None)

    async def _requests(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield requests as there are slots for them, until the stream is over: what is not read then is not taken."""
        first = True
        while True:
            await self._slot()
            data = None if self._is_over else await self._next(requests)
            if data is None:
                self.is_cut = self._draining.is_on
                return
            if first:
                self.cancel_on_disconnect = read_request(data).cancel_on_disconnect
                first = False
            yield data

    async def _next(self, requests: AsyncIterator[bytes]) -> bytes | None:
        self._is_reading = True
        try:
            return await anext(requests, None)
        except asyncio.CancelledError:
            if not self._is_over:
                raise
            return None
        finally:
            self._is_reading = False

    async def _slot(self) -> None:
        """Wait until another batch may be in flight."""
        while self._slots.locked():
            try:
                async with asyncio.timeout(STUCK_S):
                    await self._slots.acquire()
                    return
            except TimeoutError:
                for answer in [answer for answer in self._has_slot if not answer.done()]:
                    self._release(answer)
        await self._slots.acquire()

    def _release(self, answer: asyncio.Future[bytes]) -> None:
        if answer in self._has_slot:
            self._has_slot.remove(answer)
            self._slots.release()

    def _take(self, data: bytes) -> None:
        session = self._session if self.cancel_on_disconnect else 0
        answer = self._router.trade(data, self._caller, session, follows_orders=bool(self._orders_in_flight))
        self._in_flight.add(answer.response)
        if answer.work_class == WorkClass.ORDERS:
            self._orders_in_flight.add(answer.response)
        self._has_slot.add(answer.response)
        answer.response.add_done_callback(self._on_answer)
        if answer.waits:
            self._release(answer.response)

    def _on_answer(self, answer: asyncio.Future[bytes]) -> None:
        self._in_flight.discard(answer)
        self._orders_in_flight.discard(answer)
        self._answers.put_nowait(answer)
