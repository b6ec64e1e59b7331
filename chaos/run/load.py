"""The load of a run, as a director sees it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from chaos.experiment.model import Experiment
from chaos.load.arrivals import Phase
from chaos.load.generator import Generator, LoadPlan
from chaos.run.furnish import Furnished
from chaos.run.record import Delay, Sample
from exchange.client import AsyncClient

SETTLED_S = 3.0


class Exchange(Protocol):
    @property
    def addresses(self) -> tuple[str, ...]: ...

    @property
    def client_addresses(self) -> tuple[str, ...]: ...

    @property
    def operator_key(self) -> str: ...

    @property
    def furnished(self) -> Furnished: ...


class GeneratedLoad:
    """All populations as one, on the first market, sent from this process."""

    def __init__(self, experiment: Experiment, exchange: Callable[[], Exchange]) -> None:
        self._experiment = experiment
        self._exchange = exchange
        per_s = sum(population.per_s for population in experiment.load)
        phases = []
        for phase in experiment.phases:
            share = phase.load if isinstance(phase.load, float) else 1.0
            phases.append(Phase(phase.duration_s, per_s * share))
        is_naive = any(population.retry == "naive" for population in experiment.load)
        self._plan = LoadPlan(tuple(phases), sender="naive" if is_naive else "sdk", seed=experiment.seed)
        self.schedule_sha256 = hashlib.sha256(repr(self._plan).encode()).hexdigest()
        self._second = 0
        self._is_over = False
        self._generator: Generator | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        exchange = self._exchange()
        keys = [client.key for clients in exchange.furnished.clients.values() for client in clients]
        market = self._experiment.environment.markets[0]
        async with AsyncClient(exchange.addresses, exchange.operator_key, timeout=10) as operator:
            instrument = next(i for i in await operator.instruments() if i.symbol == market.symbol)
        middle = Decimal(str(market.price))
        self._generator = Generator(self._plan, exchange.client_addresses, keys, instrument, middle)

    async def begin(self, at_monotonic_ns: int) -> None:
        self._running = asyncio.create_task(self._run(at_monotonic_ns / 1e9))

    async def _run(self, begin_s: float) -> None:
        assert self._generator is not None
        await asyncio.sleep(begin_s - time.monotonic())
        await self._generator.run()

    async def next_second(self) -> Sample | None:
        generator, running = self._generator, self._running
        assert generator is not None
        assert running is not None
        while not (generator.record.attempts and generator.now_s > self._second + SETTLED_S):
            if self._is_over:
                return None
            if running.done():
                running.result()
            await asyncio.sleep(0.1)
        if self._is_over or self._second >= self._plan.duration_s:
            return None
        s = generator.record.between(self._second, self._second + 1)
        self._second += 1
        return Sample(
            t=self._second - 1,
            offered_per_s=s.offered_per_s,
            attempts_per_s=s.attempts_per_s,
            goodput_per_s=s.goodput_per_s,
            refused_per_s=s.refused,
            unknown_per_s=s.unknown,
            not_sent_per_s=s.not_sent,
            delays={"place": Delay(count=int(s.offered_per_s), p50_ms=s.p50_ms, p99_ms=s.p99_ms, max_ms=s.p99_ms)},
            stages={},
            goodput_by_market={},
            offered_by_market={},
            memory_mb=0.0,
            late_p99_ms=s.late_p99_ms,
        )

    async def finish(self) -> None:
        self._is_over = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
