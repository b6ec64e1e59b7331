"""The load on a cluster: a process of it on each of some nodes, which share one schedule and one moment to begin."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from chaos.cluster.hands import NodeAway
from chaos.load.plan import LoadPlan
from chaos.load.seconds import LoadSecond, merged
from chaos.load.workers import LoadFailed, workers_of

PINGS = 10
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TIMES = ("t", "due", "until")
"""The fields of a log's lines that are times of CLOCK_MONOTONIC, in ns."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """CLOCK_MONOTONIC of a machine; `boot` is its own at each start, as the clock is."""

    boot: str
    monotonic_ns: int


class LoadPart(Protocol):
    """A process of the load on a node. Raises `NodeAway`; what it says of itself it raises as `LoadFailed`."""

    async def start(self, plan: LoadPlan, number: int, of: int) -> None: ...

    async def moment(self) -> Moment: ...

    async def begin(self, at_monotonic_ns: int) -> None:
        """By the clock of its machine."""
        ...

    async def next_second(self) -> LoadSecond | None: ...

    async def storm(self, what: str, group: str) -> int: ...

    async def finish(self) -> bytes:
        """End, and return the logs as a tar archive."""
        ...


class ClusterWorkers:
    """Processes of a load on nodes of a cluster. Their logs are gathered in `logs`, by the clock of this machine.

    `start_part` has one started on a node, by its number; `now` reads this machine's clock.
    """

    def __init__(
        self,
        plan: LoadPlan,
        logs: Path,
        workers: int,
        start_part: Callable[[int], LoadPart],
        now: Callable[[], Moment],
    ) -> None:
        self._plan = plan
        self._logs = logs
        self._parts = [start_part(number) for number in range(workers_of(plan, workers))]
        self._now = now
        self._ahead_ns: list[int] = []

    async def start(self) -> None:
        try:
            count = len(self._parts)
            await asyncio.gather(*(part.start(self._plan, n, count) for n, part in enumerate(self._parts)))
            self._ahead_ns = [await self._ahead(part) for part in self._parts]
        except NodeAway as error:
            raise LoadFailed(f"a process of the load did not start: {error}") from error

    async def _ahead(self, part: LoadPart) -> int:
        """Return how far a machine's clock is ahead of this one's: of the answers the one that came fastest."""
        best: tuple[int, int] | None = None
        for _ in range(PINGS):
            asked = self._now()
            there = await part.moment()
            if there.boot == asked.boot:
                return 0
            answered_ns = self._now().monotonic_ns
            took_ns = answered_ns - asked.monotonic_ns
            ahead_ns = there.monotonic_ns - (asked.monotonic_ns + answered_ns) // 2
            best = min(best or (took_ns, ahead_ns), (took_ns, ahead_ns))
        assert best is not None
        return best[1]

    async def begin(self, at_monotonic_ns: int) -> None:
        await self._each(
            part.begin(at_monotonic_ns + ahead) for part, ahead in zip(self._parts, self._ahead_ns, strict=True)
        )

    async def next_second(self) -> LoadSecond | None:
        seconds = await self._each(part.next_second() for part in self._parts)
        complete = [second for second in seconds if second is not None]
        return merged(complete) if len(complete) == len(self._parts) else None

    async def storm(self, what: str, group: str) -> int:
        return sum(await self._each(part.storm(what, group) for part in self._parts))

    async def finish(self) -> None:
        if not self._ahead_ns:
            return
        packed = await self._each(part.finish() for part in self._parts)
        for archive, ahead_ns in zip(packed, self._ahead_ns, strict=True):
            await asyncio.to_thread(unpack_logs, archive, self._logs, ahead_ns)

    async def _each(self, calls: Iterable[Awaitable[T]]) -> list[T]:
        try:
            return list(await asyncio.gather(*calls))
        except NodeAway as error:
            raise LoadFailed(f"a process of the load is gone: {error}") from error


def pack_logs(logs: Path) -> bytes:
    """Return a directory of logs as a tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(logs, arcname=".")
    return packed.getvalue()


def unpack_logs(packed: bytes, logs: Path, ahead_ns: int) -> None:
    """Put logs into a directory; times of a clock that is ahead of this one become times of this one."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(logs, filter="data")
        names = [member.name for member in archive.getmembers() if member.name.endswith(".log")]
    for path in (logs / name for name in names) if ahead_ns else ():
        text = path.read_text(encoding="utf-8")
        path.write_text("".join(_moved(line, ahead_ns) for line in text.splitlines(keepends=True)), encoding="utf-8")


def _moved(text: str, ahead_ns: int) -> str:
    if not text.endswith("\n"):
        return text  # cut short, as by a kill
    line = json.loads(text)
    line.update({name: line[name] - ahead_ns for name in _TIMES if name in line})
    return json.dumps(line, separators=(",", ":")) + "\n"


def moment() -> Moment:
    """Read the clock of this machine."""
    return Moment(Path(_BOOT_ID).read_text(encoding="ascii").strip(), time.monotonic_ns())
