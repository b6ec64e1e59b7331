"""What a link takes and what it refuses: the policies against overload, put together for one machine.

Refusals are final and come at once: surely not executed, with the time to come back. Control and cancels are refused
for want of memory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from exchange.engine.words import RejectReason
from exchange.overload.breaker import Breaker
from exchange.overload.classes import ShedReason, WorkClass
from exchange.overload.codel import Codel
from exchange.overload.credits import Credits
from exchange.overload.delays import Delays
from exchange.overload.pushback import pushback_ms
from exchange.overload.queues import ClassQueues, wait_s_max_of
from exchange.overload.service_rate import ServiceRate
from exchange.overload.shed_counts import ShedCounts
from exchange.runtime.messages import HostLoad, ReplyStatus, SegmentReply
from exchange.settings import Settings

QUEUE_BYTES_MAX = 16 << 20
"""Of what may be shed; all that waits may have twice as much."""
QUEUE_SEGMENTS_MAX = 10_000
"""As many as come in `queue_for` at most, at 1,000 a second and one order each."""
_BOUNDED = (WorkClass.PASSIVE, WorkClass.ORDERS)
NAIVE_WAIT_S = 3_600.0
TRIP_SHARE = 0.2
"""What the newest batch counts in how long batches take."""


class Item(Protocol):
    """What waits: of a class, with so many commands, and of so many bytes."""

    @property
    def work_class(self) -> WorkClass: ...
    @property
    def commands(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def queued_s(self) -> float: ...
    @property
    def deadline_s(self) -> float: ...


T = TypeVar("T", bound=Item)


class Admission(Generic[T]):
    """The queues of a link and what decides on them. `T` is what waits there."""

    def __init__(
        self, machine: str, settings: Settings, monotonic_s: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self.machine = machine
        self.shed_counts = ShedCounts()
        self.stage_opens_in_ms: Callable[[], float] = lambda: 0.0
        """How long until the shard is expected to let more through."""
        self.is_open: Callable[[], bool] = lambda: True
        """Whether the shard lets everything through, as far as one knows."""
        self._monotonic_s = monotonic_s
        self._random = random
        self._queues: ClassQueues[T] = ClassQueues({})
        self._bytes = 0
        self._segments = 0
        self._left_behind: frozenset[WorkClass] = frozenset()
        self._trip_s = 0.0
        """How long batches have taken lately."""
        half_life_s = settings.queues.half_life_ms / 1_000
        self._rates = {work_class: ServiceRate(half_life_s) for work_class in _BOUNDED}
        """At which each class is served while some of it waits, beside whatever is more urgent."""
        self._delays = Delays()
        self._take_settings(settings, None)

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings; what waits stays, and what was learnt where the settings are the same."""
        self._take_settings(settings, self._settings)

    def _take_settings(self, settings: Settings, before: Settings | None) -> None:
        codel, credit, breaker = settings.codel, settings.credits, settings.breaker
        self.is_naive = settings.is_naive
        self._settings = settings
        self._queues.wait_s_max = wait_s_max_of(settings)
        for rate in self._rates.values():
            rate.half_life_s = settings.queues.half_life_ms / 1_000
        if before is None or codel != before.codel:
            target_s, interval_s = codel.target_ms / 1_000, codel.interval_ms / 1_000
            self._codels = {work_class: Codel(target_s, interval_s) for work_class in _BOUNDED}
        if before is None or credit != before.credits:
            self._credits = Credits(credit.start, credit.target_ms / 1_000)
        if before is None or breaker != before.breaker:
            self._breaker = Breaker(breaker.accepts_factor, breaker.window_ms / 1_000, self._random)

    def on_new_host(self) -> None:
        """Forget how the last one was: this one may be cold, or well."""
        self._breaker.reset()
        for rate in self._rates.values():
            rate.reset()
        self._trip_s = 0.0

    # ---------------------------------------------------------------- coming in

    @property
    def waits(self) -> bool:
        """Whether anything waits."""
        return self._segments > 0

    @property
    def waiting(self) -> int:
        """How many commands wait."""
        return self._queues.total

    @property
    def is_overloaded(self) -> bool:
        """Whether orders have been waiting for a whole interval."""
        return self._codels[WorkClass.ORDERS].is_overloaded

    @property
    def has_backlog(self) -> bool:
        """Whether orders wait that the next batch will not take."""
        return self.is_overloaded or self._queues.commands(WorkClass.ORDERS) > self.batch_max

    def deadline_s(self, work_class: WorkClass, remaining_ms: int, now_s: float) -> float:
        """Return until when something must have gone to the host, so that its answer is back in time."""
        if self.is_naive:
            return now_s + NAIVE_WAIT_S
        margin_ms = self._settings.deadlines.margin_ms if work_class > WorkClass.CONTROL else 0
        return now_s + (remaining_ms - margin_ms) / 1_000

    def refuses(self, item: T) -> SegmentReply | None:
        """Return the refusal of what cannot be served in time; None: it is welcome."""
        now_s = self._monotonic_s()
        if self.is_naive:
            return None
        if item.deadline_s <= now_s:
            detail = "too little time was left for the way"
            return self.refused(item, ShedReason.DEADLINE, RejectReason.DEADLINE_EXCEEDED, detail)
        if self._bytes + item.size > QUEUE_BYTES_MAX * (1 if item.work_class.is_sheddable else 2):
            return self.refused(item, ShedReason.MEMORY)
        if not item.work_class.is_sheddable:
            return None
        if not self.has_room(item.work_class, item.commands):
            return self.refused(item, ShedReason.QUEUE)
        if not self._is_in_time(item, now_s):
            return self.refused(item, ShedReason.DEADLINE)
        if not self._breaker.lets_through(now_s):
            return self.refused(item, ShedReason.BREAKER)
        return None

    def _is_in_time(self, item: T, now_s: float) -> bool:
        """Whether what waits already, and this, would be done by its deadline.

        While nothing waits it may always try: a rate that is out of date, as after a disk that hung, would be learnt by
        nobody who is refused for it.
        """
        rate, waiting = self._rates[item.work_class].per_s, self._queues.commands(item.work_class)
        return not (rate and waiting) or now_s + (waiting + item.commands) / rate <= item.deadline_s

    def has_room(self, work_class: WorkClass, commands: int) -> bool:
        """Whether that much more would not wait for too long."""
        is_full = self._segments >= QUEUE_SEGMENTS_MAX
        return not is_full and self._queues.has_room(work_class, commands, self._rates[work_class].per_s)

    def put(self, item: T) -> None:
        self._queues.put(item.work_class, item, item.commands, self._monotonic_s())
        self._bytes += item.size
        self._segments += 1

    def refused(
        self,
        item: Item,
        shed: ShedReason,
        reason: RejectReason = RejectReason.QUEUE_FULL,
        detail: str = "",
    ) -> SegmentReply:
        """Count a refusal, and return it with the time to come back."""
        detail = detail or f"{self.machine} has more to do than it can"
        return self._refusal(item.work_class, item.commands, shed, reason, detail)

    def away(self, work_class: WorkClass, commands: int) -> SegmentReply:
        """Count and return the refusal of what cannot even be queued: no host has been there for some time."""
        reason, detail = RejectReason.SHARD_UNAVAILABLE, f"{self.machine} is away"
        return self._refusal(work_class, commands, ShedReason.AWAY, reason, detail)

    def refused_query(self, shed: ShedReason) -> SegmentReply:
        """Count and return the refusal of a question."""
        detail = f"{self.machine} has more to do than it can"
        return self._refusal(WorkClass.QUERIES, 1, shed, RejectReason.QUEUE_FULL, detail)

    def _refusal(
        self, work_class: WorkClass, commands: int, shed: ShedReason, reason: RejectReason, detail: str
    ) -> SegmentReply:
        self.shed_counts.count(work_class, shed, commands)
        retry_after_ms = self.retry_after_ms() if reason.is_passing else 0
        return SegmentReply(int(ReplyStatus.REFUSED), int(reason), b"", detail, retry_after_ms, str(shed))

    def retry_after_ms(self, at_least_ms: float = 0.0) -> int:
        """Return when somebody who is refused now shall come back."""
        rate = self._rates[WorkClass.ORDERS].per_s
        backlog_ms = self._queues.commands(WorkClass.ORDERS) / rate * 1_000 if rate else 0.0
        opens_in_ms = self.stage_opens_in_ms()
        return pushback_ms(backlog_ms, self._random, stage_opens_in_ms=opens_in_ms, at_least_ms=at_least_ms)

    # ---------------------------------------------------------------- going out

    def note_taken(self) -> None:
        """The batch is complete: what waits now could not be served any sooner."""
        self._left_behind = frozenset(work_class for work_class in _BOUNDED if self._queues.commands(work_class))

    @property
    def batch_max(self) -> int:
        """How many commands the next batch may have."""
        return self._settings.credits.start if self.is_naive else self._credits.limit

    def first(self, work_class: WorkClass) -> T | None:
        """Return what of a class goes next, None if nothing waits."""
        waiting = self._queues.peek(work_class)
        return None if waiting is None else waiting.item

    def take(self, work_class: WorkClass) -> float:
        """Take the first of a class out; return how long it has waited."""
        now_s = self._monotonic_s()
        item, _, since_s = self._queues.take(work_class)
        self._bytes -= item.size
        self._segments -= 1
        self._delays.note(work_class, now_s - since_s, now_s)
        return now_s - since_s

    def is_late(self, item: T, now_s: float) -> bool:
        """Whether something would not be answered by its deadline if it went now, as far as one can tell.

        A trip that seems long is tried all the same by what has twice the time: it may be shorter again.
        """
        trip_s = min(self._trip_s, (item.deadline_s - item.queued_s) / 2) if item.work_class.is_sheddable else 0.0
        return item.deadline_s <= now_s + trip_s

    def sheds(self, work_class: WorkClass, delay_s: float) -> bool:
        """Whether what was taken, having waited so long, is to be refused after all."""
        codel = self._codels.get(work_class)
        return codel is not None and codel.sheds(delay_s, self._monotonic_s()) and not self.is_naive

    def note_empty(self, work_class: WorkClass) -> None:
        """All that waited of a class went into a batch, or was refused."""
        codel = self._codels.get(work_class)
        if codel is not None:
            codel.note_empty()

    def take_late(self, now_s: float) -> list[T]:
        """Take out what is past its deadline."""
        late: list[T] = []
        for work_class in WorkClass:
            is_late = [waiting.item.deadline_s <= now_s for waiting in self._queues.waiting(work_class)]
            if any(is_late):
                late += [waiting.item for waiting in self._queues.remove_where(work_class, iter(is_late))]
        self._segments -= len(late)
        self._bytes -= sum(item.size for item in late)
        return late

    def note_batch(self, answered: Sequence[tuple[T, bool]], spent_s: float, load: HostLoad | None) -> None:
        """Learn from a batch that was answered: each item, and whether it was executed.

        What was left behind when it was taken is what makes its rate that of the host.
        """
        self._trip_s += (spent_s - self._trip_s) * TRIP_SHARE
        sheddable = [is_done for item, is_done in answered if item.work_class.is_sheddable]
        self._breaker.on_answers(len(sheddable), sum(sheddable), self._monotonic_s())
        for work_class, rate in self._rates.items():
            done = sum(item.commands for item, is_done in answered if is_done and item.work_class == work_class)
            rate.observe(done, spent_s, is_saturated=work_class in self._left_behind)
        if load is not None:
            used = sum(item.commands for item, _ in answered)
            self._credits.on_reply(load.delay_ms / 1_000, used, load.capacity_per_s)

    def plain(self) -> dict[str, Any]:
        """Return what there is to see, as plain values."""
        return {
            "delay_ms": self._delays.p99_ms(self._monotonic_s()),
            "limit": self.batch_max,
            "queued": {int(c): n for c in WorkClass if (n := self._queues.commands(c))},
            "rate": {int(c): round(rate.per_s, 1) for c, rate in self._rates.items() if rate.per_s},
            "refusing": round(self._breaker.refusal_probability(self._monotonic_s()), 3),
            "shed": self.shed_counts.plain(),
        }
