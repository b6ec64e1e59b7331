"""Sends a plan of load: each request at its time, whatever has become of those before."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from chaos.load.arrivals import PROCESSES, Phase, arrivals
from chaos.load.record import Ending, Kind, Record, Request
from chaos.load.senders import SENDERS, Sender
from exchange.client import Instrument, PlaceOrder, Side

SAMPLE_S = 0.1
SPREAD_TICKS = 20
"""Orders lie so far around the middle, on either side: some trade at once, most rest until they are cancelled."""
CROSSING_TICKS = 2


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is sent. With the same plan the same requests fall due at the same times."""

    phases: tuple[Phase, ...]
    process: str = "poisson"
    sender: str = "sdk"
    cancels: float = 0.25
    """The share of requests that cancel an order that is known to rest."""
    deadline_s: float = 1.0
    in_flight_max: int = 20_000
    seed: int = 1

    @property
    def duration_s(self) -> float:
        return sum(phase.duration_s for phase in self.phases)


class Generator:
    """Sends a plan for some accounts, given by their keys, on one market."""

    def __init__(
        self, plan: LoadPlan, addresses: Sequence[str], keys: Sequence[str], instrument: Instrument, middle: Decimal
    ) -> None:
        self.record = Record(plan.deadline_s)
        self._plan = plan
        self._instrument = instrument
        self._middle = middle
        sender = SENDERS[plan.sender]
        self._senders: list[Sender] = [sender(addresses, key, instrument, plan.deadline_s) for key in keys]
        self._resting: list[deque[str]] = [deque() for _ in keys]
        self._random = Random(plan.seed)
        self._begun_s = 0.0
        self._number = 0

    async def run(self) -> Record:
        """Send all of it and wait for what is under way. The record grows meanwhile."""
        plan = self._plan
        self._begun_s = time.monotonic()
        sampling = asyncio.create_task(self._sample())
        under_way: set[asyncio.Task[None]] = set()
        for due_s in arrivals(PROCESSES[plan.process], plan.phases, Random(plan.seed + 1)):
            await asyncio.sleep(max(due_s - self.now_s, 0))
            at = self._random.randrange(len(self._senders))
            is_cancel = self._random.random() < plan.cancels and bool(self._resting[at])
            request = Request(Kind.CANCEL if is_cancel else Kind.PLACE, due_s, late_s=self.now_s - due_s)
            self.record.requests.append(request)
            if len(under_way) >= plan.in_flight_max:
                request.done_s = self.now_s
                continue
            task = asyncio.create_task(self._cancel(at, request) if is_cancel else self._place(at, request))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.sleep(max(plan.duration_s - self.now_s, 0))
        await asyncio.gather(*under_way)
        sampling.cancel()
        self._note_attempts()
        await asyncio.gather(*(sender.close() for sender in self._senders))
        return self.record

    @property
    def now_s(self) -> float:
        """Since the load began."""
        return time.monotonic() - self._begun_s

    async def _place(self, at: int, request: Request) -> None:
        self._number += 1
        side = Side.BUY if self._random.random() < 0.5 else Side.SELL
        away = self._random.randint(-CROSSING_TICKS, SPREAD_TICKS) * self._instrument.tick_size
        order = PlaceOrder(
            instrument=self._instrument.symbol,
            side=side,
            quantity=self._instrument.min_quantity,
            price=self._middle - away if side is Side.BUY else self._middle + away,
            client_order_id=f"{self._plan.seed}-{self._number}",
        )
        request.ending, request.reason = await self._senders[at].place(order)
        request.done_s = self.now_s
        if request.ending == Ending.ACKNOWLEDGED:
            self._resting[at].append(order.client_order_id)

    async def _cancel(self, at: int, request: Request) -> None:
        client_order_id = self._resting[at].popleft()
        ending, reason = await self._senders[at].cancel(client_order_id)
        if ending == Ending.REJECTED:
            # It has traded meanwhile: an answer as good as any.
            ending = Ending.ACKNOWLEDGED
        elif ending != Ending.ACKNOWLEDGED:
            self._resting[at].append(client_order_id)
        request.ending, request.reason = ending, reason
        request.done_s = self.now_s

    async def _sample(self) -> None:
        while True:
            self._note_attempts()
            await asyncio.sleep(SAMPLE_S)

    def _note_attempts(self) -> None:
        self.record.attempts.append((self.now_s, sum(sender.attempts for sender in self._senders)))
