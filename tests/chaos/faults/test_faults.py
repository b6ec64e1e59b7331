"""Faults do what they say to real processes, prove it, and take it back."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from chaos.experiment.model import FaultStep
from chaos.faults import catalogue, places
from chaos.faults.description import TABLE_BEGIN, TABLE_END, lines_of_fault, table
from chaos.faults.fault import FaultKind, Target
from chaos.faults.injection import FaultNotInjected, Injection, RollbackFailed
from chaos.worlds.clocks import Clocks
from chaos.worlds.lab import Lab
from chaos.worlds.proxy import Proxy
from chaos.worlds.world import World
from exchange.client import AsyncClient
from exchange.processes import descendants, read_process

LIMIT_S = 30
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

WRITER = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("ready", flush=True)
at = 0
for _ in range(100_000):
    begin_s = time.monotonic()
    try:
        at += os.pwritev(file, [b"record"], at)
        os.fdatasync(file)
        said = f"{time.monotonic() - begin_s:.3f}"
    except OSError as error:
        said = error.strerror
    print(said, time.time_ns(), flush=True)
    time.sleep(0.01)
"""


@contextmanager
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that appends to a journal and says how long each sync took, or what went wrong."""
    directory = tmp_path / "shard-0" / "journal"
    directory.mkdir(parents=True)
    journal = directory / "00000000000000000001.journal"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(journal)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def storm(what: str, population: str) -> int:
    return 5 if (what, population) == ("cancel_all", "makers") else 0


def lab_of(process: subprocess.Popen[str] | None, tmp_path: Path, **more: Any) -> Lab:
    targets = [] if process is None else [Target("shard-0", "shard", process.pid)]
    return Lab(
        targets=lambda: targets,
        operator=cast(AsyncClient, None),
        addresses=(),
        probe_key="",
        markets={"BTC-USDT": "shard-0"},
        populations=("makers",),
        storm=storm,
        data_dir=tmp_path,
        **more,
    )


def make(lab: Lab, fault: str, target: str = "shard-0", **arguments: Any) -> Injection:
    step = FaultStep(fault=fault, target=target, for_s=1, arguments=arguments)
    return catalogue.make(lab, step, random.Random(1))


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().split(" 1")[0].strip()


async def until_says(process: subprocess.Popen[str], what: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while what not in await asyncio.to_thread(says, process):
            pass


async def test_a_process_is_killed_as_its_journal_grows(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        fault = make(lab_of(process, tmp_path), "kill-process", moment="appended")
        await fault.inject()
        assert "is gone as its journal grew by" in await fault.proof()
        await fault.rollback()


async def test_a_process_is_found_by_its_role_and_paused(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        fault = make(lab_of(process, tmp_path), "pause-process", "shard")
        await fault.inject()
        assert await fault.proof() == f"process {process.pid} is stopped"
        await fault.rollback()
        await until_says(process, "0.")
        await fault.rollback()


async def test_nothing_is_done_to_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FaultNotInjected, match="was 'shard-7'; there are none"):
        make(lab_of(None, tmp_path), "kill-process", "shard-7")
    with pytest.raises(FaultNotInjected, match="the lab does not run this exchange"):
        make(lab_of(None, tmp_path), "kill-node", "node-1")
    with pytest.raises(FaultNotInjected, match="links: proxied"):
        make(lab_of(None, tmp_path), "latency", "gateway", latency_ms=10)
    with pytest.raises(FaultNotInjected, match="nearest is kill-process"):
        make(lab_of(None, tmp_path), "kill-proces")
    with pytest.raises(FaultNotInjected, match="slow-disk: arguments: Expected `int` >= 1"):
        make(lab_of(None, tmp_path), "slow-disk", fsync_ms=0)


@needs_strace
@pytest.mark.parametrize(
    ("fault", "arguments", "seen"),
    [
        ("slow-disk", {"fsync_ms": 200}, "0.2"),
        ("full-disk", {}, "No space left on device"),
        ("failing-disk", {}, "Input/output error"),
    ],
)
async def test_a_disk_is_slow_full_or_failing_and_then_as_before(
    tmp_path: Path, fault: str, arguments: dict[str, Any], seen: str
) -> None:
    with writer(tmp_path) as process:
        injection = make(lab_of(process, tmp_path), fault, **arguments)
        await injection.inject()
        assert f"of process {process.pid}" in await injection.proof()
        await until_says(process, seen)
        await injection.rollback()
        await until_says(process, "0.0")
        await injection.rollback()


async def test_a_torn_journal_is_longer_and_its_process_gone(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        fault = make(lab_of(process, tmp_path), "torn-journal")
        journal = tmp_path / "shard-0" / "journal" / "00000000000000000001.journal"
        while not journal.stat().st_size:
            await asyncio.sleep(0.01)
        await fault.inject()
        proof = await fault.proof()
        assert "behind the record that ends at byte" in proof
        gone = read_process(process.pid)
        assert gone is None or gone.state == "Z"


@needs_compiler
async def test_the_clock_of_one_process_jumps_and_jumps_back(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "clocks")
    with clocks.preloaded():
        running = writer(tmp_path)
        process = running.__enter__()
    try:
        fault = make(lab_of(process, tmp_path, clocks=clocks), "clock-jump", by_s=-5_000.5)
        await fault.inject()
        assert "-5000.5 s off" in await fault.proof()

        def off_s() -> float:
            assert process.stdout is not None
            return int(process.stdout.readline().rsplit(" ", 1)[1]) / 1e9 - time.time()

        async with asyncio.timeout(LIMIT_S):
            while not -5_100 < await asyncio.to_thread(off_s) < -5_000:
                pass
            await fault.rollback()
            while not -50 < await asyncio.to_thread(off_s) < 1:
                pass
    finally:
        running.__exit__(None, None, None)


async def test_links_are_those_of_a_gateway_or_of_all(tmp_path: Path) -> None:
    proxies = {f"gateway-{number}": Proxy("127.0.0.1:1") for number in range(2)}
    lab = lab_of(None, tmp_path, proxies=proxies)
    fault = make(lab, "reset-connections", "gateway")
    await fault.inject()
    with pytest.raises(FaultNotInjected, match="expected connections to reset, found none"):
        await fault.proof()
    with pytest.raises(FaultNotInjected, match="expected gateway or one of gateway-0, gateway-1"):
        make(lab, "blackhole", "gateway-2")


async def test_a_storm_is_one_if_anybody_was_in_it(tmp_path: Path) -> None:
    lab = lab_of(None, tmp_path)
    fault = make(lab, "mass-cancel", "makers")
    await fault.inject()
    assert await fault.proof() == "5 clients cancel all their orders"
    nobody = make(lab, "reconnect-storm", "everybody")
    await nobody.inject()
    with pytest.raises(FaultNotInjected, match="expected clients of everybody"):
        await nobody.proof()
    with pytest.raises(FaultNotInjected, match="expected everybody or one of makers, was 'takers'"):
        make(lab, "mass-cancel", "takers")


def test_every_fault_says_what_it_does_and_to_what() -> None:
    for name, kind in catalogue.CATALOGUE.items():
        assert kind.name == name
        assert kind.description
        assert kind.targets
        assert msgspec.json.schema(kind.arguments)


def test_the_catalogue_in_the_docs_is_the_one_that_there_is() -> None:
    text = (Path(__file__).parents[3] / "docs" / "faults.md").read_text()
    found = text.partition(TABLE_BEGIN)[2].partition(TABLE_END)[0].strip()
    assert found == table(), "`python -m chaos.faults.description` prints it as it is to be in docs/faults.md"


def test_a_fault_is_described_with_what_its_arguments_may_be() -> None:
    lines = lines_of_fault(catalogue.CATALOGUE["slow-process"])
    assert "  argument    stopped_share = 0.5 (number, > 0, <= 0.95)" in lines
    assert "  taken back  SIGCONT" in lines


async def test_a_process_is_slowed_down_and_goes_on(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        fault = make(lab_of(process, tmp_path), "slow-process", "BTC-USDT", stopped_share=0.9, period_ms=20)
        await fault.inject()
        assert "was stopped and went on 3 times" in await fault.proof()
        await fault.rollback()
        await fault.rollback()
        await until_says(process, "0.")


async def test_a_machine_is_busy_and_then_is_not(tmp_path: Path) -> None:
    fault = make(lab_of(None, tmp_path), "busy-machine", "", processes=1)
    await fault.inject()
    busy = [process.pid for process in descendants(os.getpid()) if "getppid" in process.command]
    assert "1 processes have taken" in await fault.proof()
    await fault.rollback()
    await fault.rollback()
    assert len(busy) == 1
    assert read_process(busy[0]) is None


async def test_a_byte_of_a_journal_is_another_one_and_is_put_back(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        journal = tmp_path / "shard-0" / "journal" / "00000000000000000001.journal"
        while journal.stat().st_size < 12:
            await asyncio.sleep(0.01)
        fault = make(lab_of(process, tmp_path), "flipped-journal", back_bytes=6)
        await fault.inject()
        assert "was 72, is 8d" in await fault.proof()
        assert journal.read_bytes().endswith(b"\x8decord")
        await fault.rollback()
        assert journal.read_bytes().endswith(b"record")
        await fault.rollback()


async def test_a_fault_that_cannot_be_done_is_taken_back_all_the_same(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        fault = make(lab_of(process, tmp_path), "flipped-journal", back_bytes=1 << 20)
        with pytest.raises(FaultNotInjected, match="expected 1048576 bytes or more"):
            await fault.inject()
        await fault.rollback()


class Place:
    """A world in which something is away, and may not come back."""

    def __init__(self) -> None:
        self.is_away = False
        self.comes_back = True
        self.killed_pids: tuple[int, ...] = ()
        self.lasts_s = 1.0

    def inject(self) -> None:
        self.is_away = True

    def heal(self) -> None:
        self.is_away = not self.comes_back

    def evidence(self, kind: FaultKind, name: str) -> str:
        return f"{name} is away" if self.is_away else ""


async def test_what_does_not_come_back_is_not_taken_back_however_often_it_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "BACK_S_MAX", 0.2)
    place = Place()
    fault = places.PlaceFault(FaultKind.KILL_NATS, cast(World, place), Target("nats-0", "nats-0"), place)
    await fault.inject()
    assert await fault.proof() == "nats-0 is away"
    place.comes_back = False
    for _ in range(2):
        with pytest.raises(RollbackFailed, match="expected nats-0 to be as before"):
            await fault.rollback()
    place.comes_back = True
    await fault.rollback()
    assert not place.is_away


async def test_a_place_where_nothing_is_seen_was_not_harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EFFECT_S_MAX", 0.2)
    place = Place()
    fault = places.PlaceFault(FaultKind.CUT_LINK, cast(World, place), Target("node-1", "node-1"), place)
    with pytest.raises(FaultNotInjected, match="saw nothing of it"):
        await fault.proof()


async def test_a_fault_that_is_cut_short_is_taken_back_once_it_is_done() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(Place):
        def inject(self) -> None:
            begun.set()
            may_end.wait()
            super().inject()

    place = Slow()
    fault = places.PlaceFault(FaultKind.KILL_NATS, cast(World, place), Target("nats-0", "nats-0"), place)
    injecting = asyncio.create_task(fault.inject())
    await asyncio.to_thread(begun.wait)
    injecting.cancel()
    await asyncio.wait([injecting])
    taking_back = asyncio.create_task(fault.rollback())
    await asyncio.sleep(0)
    may_end.set()
    await taking_back
    assert not place.is_away
