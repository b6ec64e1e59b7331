"""An exchange, a load and faults that are none, for a director under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from chaos.experiment.model import Experiment, FaultStep
from chaos.run.director import Clock, Director
from chaos.run.parts import Judgement, Note, Parts
from chaos.run.record import Check, Delay, Event, Manifest, Sample, Verdict, read_lines
from chaos.run.writer import RunWriter
from tests import virtual_time

START_S = 5.0

EXPERIMENT = msgspec.convert(
    {
        "title": "Two faults",
        "environment": {},
        "load": [{"name": "clients", "behaviour": "flow", "per_s": 100}],
        "phases": [
            {"name": "steady", "duration_s": 10},
            {
                "name": "trouble",
                "duration_s": 20,
                "is_trigger": True,
                "faults": [
                    {"fault": "slow-disk", "target": "shard-0", "at_s": 2, "for_s": 5},
                    {"fault": "latency", "target": "ledger", "at_s": 4},
                ],
            },
            {"name": "after", "duration_s": 10},
        ],
    },
    Experiment,
)


def sample_of(second: int, goodput: float = 1.0, p99_ms: float = 10.0, late_p99_ms: float = 1.0) -> Sample:
    return Sample(
        t=second,
        offered_per_s=100.0,
        attempts_per_s=100.0,
        goodput_per_s=100.0 * goodput,
        refused_per_s=0.0,
        unknown_per_s=0.0,
        not_sent_per_s=0.0,
        delays={"place": Delay(count=100, p50_ms=1.0, p99_ms=p99_ms, max_ms=p99_ms)},
        stages={},
        goodput_by_market={},
        offered_by_market={},
        memory_mb=0.0,
        late_p99_ms=late_p99_ms,
    )


@dataclass
class FakeFault:
    target: str
    done: list[str]
    name: str
    rig: Rig

    async def inject(self) -> None:
        self.done.append(f"inject {self.name}")
        if self.name in self.rig.never_injected:
            await asyncio.Event().wait()

    async def proof(self) -> str:
        if self.name in self.rig.without_effect:
            raise RuntimeError("expected a delay of 200 ms, found 0 ms")
        return f"{self.name} is seen"

    async def rollback(self) -> None:
        self.done.append(f"roll back {self.name}")
        if self.name in self.rig.stuck:
            raise RuntimeError("it would not let go")


@dataclass
class Rig:
    """All parts at once. `done` has what was done to them, in order."""

    goodput: Callable[[int], float] = lambda _: 1.0
    worker_dies_at_s: float = float("inf")
    without_effect: Sequence[str] = ()
    never_injected: Sequence[str] = ()
    stuck: Sequence[str] = ()
    failing_start: str = ""
    failing_begin: str = ""
    judgement: Judgement = field(
        default_factory=lambda: Judgement(
            [Check(name="I1", held=True, wanted="nothing lost", found="nothing", looked_at=1)], {"goodput": 1.0}
        )
    )
    judging_s: float = 0.0
    broken_rules: Sequence[Check] = ()
    memory_mb: float = 300.0
    disk_free_mb: float = 10_000.0
    stages: dict[str, str] = field(default_factory=lambda: {"shard-0": "OPEN"})
    schedule_sha256: str = "5" * 64
    done: list[str] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _second: int = 0
    _begun_s: float = 0.0

    async def start(self) -> None:
        self.done.append("start")
        await asyncio.sleep(START_S)
        if self.failing_start:
            raise RuntimeError(self.failing_start)

    async def gather(self) -> None:
        await asyncio.Event().wait()

    async def stop_exchange(self) -> None:
        self.done.append("stop exchange")

    async def stop(self) -> None:
        self.done.append("stop")

    async def make(self, number: int, step: FaultStep) -> FakeFault:
        return FakeFault(step.target, self.done, step.fault, self)

    def broken(self) -> Sequence[Check]:
        return self.broken_rules

    async def run(self, note: Note) -> None:
        note("stage", "shard-0", "OPEN", "")
        await asyncio.Event().wait()

    async def judge(self, directory: Path, samples: Sequence[Sample], events: Sequence[Event]) -> Judgement:
        await asyncio.sleep(self.judging_s)
        self.done.append("judge")
        return self.judgement


@dataclass
class FakeLoad:
    rig: Rig
    schedule_sha256: str = "5" * 64
    second: int = 0
    begun_s: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self.rig.done.append("start load")

    async def begin(self, at_monotonic_ns: int) -> None:
        if self.rig.failing_begin:
            raise RuntimeError(self.rig.failing_begin)
        self.begun_s = at_monotonic_ns / 1e9

    async def next_second(self) -> Sample | None:
        """Complete a second a second after its end."""
        due_s = self.begun_s + self.second + 2.0
        if not self.over.is_set():
            try:
                async with asyncio.timeout(due_s - virtual_time.now_s()):
                    await self.over.wait()
            except TimeoutError:
                pass
        if self.over.is_set():
            return None
        if self.second >= self.rig.worker_dies_at_s:
            raise RuntimeError("load worker 1 ended with -9")
        self.second += 1
        return sample_of(self.second - 1, self.rig.goodput(self.second - 1))

    async def finish(self) -> None:
        self.rig.done.append("finish load")
        self.over.set()


class Silent:
    def event(self, event: Event) -> None: ...

    def sample(self, sample: Sample) -> None: ...


@dataclass
class Ran:
    verdict: Verdict
    events: list[Event]
    done: list[str]

    def says(self, kind: str, what: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind and event.what == what]


def conduct(
    rig: Rig,
    directory: Path,
    experiment: Experiment = EXPERIMENT,
    meanwhile: Callable[[Director], Coroutine[Any, Any, None]] | None = None,
) -> Ran:
    """Run an experiment under virtual time; `meanwhile` goes on beside it."""
    ran: list[Verdict] = []

    async def work() -> None:
        clock = Clock()
        with RunWriter(directory, clock.now_s, Silent()) as writer:
            parts = Parts(rig, FakeLoad(rig), rig, rig, rig)
            director = Director("two-faults", experiment, parts, writer, clock, manifest)
            running = asyncio.create_task(director.run())
            beside = asyncio.create_task(meanwhile(director)) if meanwhile else None
            ran.append(await running)
            if beside is not None:
                beside.cancel()

    virtual_time.run(work())
    written = msgspec.json.decode((directory / "verdict.json").read_bytes(), type=Verdict)
    assert written == ran[0]
    return Ran(ran[0], list(read_lines(directory / "events.jsonl", Event)), rig.done)


def manifest(begun_s: float) -> Manifest:
    return Manifest(
        name="two-faults",
        seed=1,
        begun_utc="2026-01-01T00:00:00.000Z",
        begun_monotonic_ns=int(begun_s * 1e9),
        versions={},
        schedule_sha256="5" * 64,
        configuration_sha256="c" * 64,
        command=("chaos", "run", "two-faults"),
    )
