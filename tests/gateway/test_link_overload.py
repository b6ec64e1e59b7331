"""A link to a machine that is asked for more than it can do: what waits, what is refused, and what never is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.engine.words import RejectReason
from exchange.gateway.admission import QUEUE_BYTES_MAX, Admission
from exchange.gateway.links import Link
from exchange.overload.classes import ShedReason, WorkClass
from exchange.overload.pushback import LEAST_MS
from exchange.runtime.messages import HostLoad, ReplyStatus, Segment, SegmentReply, pack, with_load
from exchange.settings import Codel, Queues, Settings
from tests.gateway.test_links import ScriptedPeer, settled, until

DONE, REFUSED = ReplyStatus.DONE, ReplyStatus.REFUSED
CONTROL, CANCELS, PASSIVE, ORDERS, _ = WorkClass


NO_CODEL = Settings(codel=Codel(target_ms=1_000, interval_ms=5_000))
"""So that the queue's own bound is what is seen."""


class Slow:
    """A link over a host that takes a virtual 10 ms for each command. `random` is the middle, so nothing is spread."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.now_s = 100.0
        self.link = Link(
            "shard-0", "gateway-0", 1, settings=settings, monotonic_s=lambda: self.now_s, random=lambda: 0.5
        )
        self.host = ScriptedPeer(1)
        self.replies: dict[str, asyncio.Future[SegmentReply]] = {}

    def sends(self, name: str, work_class: WorkClass = ORDERS, commands: int = 1, remaining_ms: int = 5_000) -> None:
        segment = Segment(0, 7, 0, remaining_ms, name.encode())
        self.replies[name] = self.link.enqueue(segment, work_class, commands)

    async def serves(self, count: int, *, status: ReplyStatus = DONE, reason: int = 0) -> list[str]:
        """Answer that many batches; return the names of what was in them."""
        served: list[str] = []
        for _ in range(count):
            await settled()
            await until(lambda: not self.host.calls[-1][1].done() or not self.link.admission.waits)
            await settled()
            batch, answer = self.host.calls[-1]
            if answer.done():
                break
            commands = sum(n for _, n in batch.work)
            self.now_s += 0.01 * commands
            replies = pack([SegmentReply(int(status), reason, b"") for _ in batch.segments])
            answer.set_result(with_load(replies, HostLoad(10.0 * commands, 100.0)))
            served += [segment.data.decode() for segment in batch.segments]
        await settled()
        return served

    def refusal(self, name: str) -> SegmentReply | None:
        reply = self.replies[name]
        return reply.result() if reply.done() and reply.result().status == REFUSED else None

    def shed(self, work_class: WorkClass, reason: ShedReason | None = None) -> int:
        return self.link.admission.shed_counts.of(work_class, reason)


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    world = Slow()
    world.link.start()
    world.link.set_peer(world.host)
    # So that the link knows what the host can do.
    world.sends("first")
    await world.serves(1)
    yield world
    await world.link.stop()


async def test_a_batch_is_no_longer_than_what_the_host_does_in_time(slow: Slow) -> None:
    for number in range(100):
        slow.sends(f"o{number}")
    await slow.serves(30)
    sizes = [sum(n for _, n in batch.work) for batch, _ in slow.host.calls[1:]]
    assert sizes[0] == 5, "what it says that it does in twice the target"
    assert set(sizes[10:]) <= {1, 2, 3}, "around the target of 25 ms, of 10 ms each"


async def test_what_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back(slow: Slow) -> None:
    slow.link.apply_settings(NO_CODEL)
    for number in range(80):
        slow.sends(f"o{number}")
    await slow.serves(6)
    before = time.perf_counter()
    slow.sends("late")
    assert time.perf_counter() - before < 1, "no wait is involved"
    refusal = slow.refusal("late")
    assert refusal is not None
    assert (refusal.reason, refusal.shed) == (RejectReason.QUEUE_FULL, ShedReason.QUEUE)
    assert refusal.retry_after_ms >= LEAST_MS
    assert slow.shed(ORDERS, ShedReason.QUEUE) == 1


async def test_cancels_go_first_and_are_refused_neither_for_the_queue_nor_for_their_wait(slow: Slow) -> None:
    for number in range(80):
        slow.sends(f"o{number}")
    await slow.serves(6)
    for number in range(300):
        slow.sends(f"c{number}", CANCELS)
    slow.sends("control", CONTROL)
    served = await slow.serves(400)
    cancels = [name for name in served if name.startswith("c")]
    assert len(cancels) == 301
    # But for the batch that was under way, nothing goes before them.
    assert not [name for name in served[2 : len(cancels)] if name.startswith("o")]
    assert slow.shed(CANCELS) == slow.shed(CONTROL) == 0


async def test_a_queue_that_stands_sheds_orders_that_have_waited(slow: Slow) -> None:
    slow.link.apply_settings(Settings(queues=Queues(orders_wait_ms=5_000)))
    number = 0
    for _ in range(60):
        for _ in range(6):
            slow.sends(f"o{number}")
            number += 1
        await slow.serves(1)
    assert slow.shed(ORDERS, ShedReason.DELAY) > 20
    assert slow.shed(ORDERS) == slow.shed(ORDERS, ShedReason.DELAY)
    refusal = next(r for name in slow.replies if (r := slow.refusal(name)))
    assert (refusal.reason, refusal.shed) == (RejectReason.QUEUE_FULL, ShedReason.DELAY)


async def test_passive_orders_are_shed_after_the_others(slow: Slow) -> None:
    for number in range(400):
        slow.sends(f"p{number}", PASSIVE)
        for order in range(4):
            slow.sends(f"o{number}-{order}")
        await slow.serves(1)
    assert slow.shed(PASSIVE) == 0
    assert slow.shed(ORDERS) > 200


async def test_what_will_not_be_done_by_its_deadline_is_not_queued(slow: Slow) -> None:
    slow.link.apply_settings(NO_CODEL)
    for number in range(40):
        slow.sends(f"o{number}")
    await slow.serves(5)
    assert slow.link.admission.plain()["queued"][int(ORDERS)] in range(10, 25)
    slow.sends("hasty", remaining_ms=60)
    refusal = slow.refusal("hasty")
    assert refusal is not None
    assert (refusal.reason, refusal.shed) == (RejectReason.QUEUE_FULL, ShedReason.DEADLINE)
    slow.sends("no-time", remaining_ms=15)
    refusal = slow.refusal("no-time")
    assert refusal is not None
    assert refusal.reason == RejectReason.DEADLINE_EXCEEDED, "the margin is for the way back"


async def test_a_host_that_refuses_everything_is_asked_ever_less(slow: Slow) -> None:
    for number in range(200):
        slow.sends(f"o{number}")
        await slow.serves(1, status=REFUSED, reason=RejectReason.JOURNAL_UNAVAILABLE)
        slow.now_s += 0.01
    assert slow.shed(ORDERS, ShedReason.BREAKER) > 50
    slow.sends("c", CANCELS)
    assert await slow.serves(1) == ["c"], "cancels are always tried"
    slow.link.set_peer(ScriptedPeer(2))
    slow.sends("new-host")
    assert not slow.replies["new-host"].done()


async def test_the_naive_profile_refuses_nothing_and_forgets_no_deadline(slow: Slow) -> None:
    slow.link.apply_settings(Settings(profile="naive"))
    for number in range(500):
        slow.sends(f"o{number}", remaining_ms=20)
    served = await slow.serves(500)
    assert len(served) == 500
    assert slow.now_s > 104


async def test_what_there_is_to_see_is_plain(slow: Slow) -> None:
    slow.link.apply_settings(NO_CODEL)
    for number in range(80):
        slow.sends(f"o{number}")
    await slow.serves(6)
    slow.sends("late")
    seen = slow.link.admission.plain()
    assert seen["limit"] == slow.link.admission.batch_max
    assert seen["queued"][int(ORDERS)] > 30
    assert seen["rate"][int(ORDERS)] == pytest.approx(100, rel=0.1)
    assert seen["shed"] == {int(ORDERS): {"queue": 1}}
    assert seen["delay_ms"][int(ORDERS)] > 0


class _Item:
    def __init__(self, work_class: WorkClass, size: int, deadline_s: float) -> None:
        self.work_class, self.size, self.deadline_s = work_class, size, deadline_s
        self.commands, self.queued_s = 1, 0.0


@given(st.lists(st.tuples(st.sampled_from([CONTROL, CANCELS, PASSIVE, ORDERS]), st.integers(1, 1 << 20)), max_size=80))
def test_control_and_cancels_are_never_shed_within_the_last_bound_and_memory_is_bounded(
    offers: list[tuple[WorkClass, int]],
) -> None:
    admission: Admission[Any] = Admission("shard-0", Settings(codel=Codel(target_ms=1)), lambda: 0.0, lambda: 0.5)
    admitted = 0
    for work_class, size in offers:
        item = _Item(work_class, size, 1.0)
        refusal = admission.refuses(item)
        if refusal is None:
            admission.put(item)
            admitted += size
        assert admitted <= 2 * QUEUE_BYTES_MAX
        if not work_class.is_sheddable and admitted + size <= 2 * QUEUE_BYTES_MAX:
            assert refusal is None
