"""What the supervisor says: the state of components, what happened to them, and maintenance. Only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from exchange.client import AsyncClient, Component, EvenkeelError, Event, Maintenance


@dataclass(frozen=True, slots=True)
class Heard:
    at_ns: int
    components: tuple[Component, ...]
    events: tuple[Event, ...]
    """Those that are new."""
    maintenance: Maintenance | None


class SupervisorFeed:
    """Asks about once a second. While nobody answers nothing is told: what was heard last gets old."""

    def __init__(
        self, client: AsyncClient, interval_s: float, clock_ns: Callable[[], int], on_heard: Callable[[Heard], None]
    ) -> None:
        self._client = client
        self._interval_s = interval_s
        self._clock_ns = clock_ns
        self._on_heard = on_heard
        self._last: Event | None = None

    async def run(self) -> None:
        try:
            while True:
                try:
                    self._on_heard(await self._ask())
                except EvenkeelError:
                    pass  # the probes tell what it means for clients
                await asyncio.sleep(self._interval_s)
        finally:
            await self._client.aclose()

    async def _ask(self) -> Heard:
        status, maintenance, events = await asyncio.gather(
            self._client.status(), self._client.maintenance(), self._new_events()
        )
        if events:
            # Only now: had another question failed, they would be asked for once more.
            self._last = events[-1]
        return Heard(self._clock_ns(), status.components, events, maintenance.newest)

    async def _new_events(self) -> tuple[Event, ...]:
        last = self._last
        if last is None:
            return await self._client.events()
        # With the last one known: another supervisor counts from 1 again, and would have another one there.
        found = await self._client.events(after_sequence=last.sequence - 1)
        is_the_same = bool(found) and found[0] == last
        return found[1:] if is_the_same else await self._client.events()
