"""A primary that is paused while another takes over, and goes on afterwards: nothing of it gets in or is answered."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from exchange.processes import read_process
from exchange.runtime.host import Host
from exchange.runtime.journal import JournalLocked
from exchange.runtime.journal.nats_settings import NatsSettings
from exchange.runtime.messages import LinkBatch
from exchange.runtime.nats_servers import NatsServers
from exchange.runtime.storage import KINDS, open_storage
from tests.runtime.primary_process import be_primary
from tests.runtime.test_standby import is_done, is_there, place, reached

LIMIT_S = 60.0


@contextmanager
def primary(directory: Path, machine: str, nats: NatsSettings | None) -> Iterator[tuple[int, Connection]]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=be_primary, args=(directory, machine, nats, theirs))
    process.start()
    # Only the child holds this end: its death is seen.
    theirs.close()
    assert process.pid is not None
    try:
        assert heard(ours) == "started"
        yield process.pid, ours
    finally:
        process.kill()
        process.join()


def heard(pipe: Connection) -> str:
    assert pipe.poll(LIMIT_S)
    said: str = pipe.recv()
    return said


def pause(pid: int) -> None:
    """Return once it stands still."""
    os.kill(pid, signal.SIGSTOP)
    give_up_s = time.monotonic() + LIMIT_S
    while (process := read_process(pid)) is None or process.state != "T":
        assert time.monotonic() < give_up_s


def place_over(pipe: Connection, name: str) -> str:
    pipe.send(name)
    return heard(pipe)


async def test_a_zombie_on_nats_gets_no_record_in_and_answers_nobody(tmp_path: Path, nats_servers: NatsServers) -> None:
    settings = nats_servers.settings()
    with primary(tmp_path / "a", "zombie-shard", settings) as (pid, pipe):
        assert place_over(pipe, "before") == "DONE"
        storage = await asyncio.to_thread(open_storage, tmp_path / "b", "zombie-shard", settings)
        standby = Host(KINDS["shard"], *storage)
        await standby.follow()
        await reached(standby, 2)
        pause(pid)
        pipe.send("late")
        await standby.promote(begin=False)
        assert is_done(await standby.submit(LinkBatch("h", 1, 1, [place("after")])))
        os.kill(pid, signal.SIGCONT)
        assert await asyncio.to_thread(heard, pipe) == "NotPrimary"
        # For good.
        assert await asyncio.to_thread(place_over, pipe, "later") == "NotPrimary"
        assert is_done(await standby.submit(LinkBatch("h", 1, 2, [place("last")])))
        names = ("before", "late", "later", "after", "last")
        assert [is_there(standby, name) for name in names] == [True, False, False, True, True]
        await standby.stop()


async def test_a_primary_with_files_has_to_be_ended_first(tmp_path: Path) -> None:
    with primary(tmp_path, "shard-0", None) as (pid, pipe):
        assert place_over(pipe, "before") == "DONE"
        seconds = count()
        storage = open_storage(tmp_path, "shard-0")
        standby = Host(KINDS["shard"], *storage, monotonic_s=lambda: float(next(seconds)))
        await standby.follow()
        pause(pid)
        # The paused one may be about to write, so nobody may beside it.
        with pytest.raises(JournalLocked) as refused:
            await standby.promote(begin=False)
        assert refused.value.holder_pid == pid
        os.kill(pid, signal.SIGKILL)
        give_up_s = time.monotonic() + LIMIT_S
        while (process := read_process(pid)) is not None and process.state != "Z":
            assert time.monotonic() < give_up_s
        await standby.promote(begin=False)
        assert is_there(standby, "before")
        assert is_done(await standby.submit(LinkBatch("h", 1, 1, [place("after")])))
        await standby.stop()
