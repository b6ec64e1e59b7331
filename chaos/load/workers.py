"""The processes of a load, for whoever directs it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import msgspec

from chaos.load.plan import LoadPlan
from chaos.load.process import Order, Said
from chaos.load.seconds import LoadSecond, merged

PLAN_FILE = "plan.json"
ERRORS_FILE = "load-{}.err"
START_S_MAX, STORM_S_MAX, END_S_MAX = 60.0, 30.0, 30.0
LINE_BYTES_MAX = 64 << 20
_SHOWN_CHARACTERS_MAX = 1_000


class LoadFailed(RuntimeError):
    """A process of the load did not start or ended before its time; the message has what it said last."""

    code = "LOAD_FAILED"


def workers_of(plan: LoadPlan, wanted: int) -> int:
    """Return how many processes a plan is worth: at most one for each client."""
    return max(min(wanted, len(plan.clients)), 1)


class Workers(Protocol):
    """The processes of a load, wherever they are."""

    async def start(self) -> None:
        """Start them; they are ready to begin on return. Raises `LoadFailed`."""
        ...

    async def begin(self, at_monotonic_ns: int) -> None: ...

    async def next_second(self) -> LoadSecond | None:
        """Return the next second of all of them together; None once all is over. Raises `LoadFailed`."""
        ...

    async def storm(self, what: str, group: str) -> int: ...

    async def finish(self) -> None:
        """Send nothing more, wait for what is under way, and end."""
        ...


class LoadWorkers:
    """Runs a plan in some processes of this machine. Logs, the plan and what goes wrong are in `logs`.

    `of`: so many processes there are in all, of which those from `first` on are here; None: all.
    """

    def __init__(self, plan: LoadPlan, logs: Path, workers: int = 1, *, first: int = 0, of: int | None = None) -> None:
        self._plan = plan
        self._logs = logs
        self._count = workers_of(plan, workers)
        self._first = first
        self._of = of or self._count
        self._processes: list[asyncio.subprocess.Process] = []
        self._reading: list[asyncio.Task[None]] = []
        self._ready = [asyncio.Event() for _ in range(self._count)]
        self._parts: dict[int, list[LoadSecond]] = defaultdict(list)
        self._seconds: asyncio.Queue[LoadSecond | LoadFailed | None] = asyncio.Queue()
        self._storms: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(self._count)]
        self._ended = 0
        self._failure: LoadFailed | None = None

    async def start(self) -> None:
        """Start the processes; they are ready to begin on return. Raises `LoadFailed`."""
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / PLAN_FILE
        self._plan.write(path)
        for number in range(self._count):
            with self._errors(number).open("wb") as errors:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "chaos.load.process", str(path), str(self._logs)),
                    *(str(self._first + number), str(self._of)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    limit=LINE_BYTES_MAX,
                    start_new_session=True,  # Ctrl-C is for who directs
                )
            self._processes.append(process)
            self._reading.append(asyncio.create_task(self._read(number, process)))
        try:
            async with asyncio.timeout(START_S_MAX):
                for event in self._ready:
                    await event.wait()
        except TimeoutError as error:
            raise LoadFailed(f"expected a load that is ready, was not within {START_S_MAX:.0f} s") from error
        if self._failure is not None:
            raise self._failure

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes)

    def _errors(self, number: int) -> Path:
        return self._logs / ERRORS_FILE.format(self._first + number)

    async def begin(self, at_monotonic_ns: int) -> None:
        await self._order(Order(do="begin", at_monotonic_ns=at_monotonic_ns))

    async def next_second(self) -> LoadSecond | None:
        """Return the next second of all processes; None once all is over. Raises `LoadFailed`."""
        said = await self._seconds.get()
        if isinstance(said, LoadFailed):
            raise said
        return said

    async def storm(self, what: str, group: str) -> int:
        """Have the clients of a group ("" for all) `reconnect` or `cancel_all` at once; return how many that were."""
        await self._order(msgspec.convert({"do": what, "group": group}, Order))
        async with asyncio.timeout(STORM_S_MAX):
            return sum([await counts.get() for counts in self._storms])

    async def finish(self) -> None:
        """Send nothing more, wait for what is under way, and end."""
        if not self._processes:
            return
        await self._order(Order(do="stop"))
        await asyncio.gather(*self._reading)
        await self.kill()

    async def kill(self) -> None:
        """End the processes, whatever they do."""
        for process in self._processes:
            if process.returncode is None:
                try:
                    async with asyncio.timeout(END_S_MAX if self._ended == self._count else 0.0):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def _order(self, order: Order) -> None:
        line = msgspec.json.encode(order) + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has ended: that is told by who reads it

    async def _read(self, number: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        decoder = msgspec.json.Decoder(Said)
        has_ended = False
        async for line in process.stdout:
            said = decoder.decode(line)
            match said.what:
                case "ready":
                    self._ready[number].set()
                case "storm":
                    self._storms[number].put_nowait(said.count)
                case "ended":
                    has_ended = True
                case "second":
                    assert said.second is not None
                    self._take(said.second)
        self._ended += 1
        if not has_ended:
            code = await process.wait()
            if code or not self._ready[number].is_set():
                shown = self._errors(number).read_text(errors="replace")[-_SHOWN_CHARACTERS_MAX:]
                self._failure = LoadFailed(f"process {number} of the load ended with {code}: {shown}")
                self._seconds.put_nowait(self._failure)
                self._ready[number].set()
                return
        if self._ended == self._count:
            self._seconds.put_nowait(None)

    def _take(self, second: LoadSecond) -> None:
        parts = self._parts[second.t]
        parts.append(second)
        if len(parts) == self._count:
            self._seconds.put_nowait(merged(self._parts.pop(second.t)))
