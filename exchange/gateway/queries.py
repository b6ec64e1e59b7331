"""Questions to a shard, which go past its link: the least urgent class, bounded in number and in time."""

from __future__ import annotations

import asyncio
from typing import Any

from exchange.gateway.links import Link
from exchange.overload.classes import ShedReason
from exchange.runtime.messages import SegmentReply, pack
from exchange.runtime.peers import PeerUnavailable
from exchange.settings import Settings

IN_FLIGHT_MAX = 8
"""To a shard: it answers questions between records, one after the other."""
WAITING_MAX = 1_000


class QueryRefused(Exception):
    """The question was not asked; `refusal` says why, and when to come back."""

    def __init__(self, refusal: SegmentReply) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class Queries:
    """Questions to one shard. While its orders are overloaded, one at a time is all that there is room for."""

    def __init__(self, link: Link, settings: Settings) -> None:
        self._link = link
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._waiting = 0
        self._in_flight = 0
        self.apply_settings(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._wait_s = settings.queues.queries_wait_ms / 1_000
        self._is_naive = settings.is_naive

    async def ask(self, question: tuple[Any, ...]) -> bytes:
        """Return the packed answer. Raises `QueryRefused`, or `PeerUnavailable` while the shard is away."""
        if self._is_naive:
            return await self._ask(question)
        if self._in_flight and self._link.admission.is_overloaded:
            raise self._refused(ShedReason.DELAY)
        if self._waiting >= WAITING_MAX:
            raise self._refused(ShedReason.QUEUE)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire()
        except TimeoutError:
            raise self._refused(ShedReason.QUEUE) from None
        finally:
            self._waiting -= 1
        try:
            return await self._ask(question)
        finally:
            self._slots.release()

    async def _ask(self, question: tuple[Any, ...]) -> bytes:
        peer = self._link.peer
        if peer is None:
            raise PeerUnavailable(f"{self._link.machine} is away")
        self._in_flight += 1
        try:
            return await peer.query(pack(question))
        finally:
            self._in_flight -= 1

    def _refused(self, shed: ShedReason) -> QueryRefused:
        return QueryRefused(self._link.admission.refused_query(shed))
