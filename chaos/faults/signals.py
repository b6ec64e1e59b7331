"""Single processes: killed, also in a moment that hurts, or stopped for a while."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from chaos.faults.fault import Target
from chaos.faults.injection import FaultNotInjected, RollbackFailed, TargetUnknown, Wish
from chaos.worlds.lab import Lab
from exchange.client import AsyncClient, EvenkeelError, Side
from exchange.processes import read_process, send_signal

POLL_S = 0.005
SPIN_S = 0.0002
MOMENT_S_MAX = 10.0
GO_ON_S_MAX = 5.0
TURNS_SEEN = 3
PROBE_PRICE = "0.01"
PROBE_QUANTITY = "0.0001"


class KillArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    moment: Literal["now", "appended", "acknowledged"] = "now"
    """`appended`: as its journal (in files) grows, before anybody can know; `acknowledged`: as an order of ours is."""


class KillProcess:
    """SIGKILL. Whoever watches it starts it again."""

    def __init__(self, lab: Lab, target: Target, moment: str) -> None:
        self._lab = lab
        self._pid = target.pid
        self._moment = moment
        self._how = ""
        self._is_over = threading.Event()
        self.target = target.name

    async def inject(self) -> None:
        match self._moment:
            case "appended":
                # In a thread of its own, as the loop would be too late.
                self._how = await asyncio.to_thread(self._kill_as_it_appends)
            case "acknowledged":
                await self._kill_as_it_acknowledges()
            case _:
                send_signal(signal.SIGKILL, [self._pid])

    def _kill_as_it_appends(self) -> str:
        directory = self._lab.journal_dir(self.target)
        if directory is None:
            raise FaultNotInjected(f"expected {self.target} to have a journal in files, whose growth can be seen")
        segments = sorted(directory.glob("*.journal"))
        if not segments:
            raise FaultNotInjected(f"expected a journal of {self.target}, found no segment")
        before = segments[-1].stat().st_size
        give_up_s = time.monotonic() + MOMENT_S_MAX
        while (size := segments[-1].stat().st_size) == before:
            if self._is_over.is_set() or time.monotonic() > give_up_s:
                raise FaultNotInjected(f"expected {segments[-1].name} to grow, found the same for {MOMENT_S_MAX:g} s")
            time.sleep(SPIN_S)
        send_signal(signal.SIGKILL, [self._pid])
        return f" as its journal grew by {size - before:,} bytes"

    async def _kill_as_it_acknowledges(self) -> None:
        market = next((market for market, shard in self._lab.markets.items() if shard == self.target), None)
        if market is None:
            raise FaultNotInjected(f"expected the shard of a market, was {self.target}")
        async with AsyncClient(self._lab.addresses, self._lab.probe_key, timeout=MOMENT_S_MAX) as probe:
            try:
                order = await probe.place_order(market, Side.BUY, PROBE_QUANTITY, PROBE_PRICE, post_only=True)
            except EvenkeelError as error:
                raise FaultNotInjected(f"expected an order to be acknowledged, found {error}") from error
            send_signal(signal.SIGKILL, [self._pid])
        self._how = f" as it acknowledged {order.client_order_id}"

    async def proof(self) -> str:
        await wait_until_gone([self._pid])
        return f"process {self._pid} is gone{self._how}"

    async def rollback(self) -> None:
        """The exchange has started it again; one that was not killed yet is not any more."""
        self._is_over.set()


class PauseProcess:
    """SIGSTOP, and SIGCONT in the end. Who was taken for dead meanwhile may have been killed."""

    def __init__(self, target: Target) -> None:
        self._pid = target.pid
        self.target = target.name

    async def inject(self) -> None:
        send_signal(signal.SIGSTOP, [self._pid])

    async def proof(self) -> str:
        while (process := read_process(self._pid)) and process.state != "T":
            await asyncio.sleep(POLL_S)
        if process is None:
            raise FaultNotInjected(f"expected process {self._pid} to be stopped, found it gone")
        return f"process {self._pid} is stopped"

    async def rollback(self) -> None:
        await go_on(self._pid)


class SlowProcessArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stopped_share: Annotated[float, Meta(gt=0.0, le=0.95)] = 0.5
    """Of the time."""
    period_ms: Annotated[int, Meta(ge=10, le=1_000)] = 50


class SlowProcess:
    """SIGSTOP and SIGCONT by turns: it does all that it did, and takes longer, as on a machine that is not its own."""

    def __init__(self, target: Target, arguments: SlowProcessArguments) -> None:
        self._pid = target.pid
        self._stopped_s = arguments.period_ms / 1e3 * arguments.stopped_share
        self._running_s = arguments.period_ms / 1e3 - self._stopped_s
        self._turns: asyncio.Task[None] | None = None
        self._seen_stopped = 0
        self.target = target.name

    async def inject(self) -> None:
        self._turns = asyncio.create_task(self._take_turns())

    async def _take_turns(self) -> None:
        while (process := read_process(self._pid)) is not None and process.state != "Z":
            send_signal(signal.SIGSTOP, [self._pid])
            await asyncio.sleep(self._stopped_s)
            process = read_process(self._pid)
            self._seen_stopped += process is not None and process.state == "T"
            send_signal(signal.SIGCONT, [self._pid])
            await asyncio.sleep(self._running_s)

    async def proof(self) -> str:
        assert self._turns is not None, "it is injected first"
        while self._seen_stopped < TURNS_SEEN:
            if self._turns.done():
                raise FaultNotInjected(f"expected process {self._pid} to be slowed down, found it gone")
            await asyncio.sleep(POLL_S)
        return f"process {self._pid} was stopped and went on {self._seen_stopped} times so far"

    async def rollback(self) -> None:
        if self._turns is not None:
            self._turns.cancel()
            await asyncio.wait([self._turns])
            await go_on(self._pid)


async def wait_until_gone(pids: Sequence[int]) -> None:
    """Return once none of these processes is there; one that is dead and not reaped is not."""
    for pid in pids:
        while (process := read_process(pid)) and process.state != "Z":
            await asyncio.sleep(POLL_S)


async def go_on(pid: int) -> None:
    """Have a process that was stopped go on. Raises `RollbackFailed`."""
    try:
        async with asyncio.timeout(GO_ON_S_MAX):
            while True:
                send_signal(signal.SIGCONT, [pid])
                process = read_process(pid)
                if process is None or process.state != "T":
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise RollbackFailed(f"expected process {pid} to go on, found it stopped: `kill -CONT {pid}`") from error


def find(lab: Lab, wish: Wish, among: Sequence[Target] | None = None) -> Target:
    """Return the process that is meant, by name, role or market; one of several by chance. Raises `TargetUnknown`."""
    everything = [target for target in (lab.all_targets() if among is None else among) if target.pid]
    name = lab.markets.get(wish.target, wish.target)
    found = [t for t in everything if t.name == name] or [t for t in everything if t.role == name]
    if not found:
        known = ", ".join(sorted({target.name for target in everything})) or "none"
        raise TargetUnknown(
            f"expected a process by its name or role, or a market, was {wish.target!r}; there are {known}"
        )
    return wish.chance.choice(found)


def kill(lab: Lab, wish: Wish, arguments: KillArguments) -> KillProcess:
    # Nobody but the lab starts a NATS server or the GCS again: faults of their own do.
    return KillProcess(
        lab, find(lab, wish, [t for t in lab.stoppable() if t.role not in ("nats", "gcs")]), arguments.moment
    )


def pause(lab: Lab, wish: Wish, arguments: object) -> PauseProcess:
    return PauseProcess(find(lab, wish, lab.stoppable()))


def slow_process(lab: Lab, wish: Wish, arguments: SlowProcessArguments) -> SlowProcess:
    return SlowProcess(find(lab, wish, lab.stoppable()), arguments)
