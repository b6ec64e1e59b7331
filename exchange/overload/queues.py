"""What waits, by class, each class bounded by the time that its work would wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from exchange.overload.classes import WorkClass
from exchange.overload.service_rate import capacity_of
from exchange.settings import Settings

T = TypeVar("T")


class Waiting(NamedTuple, Generic[T]):
    """`commands` is how much work the item is; it has waited since `since_s`."""

    item: T
    commands: int
    since_s: float


class ClassQueues(Generic[T]):
    """Served strictly by class, each in order. `wait_s_max` has the classes that are bounded."""

    def __init__(self, wait_s_max: Mapping[WorkClass, float]) -> None:
        self.wait_s_max = wait_s_max
        self._queues: dict[WorkClass, deque[Waiting[T]]] = {work_class: deque() for work_class in WorkClass}
        self._commands = dict.fromkeys(WorkClass, 0)
        self.total = 0
        """How many commands wait, of all classes."""

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def commands(self, work_class: WorkClass) -> int:
        """Return how many commands of a class wait."""
        return self._commands[work_class]

    def has_room(self, work_class: WorkClass, commands: int, rate_per_s: float) -> bool:
        """Whether that much more would be served in time. What is too large for that has room while nothing waits.

        The rate is that at which its class is served, whatever more urgent work is done besides.
        """
        wait_s = self.wait_s_max.get(work_class)
        capacity = None if wait_s is None else capacity_of(rate_per_s, wait_s)
        waiting = self._commands[work_class]
        return capacity is None or not waiting or waiting + commands <= capacity

    def put(self, work_class: WorkClass, item: T, commands: int, now_s: float) -> None:
        self._queues[work_class].append(Waiting(item, commands, now_s))
        self._commands[work_class] += commands
        self.total += commands

    def peek(self, work_class: WorkClass) -> Waiting[T] | None:
        queue = self._queues[work_class]
        return queue[0] if queue else None

    def take(self, work_class: WorkClass) -> Waiting[T]:
        """Take the first of a class, which must not be empty."""
        waiting = self._queues[work_class].popleft()
        self._commands[work_class] -= waiting.commands
        self.total -= waiting.commands
        return waiting

    def remove_where(self, work_class: WorkClass, condition: Iterator[bool]) -> list[Waiting[T]]:
        """Take out those of a class for which the condition, in their order, holds."""
        removed: list[Waiting[T]] = []
        kept: deque[Waiting[T]] = deque()
        for waiting, is_removed in zip(self._queues[work_class], condition, strict=True):
            (removed if is_removed else kept).append(waiting)
        self._queues[work_class] = kept
        commands = sum(waiting.commands for waiting in removed)
        self._commands[work_class] -= commands
        self.total -= commands
        return removed

    def waiting(self, work_class: WorkClass) -> Iterator[Waiting[T]]:
        return iter(self._queues[work_class])


def wait_s_max_of(settings: Settings) -> dict[WorkClass, float]:
    """Return how long each class may wait that is bounded."""
    if settings.is_naive:
        return {}
    queues = settings.queues
    return {
        WorkClass.PASSIVE: queues.passive_wait_ms / 1_000,
        WorkClass.ORDERS: queues.orders_wait_ms / 1_000,
        WorkClass.QUERIES: queues.queries_wait_ms / 1_000,
    }
