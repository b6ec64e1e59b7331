"""Processes of a load against an echo that acknowledges all: counts, logs, storms, and deaths that are told."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.load.client_log import read_lines
from chaos.load.echo import running_echo
from chaos.load.plan import Retry
from chaos.load.seconds import LoadSecond, merged
from chaos.load.workers import LoadFailed, LoadWorkers
from tests.chaos.load.plans import group_of, plan_of

SOON_NS = 200_000_000


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    async with running_echo() as address:
        yield address


async def seconds_of(workers: LoadWorkers) -> list[LoadSecond]:
    seconds = []
    while (second := await workers.next_second()) is not None:
        seconds.append(second)
    return seconds


@pytest.mark.parametrize(
    ("transport", "retry", "count"), [("unary", "none", 2), ("unary", "budget", 1), ("session", "backoff", 1)]
)
async def test_all_of_a_plan_is_sent_and_written_down(
    echo: str, tmp_path: Path, transport: str, retry: Retry, count: int
) -> None:
    # However slow this machine is: nothing is late for its deadline.
    group = group_of(transport=transport, retry=retry, deadline_ms=30_000)
    plan = plan_of(group, address=echo)
    workers = LoadWorkers(plan, tmp_path, count)
    await workers.start()
    await workers.begin(time.monotonic_ns() + SOON_NS)
    seconds = await seconds_of(workers)
    await workers.finish()
    whole, due = merged(seconds), len(list(plan.schedule()))
    assert [second.t for second in seconds] == [0, 1]
    assert (whole.requests, whole.good, whole.not_sent) == (due, due, 0)
    lines = [line for client in group.clients for line, _ in read_lines(tmp_path / f"{client.name}.log")]
    assert sum(line["e"] == "send" for line in lines) == due
    assert sum(line["e"] == "out" and line["o"] == 1 for line in lines) == due
    assert sum(line["e"] == "end" for line in lines) == len(group.clients)


async def test_a_load_without_logs_leaves_none(echo: str, tmp_path: Path) -> None:
    workers = LoadWorkers(plan_of(group_of(retry="none"), address=echo, is_logged=False, duration_s=1.0), tmp_path, 1)
    await workers.start()
    await workers.begin(time.monotonic_ns() + SOON_NS)
    await seconds_of(workers)
    await workers.finish()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".log")]


async def test_a_reconnect_storm_reaches_every_client_and_the_load_goes_on(echo: str, tmp_path: Path) -> None:
    group = group_of(4, transport="session", deadline_ms=30_000)
    workers = LoadWorkers(plan_of(group, address=echo, duration_s=3.0), tmp_path, 2)
    await workers.start()
    await workers.begin(time.monotonic_ns())
    assert await workers.next_second() is not None
    assert await workers.storm("reconnect", "g") == 4
    last = (await seconds_of(workers))[-1]
    await workers.finish()
    assert (last.t, last.good) == (2, last.requests)


async def test_a_process_that_dies_is_an_error_that_says_so(echo: str, tmp_path: Path) -> None:
    workers = LoadWorkers(plan_of(address=echo, duration_s=60.0), tmp_path, 2)
    await workers.start()
    await workers.begin(time.monotonic_ns())
    os.kill(workers.pids[1], signal.SIGKILL)
    with pytest.raises(LoadFailed, match="process 1 of the load ended with -9"):
        await asyncio.wait_for(seconds_of(workers), 60.0)
    await workers.kill()
