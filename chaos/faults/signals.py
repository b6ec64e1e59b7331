"""Single processes: killed, also in a moment that hurts, or stopped for a while."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Literal

import msgspec

from chaos.faults.fault import Target
from chaos.faults.injection import FaultNotInjected, RollbackFailed, Wish
from chaos.worlds.lab import Lab
from exchange.client import AsyncClient, EvenkeelError, Side
from exchange.processes import read_process, send_signal

POLL_S = 0.005
SPIN_S = 0.0002
MOMENT_S_MAX = 10.0
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
            if time.monotonic() > give_up_s:
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
        while (process := read_process(self._pid)) and process.state != "Z":
            await asyncio.sleep(POLL_S)
        return f"process {self._pid} is gone{self._how}"

    async def rollback(self) -> None:
        """Nothing is to be taken back: the exchange has started it again."""


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
        send_signal(signal.SIGCONT, [self._pid])
        process = read_process(self._pid)
        if process is not None and process.state == "T":
            await asyncio.sleep(POLL_S)
            if (process := read_process(self._pid)) is not None and process.state == "T":
                raise RollbackFailed(f"expected process {self._pid} to go on, found it stopped")


def find(lab: Lab, wish: Wish) -> Target:
    """Return the process that is meant, by name or role; one of several by chance. Raises `FaultNotInjected`."""
    everything = [target for target in lab.all_targets() if target.pid]
    found = [t for t in everything if t.name == wish.target] or [t for t in everything if t.role == wish.target]
    if not found:
        known = ", ".join(sorted({target.name for target in everything})) or "nothing"
        raise FaultNotInjected(f"expected a process of this name or role, was {wish.target!r}; there are {known}")
    return wish.chance.choice(found)


def kill(lab: Lab, wish: Wish, arguments: KillArguments) -> KillProcess:
    return KillProcess(lab, find(lab, wish), arguments.moment)


def pause(lab: Lab, wish: Wish, arguments: object) -> PauseProcess:
    return PauseProcess(find(lab, wish))
