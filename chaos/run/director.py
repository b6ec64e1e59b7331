"""Takes an experiment from its start to its verdict. It decides nothing but when; what it may do is passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from chaos.experiment.model import Experiment
from chaos.run.decisions import reason_to_abort, steady_state
from chaos.run.ending import Ended
from chaos.run.faults import Faults
from chaos.run.parts import Judgement, Parts
from chaos.run.record import Check, ExitCode, Manifest, Verdict
from chaos.run.timeline import Act, Entry, timeline_of
from chaos.run.verdict import judge
from chaos.run.writer import RunWriter

LEAD_S = 1.0
"""From the word to the load until it begins: all of its processes must have heard it."""
FINISH_S_MAX = 120.0
"""For requests that are under way, with all that their senders try again."""
INTERRUPTED = "interrupted"
T = TypeVar("T")


@dataclass(slots=True)
class Clock:
    """Time on the loop's clock, which is CLOCK_MONOTONIC, since the load began."""

    begun_s: float = 0.0
    has_begun: bool = False

    def now_s(self) -> float:
        return asyncio.get_running_loop().time() - self.begun_s if self.has_begun else -LEAD_S


class Director:
    """Runs one experiment once. `manifest` is completed when the load begins."""

    def __init__(
        self,
        name: str,
        experiment: Experiment,
        parts: Parts,
        writer: RunWriter,
        clock: Clock,
        manifest: Callable[[float], Manifest],
    ) -> None:
        self._name = name
        self._experiment = experiment
        self._parts = parts
        self._writer = writer
        self._clock = clock
        self._manifest = manifest
        self._ended: asyncio.Queue[Ended] = asyncio.Queue()
        self._endings: list[Ended] = []
        self._is_interrupted = False
        self._faults = Faults(parts.agent, writer, self._ended)
        self._checks: list[Check] = []
        self._seen: dict[int, tuple[dict[str, str], float]] = {}
        self._samples_over = asyncio.Event()
        self._samples_over.set()

    def interrupt(self, why: str = INTERRUPTED) -> None:
        """End the run as soon as that can be, and take everything back. Once is enough."""
        if self._is_interrupted:
            self._writer.note("note", self._name, "already ending", "everything is being taken back")
            return
        self._is_interrupted = True
        self._writer.note("note", self._name, why, "everything is taken back")
        self._ended.put_nowait(Ended(ExitCode.ABORTED, why))

    async def run(self) -> Verdict:
        """Return the verdict, whatever happened; all that was done is taken back, all that was started has ended."""
        background: list[asyncio.Task[None]] = []
        try:
            await self._unless_ended(self._start(), is_cut_short=False)
            background = await self._begin()
            await self._unless_ended(self._perform())
        except Ended as error:
            self._endings.append(error)
        except asyncio.CancelledError:
            self._uncancel()
            self._endings.append(Ended(ExitCode.ABORTED, INTERRUPTED))
        except Exception as error:
            self._endings.append(_of_failure(error))
        for ended in self._endings:
            self._writer.note("abort", self._name, ended.exit_code.name, str(ended))
        verdict = await self._shielded(self._end(background))
        self._writer.verdict(verdict)
        return verdict

    async def _start(self) -> None:
        self._writer.note("note", "exchange", "starting")
        try:
            await self._parts.world.start()
            self._writer.note("note", "exchange", "serves")
            await self._parts.load.start()
        except Exception as error:
            raise Ended(ExitCode.NO_STEADY_STATE, f"nothing to begin with: {error}") from error

    async def _begin(self) -> list[asyncio.Task[None]]:
        """Begin the load, and all that goes on beside it."""
        begun_s = asyncio.get_running_loop().time() + LEAD_S
        self._clock.begun_s, self._clock.has_begun = begun_s, True
        self._writer.manifest(self._manifest(begun_s))
        await self._parts.load.begin(int(begun_s * 1e9))
        self._samples_over.clear()
        going = (self._watch(), self._parts.world.gather(), self._look_each_second(), self._take_samples())
        return [asyncio.create_task(self._telling(work)) for work in going]

    async def _perform(self) -> None:
        """Do all of the experiment by time."""
        for entry in timeline_of(self._experiment):
            await self._until(entry.at_s)
            self._do(entry)
        await self._until(self._experiment.duration_s)
        await self._faults.settle()

    def _do(self, entry: Entry) -> None:
        match entry.act:
            case Act.BEGIN_PHASE:
                if entry.phase is self._experiment.phases[1]:
                    self._expect_steady_state()
                self._writer.note("phase", entry.phase.name, "begun")
            case Act.INJECT:
                assert entry.step is not None
                self._faults.inject(entry.number, entry.step)
            case Act.ROLL_BACK:
                self._faults.roll_back(entry.number)

    def _expect_steady_state(self) -> None:
        """Raises `Ended` if there is none."""
        check = steady_state(self._experiment.steady_state, self._writer.samples)
        self._note_check(check)
        if not check.held:
            raise Ended(ExitCode.NO_STEADY_STATE, f"no steady state: expected {check.wanted}, found {check.found}")

    async def _end(self, background: list[asyncio.Task[None]]) -> Verdict:
        """Take everything back, end what was started, and judge what was seen."""
        await self._faults.roll_back_all()
        await self._carefully("the load", self._finish_load())
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        self._collect_endings()
        world = self._parts.world
        await self._carefully("the exchange", world.stop_exchange())
        judgement = Judgement()
        if not self._endings:
            self._writer.note("note", "history", "checking")
            judgement = await self._judge()
        for check in (*self._parts.watch.broken(), *judgement.checks):
            if check.name not in {known.name for known in self._checks}:
                self._note_check(check)
        await self._carefully("the exchange", world.stop())
        self._collect_endings()
        return judge(self._name, self._experiment, self._endings, self._checks, judgement.figures)

    async def _finish_load(self) -> None:
        async with asyncio.timeout(FINISH_S_MAX):
            await self._parts.load.finish()
            await self._samples_over.wait()

    async def _judge(self) -> Judgement:
        writer = self._writer
        try:
            return await self._unless_ended(self._parts.judge.judge(writer.directory, writer.samples, writer.events))
        except Ended as error:
            self._endings.append(error)
        except Exception as error:
            self._endings.append(_of_failure(error))
        return Judgement()

    def _note_check(self, check: Check) -> None:
        self._checks.append(check)
        what = "held" if check.held else "broken"
        self._writer.note("check", check.name, what, f"expected {check.wanted}; found {check.found}")

    async def _watch(self) -> None:
        await self._parts.watch.run(self._writer.note)

    async def _take_samples(self) -> None:
        """Write each second down once it is complete, and end the run if it says so."""
        try:
            while (sample := await self._parts.load.next_second()) is not None:
                stages, memory_mb = self._seen.get(sample.t, ({}, 0.0))
                self._writer.sample(msgspec.structs.replace(sample, stages=stages, memory_mb=memory_mb))
        finally:
            self._samples_over.set()

    async def _look_each_second(self) -> None:
        second = 0
        watch, experiment = self._parts.watch, self._experiment
        known: set[str] = set()
        while True:
            await self._until(second + 1)
            self._seen[second] = (dict(watch.stages), watch.memory_mb)
            for check in watch.broken():
                if check.name not in known:
                    known.add(check.name)
                    self._note_check(check)
            late_p99s_ms = [sample.late_p99_ms for sample in self._writer.samples]
            if why := reason_to_abort(experiment.abort_when, watch.memory_mb, watch.disk_free_mb, late_p99s_ms):
                self._ended.put_nowait(Ended(ExitCode.ABORTED, why))
                return
            second += 1

    async def _telling(self, work: Awaitable[None]) -> None:
        """Do what goes on beside the run; if that fails, the run ends."""
        try:
            await work
        except Exception as error:
            self._ended.put_nowait(_of_failure(error))

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(at_s - self._clock.now_s(), 0.0))

    async def _unless_ended(self, work: Awaitable[T], *, is_cut_short: bool = True) -> T:
        """Wait for work. If the run ends meanwhile, raise that, after the work if it may not be cut short."""
        task = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(self._ended.get())
        try:
            await asyncio.wait([task, ending], return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                return task.result()
            raise ending.result()
        finally:
            ending.cancel()
            if is_cut_short:
                task.cancel()
            await asyncio.wait([task])

    async def _shielded(self, work: Awaitable[Verdict]) -> Verdict:
        """Wait for the end of a run, which nothing may cut short."""
        task = asyncio.ensure_future(work)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.done():
                    raise
                self._uncancel()
                self._writer.note("note", self._name, "already ending", "everything is being taken back")

    async def _carefully(self, what: str, work: Awaitable[None]) -> None:
        """Do one thing of the end; if it fails, go on with the others."""
        try:
            await work
        except Exception as error:
            self._writer.note("note", what, "did not end as it should", str(error))
            self._endings.append(_of_failure(error))

    def _collect_endings(self) -> None:
        while not self._ended.empty():
            self._endings.append(self._ended.get_nowait())

    @staticmethod
    def _uncancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()


def _of_failure(error: Exception) -> Ended:
    return Ended(ExitCode.ABORTED, f"{getattr(error, 'code', type(error).__name__)}: {error}")
