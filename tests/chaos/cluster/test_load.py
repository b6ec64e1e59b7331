"""Processes of a load on several machines: one schedule, one moment to begin, logs by one clock."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chaos.cluster.hands import NodeAway
from chaos.cluster.load import ClusterWorkers, Moment, pack_logs
from chaos.load.plan import Client, Group, LoadPlan, Span
from chaos.load.seconds import LoadSecond
from chaos.load.workers import LoadFailed

AHEAD_NS = 7_000_000_000
PLAN = LoadPlan(
    seed=1,
    addresses=("127.0.0.1:1",),
    markets=(),
    groups=(
        Group(
            name="flow",
            behaviour="flow",
            per_s=10.0,
            clients=tuple(Client(name=f"flow-{number}", account=number, key="k") for number in range(4)),
            markets=(),
        ),
    ),
    spans=(Span(duration_s=2.0),),
)


@dataclass
class Clock:
    """Each look at it takes 2 ms."""

    now_ns: int = 0

    def look(self) -> Moment:
        self.now_ns += 1_000_000
        return Moment("here", self.now_ns)


@dataclass
class FakePart:
    clock: Clock
    logs: Path
    number: int
    boot: str = "here"
    ahead_ns: int = 0
    fails: str = ""
    begun_ns: int = 0
    shares: list[tuple[int, int]] = field(default_factory=list)
    left: int = 2

    async def start(self, plan: LoadPlan, number: int, of: int) -> None:
        if self.fails == "start":
            raise NodeAway("gone")
        self.shares.append((number, of))
        self.logs.mkdir()
        lines = [{"e": "send", "t": self.ahead_ns + 5, "due": self.ahead_ns + 4, "m": 5}, {"e": "end", "t": 9}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.logs / f"flow-{number}.log").write_text(text + '{"cut sho')

    async def moment(self) -> Moment:
        return Moment(self.boot, self.clock.look().monotonic_ns + self.ahead_ns)

    async def begin(self, at_monotonic_ns: int) -> None:
        self.begun_ns = at_monotonic_ns

    async def next_second(self) -> LoadSecond | None:
        if self.fails == "second":
            raise NodeAway("gone")
        if not self.left:
            return None
        self.left -= 1
        return LoadSecond(t=1 - self.left, offered={"place": 5}, good=4)

    async def storm(self, what: str, group: str) -> int:
        return 3

    async def finish(self) -> bytes:
        return await asyncio.to_thread(pack_logs, self.logs)


def workers_of(tmp_path: Path, far: FakePart | None = None) -> tuple[ClusterWorkers, list[FakePart]]:
    clock = Clock()
    parts = [FakePart(clock, tmp_path / "part-0", 0), far or FakePart(clock, tmp_path / "part-1", 1)]
    parts[1].clock = clock
    logs = tmp_path / "logs"
    logs.mkdir()
    return ClusterWorkers(PLAN, logs, 2, lambda number: parts[number], clock.look), parts


async def test_all_send_their_share_and_their_seconds_are_one(tmp_path: Path) -> None:
    workers, parts = workers_of(tmp_path)
    await workers.start()
    assert [part.shares for part in parts] == [[(0, 2)], [(1, 2)]]
    first, second = await workers.next_second(), await workers.next_second()
    assert first is not None
    assert second is not None
    assert [(one.t, one.requests, one.good) for one in (first, second)] == [(0, 10, 8), (1, 10, 8)]
    assert await workers.next_second() is None
    assert await workers.storm("reconnect", "") == 6


async def test_a_clock_of_another_machine_is_made_up_for(tmp_path: Path) -> None:
    far = FakePart(Clock(), tmp_path / "far", 1, boot="there", ahead_ns=AHEAD_NS)
    workers, parts = workers_of(tmp_path, far)
    await workers.start()
    await workers.begin(100)
    assert parts[0].begun_ns == 100
    assert far.begun_ns == pytest.approx(100 + AHEAD_NS, abs=1_000_000)
    await workers.finish()
    for number in (0, 1):
        *lines, cut = (tmp_path / "logs" / f"flow-{number}.log").read_text().splitlines()
        sent = json.loads(lines[0])
        assert (sent["t"], sent["due"]) == pytest.approx((5, 4), abs=1_000_000)
        assert (sent["m"], cut) == (5, '{"cut sho')


async def test_a_process_whose_node_is_gone_fails_the_load(tmp_path: Path) -> None:
    workers, (_, far) = workers_of(tmp_path)
    await workers.start()
    far.fails = "second"
    with pytest.raises(LoadFailed, match="a process of the load is gone"):
        await workers.next_second()


async def test_a_process_whose_node_is_not_there_does_not_start(tmp_path: Path) -> None:
    workers, _ = workers_of(tmp_path, FakePart(Clock(), tmp_path / "far", 1, fails="start"))
    with pytest.raises(LoadFailed, match="did not start"):
        await workers.start()
