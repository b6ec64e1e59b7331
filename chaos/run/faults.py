"""The faults of a run: each is injected, proves its effect, and is taken back, whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from chaos.experiment.model import FaultStep
from chaos.run.ending import Ended
from chaos.run.parts import Agent, Fault
from chaos.run.record import ExitCode, found_by
from chaos.run.writer import RunWriter

INJECT_S_MAX = 120.0
"""A planned restart of everything takes its time."""
CUT_SHORT_S = 10.0
"""For a fault that is being injected when the run ends."""
ROLLBACK_S_MAX = 60.0
ROLLBACK_ATTEMPTS = 2


@dataclass(slots=True)
class _Injection:
    number: int
    step: FaultStep
    work: asyncio.Task[None]
    fault: Fault | None = None
    is_back: bool = False


class Faults:
    """Does the faults of one run, several at a time if the experiment says so.

    `ended` is told of each that did not take effect or could not be taken back.
    """

    def __init__(self, agent: Agent, writer: RunWriter, ended: asyncio.Queue[Ended]) -> None:
        self._agent = agent
        self._writer = writer
        self._ended = ended
        self._injections: dict[int, _Injection] = {}
        self._rollbacks: set[asyncio.Task[None]] = set()

    def inject(self, number: int, step: FaultStep) -> None:
        """Begin to inject a fault."""
        self._injections[number] = injection = _Injection(number, step, asyncio.create_task(asyncio.sleep(0)))
        injection.work = asyncio.create_task(self._inject(injection))

    def roll_back(self, number: int) -> None:
        """Begin to take a fault back."""
        task = asyncio.create_task(self._roll_back(self._injections[number]))
        self._rollbacks.add(task)
        task.add_done_callback(self._rollbacks.discard)

    async def settle(self) -> None:
        """Wait for what has been begun."""
        await asyncio.gather(*(injection.work for injection in self._injections.values()), *self._rollbacks)

    async def roll_back_all(self) -> None:
        """Take back, in reverse order, all that is not yet; what is being injected is cut short."""
        working = [injection.work for injection in self._injections.values() if not injection.work.done()]
        if working:
            _, unfinished = await asyncio.wait(working, timeout=CUT_SHORT_S)
            for work in unfinished:
                work.cancel()
        await asyncio.gather(*self._rollbacks, return_exceptions=True)
        for injection in sorted(self._injections.values(), key=lambda injection: -injection.number):
            await self._roll_back(injection)

    async def _inject(self, injection: _Injection) -> None:
        step = injection.step
        target = step.target
        try:
            async with asyncio.timeout(INJECT_S_MAX):
                injection.fault = await self._agent.make(injection.number, step)
                target = injection.fault.target
                await injection.fault.inject()
                self._writer.note("fault", step.fault, "injected", found_by(step.target, target), target)
                proof = await injection.fault.proof()
            self._writer.note("proof", step.fault, "took effect", proof, target)
        except asyncio.CancelledError:
            self._writer.note("fault", step.fault, "cut short", target=target)
        except Exception as error:
            why = str(error) or f"nothing showed within {INJECT_S_MAX:g} s"
            self._writer.note("proof", step.fault, "did not take effect", why, target)
            self._ended.put_nowait(Ended(ExitCode.NOT_INJECTED, f"{step.fault} {target} did not take effect: {why}"))

    async def _roll_back(self, injection: _Injection) -> None:
        await asyncio.wait([injection.work])
        fault, step = injection.fault, injection.step
        if fault is None or injection.is_back:
            return
        injection.is_back = True
        why = ""
        for _ in range(ROLLBACK_ATTEMPTS):
            try:
                async with asyncio.timeout(ROLLBACK_S_MAX):
                    await fault.rollback()
            except Exception as error:
                why = str(error) or f"not done within {ROLLBACK_S_MAX:g} s"
            else:
                detail = found_by(step.target, fault.target)
                self._writer.note("rollback", step.fault, "taken back", detail, fault.target)
                return
        self._writer.note("rollback", step.fault, "failed", why, fault.target)
        what = f"{step.fault} {fault.target} could not be taken back: {why}"
        self._ended.put_nowait(Ended(ExitCode.ROLLBACK_FAILED, what))
