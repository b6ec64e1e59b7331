"""What happened to whom, for people and for those who measure a failover: the newest events, each of them logged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from exchange.supervisor.component import Component

EVENTS_KEPT = 10_000

_log = structlog.get_logger()


class Event(NamedTuple):
    """`sequence` counts the events of one supervisor; `time_ns` is the wall clock."""

    sequence: int
    time_ns: int
    kind: str
    component: str
    incarnation: int
    epoch: int
    node: str
    detail: str


class EventLog:
    """Keeps the newest events."""

    def __init__(self, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._sequence = 0

    def add(self, kind: str, component: Component, detail: str = "") -> None:
        epoch = component.vitals.get("epoch", 0)
        self.note(kind, component.name, detail, component.incarnation, epoch, component.node)

    def note(
        self, kind: str, name: str, detail: str = "", incarnation: int = 0, epoch: int = 0, node: str = ""
    ) -> None:
        self._sequence += 1
        event = Event(self._sequence, self._clock_ns(), kind, name, incarnation, epoch, node, detail)
        self._events.append(event)
        _log.info(f"component.{kind}", name=name, incarnation=incarnation, epoch=epoch, node=node, detail=detail)

    def after(self, sequence: int) -> list[Event]:
        """Return the events behind a sequence that are still kept, oldest first."""
        return [event for event in self._events if event.sequence > sequence]
