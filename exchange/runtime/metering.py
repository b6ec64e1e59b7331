"""What a host measures of its work, what it bounds by that, and how long it is declared to take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from exchange.overload.classes import WorkClass
from exchange.overload.load import Load
from exchange.overload.queues import wait_s_max_of
from exchange.runtime.mailbox import Letter, shed
from exchange.runtime.messages import HostLoad, LinkBatch, RecordPayload, SegmentKind, with_load
from exchange.settings import Settings

SERVICE_SLACK_S = 0.02
"""What a shard with a declared service time may catch up: its links take a few milliseconds between two batches."""


class Metering:
    """Of one host, with the settings that it goes by."""

    def __init__(self, settings: Settings, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self.load = Load(settings.queues.half_life_ms / 1_000, monotonic_s)
        self._served_until_s = 0.0
        """With a declared service time: when all that was taken will be served."""
        self.apply_settings(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._wait_s_max = wait_s_max_of(settings)
        self._service_time_s = settings.service_time_us / 1e6
        self.checks_deadlines = not settings.is_naive
        self.load.set_half_life(settings.queues.half_life_ms / 1_000)

    def shed(self, batch: LinkBatch, ahead: int) -> LinkBatch:
        """Return a batch without what would wait too long behind so many commands."""
        return shed(batch, ahead, self.load.capacity_per_s, self._wait_s_max)

    async def serve(self, commands: int, since_s: float) -> None:
        """Take as long for commands as it is declared that they take."""
        service_s = commands * self._service_time_s
        if service_s:
            self._served_until_s = max(self._served_until_s, since_s - SERVICE_SLACK_S) + service_s
            await asyncio.sleep(self._served_until_s - self._monotonic_s())

    def note_record(
        self, letters: Sequence[Letter], batches: Sequence[LinkBatch], commands: int, busy_s: float
    ) -> None:
        """Take note of a record that was applied now: so many commands of clients, and how long they took."""
        late, was_shed = int(SegmentKind.LATE), int(SegmentKind.SHED)
        load, now_s = self.load, self._monotonic_s()
        load.note_work(commands, max(busy_s, commands * self._service_time_s))
        for letter, batch in zip(letters, batches, strict=True):
            for segment, (work_class, count) in zip(batch.segments, batch.work, strict=False):
                load.late += count * (segment.kind == late)
                load.shed += count * (segment.kind == was_shed)
                load.admitted += count * (segment.kind != was_shed)
                load.note_delay(WorkClass(work_class), now_s - letter.since_s)

    def tell(self, replies: bytes, busy_before_s: float | None = None) -> bytes:
        """Return packed replies with the load, for work that came when so much had been done."""
        load = self.load
        delay_s = 0.0 if busy_before_s is None else load.busy_s - busy_before_s
        return with_load(replies, HostLoad(delay_s * 1_000, load.capacity_per_s))


def is_all_shed(batch: LinkBatch) -> bool:
    return bool(batch.segments) and all(segment.kind == SegmentKind.SHED for segment in batch.segments)


def count_trading(payload: RecordPayload, decoded: list[list[list[Any]]]) -> int:
    """Return how many commands of a record came from clients."""
    trade = int(SegmentKind.TRADE)
    return sum(
        len(commands)
        for batch, of_batch in zip(payload.batches, decoded, strict=True)
        for segment, commands in zip(batch.segments, of_batch, strict=True)
        if segment.kind == trade
    )
