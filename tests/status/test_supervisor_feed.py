"""What the supervisor says is taken in once, also from one that counts anew."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from exchange.client import Event, TransportError
from status.watch.lateness import Lateness
from status.watch.supervisor import Heard, SupervisorFeed
from tests.status.observed import SECOND, START
from tests.virtual_time import run


def numbered(sequence: int, at_s: int, kind: str) -> Event:
    return Event(sequence, START + at_s * SECOND, kind, "shard-0", 1, 1, "node-0", "")


class FakeSupervisor:
    def __init__(self) -> None:
        self.log: list[Event] = []
        self.is_away = False

    async def status(self) -> Any:
        if self.is_away:
            raise TransportError("away")
        return SimpleNamespace(components=())

    async def maintenance(self) -> Any:
        return SimpleNamespace(newest=None)

    async def events(self, *, after_sequence: int = 0) -> tuple[Event, ...]:
        return tuple(event for event in self.log if event.sequence > after_sequence)

    async def aclose(self) -> None:
        return


def test_each_event_is_told_once_whoever_is_the_supervisor() -> None:
    supervisor = FakeSupervisor()
    heard: list[Heard] = []

    async def work() -> None:
        feed = SupervisorFeed(supervisor, 1.0, lambda: START, heard.append)  # type: ignore[arg-type]
        supervisor.log = [numbered(1, 0, "up"), numbered(2, 1, "lost")]
        running = asyncio.create_task(feed.run())
        await asyncio.sleep(2.5)
        supervisor.log.append(numbered(3, 2, "up"))
        await asyncio.sleep(1)
        supervisor.is_away = True
        await asyncio.sleep(3)
        # The next one has as many events, and others.
        supervisor.log = [numbered(1, 5, "adopted"), numbered(2, 5, "adopted"), numbered(3, 6, "stage")]
        supervisor.is_away = False
        await asyncio.sleep(2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(work())
    told = [event.kind for one in heard for event in one.events]
    assert told == ["up", "lost", "up", "adopted", "adopted", "stage"]


def test_lateness_is_the_worst_of_a_span_and_silence_counts() -> None:
    lateness = Lateness(lambda: START)
    lateness.note(START, 400.0)
    lateness.note(START + SECOND, 3.0)
    assert lateness.worst_ms(START, START + SECOND) == 400.0
    assert lateness.worst_ms(START + SECOND // 2, START + SECOND) == 3.0
    # Nothing has been noted for two seconds: the loop stood still.
    assert lateness.worst_ms(START + 2 * SECOND, START + 3 * SECOND) == 1_950.0
