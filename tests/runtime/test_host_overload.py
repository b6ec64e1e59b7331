"""What a host does with more than it can do: bounded by class and time, and told to those who send it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from exchange.engine.words import RejectReason
from exchange.runtime.codec import ShardType
from exchange.runtime.host import Host
from exchange.runtime.journal import MemoryJournal
from exchange.runtime.messages import LinkBatch, ReplyStatus, unpack_answer, unpack_replies
from exchange.runtime.metering import SERVICE_SLACK_S
from exchange.runtime.recovery import recover
from exchange.runtime.snapshot import SnapshotStore
from exchange.settings import Settings
from tests.runtime.test_host import Clock, HeldJournal, clock, make_host, opened, place

__all__ = ["clock", "make_host"]


async def test_what_would_wait_too_long_is_shed_by_class_and_cancels_are_not(
    make_host: Callable[..., Host], tmp_path: Path
) -> None:
    journal = HeldJournal("shard-0")
    host = await opened(make_host(journal))
    host.metering.load.note_work(100, 1.0)
    journal.go_on.clear()
    held = asyncio.create_task(host.submit(LinkBatch("gateway-1", 1, 1, [place("first")], work=((3, 1),))))
    await asyncio.to_thread(journal.reached.wait)
    waiting = asyncio.create_task(host.submit(LinkBatch("gateway-2", 1, 1, [place("second")], work=((3, 40),))))
    await asyncio.sleep(0)
    batch = LinkBatch(
        "gateway-0", 1, 1, [place("cancel"), place("passive"), place("order")], work=((1, 1), (2, 1), (3, 1))
    )
    mixed = asyncio.create_task(host.submit(batch))
    await asyncio.sleep(0)
    (refused,) = unpack_replies(await host.submit(LinkBatch("gateway-3", 1, 1, [place("more")], work=((3, 1),))))
    assert (refused.status, refused.reason) == (ReplyStatus.REFUSED, RejectReason.QUEUE_FULL)
    journal.go_on.set()
    cancel, passive, order = unpack_replies(await mixed)
    assert (cancel.status, passive.status) == (ReplyStatus.DONE, ReplyStatus.DONE)
    assert (order.status, order.reason) == (ReplyStatus.REFUSED, RejectReason.QUEUE_FULL)
    await asyncio.gather(held, waiting)
    assert unpack_replies(await host.submit(batch)) == [cancel, passive, order], "sent again, answered alike"
    load = host.metering.load.plain()
    assert (load["shed"], load["late"], load["admitted"]) == (2, 0, 43)
    recovered = recover(ShardType(), journal, SnapshotStore(tmp_path / "without"))
    assert unpack_replies(recovered.links["gateway-0"].replies) == [cancel, passive, order]


async def test_a_declared_service_time_is_taken_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    slept: list[float] = []
    sleep = asyncio.sleep

    async def passes(seconds: float) -> None:
        await sleep(0)
        if seconds:
            slept.append(seconds)
            now_s[0] += seconds

    monkeypatch.setattr("exchange.runtime.metering.asyncio.sleep", passes)
    settings = Settings(service_time_us=4_000)
    journal = MemoryJournal("shard-0")
    host = Host(ShardType(), journal, SnapshotStore(tmp_path), settings=settings, monotonic_s=lambda: now_s[0])
    await opened(host)
    assert not slept, "only what clients send takes its time"
    answer = b""
    for n in range(1, 11):
        answer = await host.submit(
            LinkBatch("gateway-0", 1, n, [place(f"o{n}") for _ in range(10)], work=((3, 1),) * 10)
        )
    replies, load = unpack_answer(answer)
    assert len(replies) == 10
    assert load is not None
    assert load.delay_ms == pytest.approx(40)
    assert load.capacity_per_s == pytest.approx(250)
    assert now_s[0] == pytest.approx(0.4, abs=SERVICE_SLACK_S + 0.001)
    assert host.metering.load.plain()["done"] == 100
    await host.stop()


async def test_the_naive_profile_does_what_nobody_waits_for_any_more(
    make_host: Callable[..., Host], clock: Clock
) -> None:
    journal = HeldJournal("shard-0")
    host = await opened(make_host(journal))
    host.apply_settings(Settings(profile="naive"))
    journal.go_on.clear()
    held = asyncio.create_task(host.submit(LinkBatch("gateway-1", 1, 1, [place("first")])))
    await asyncio.to_thread(journal.reached.wait)
    late = asyncio.create_task(host.submit(LinkBatch("gateway-0", 1, 1, [place("late", remaining_ms=10)])))
    await asyncio.sleep(0)
    clock.ns += 1_000_000_000
    journal.go_on.set()
    await held
    (reply,) = unpack_replies(await late)
    assert reply.status == ReplyStatus.DONE
