"""The load of a run, as a director sees it: processes of their own, which share one schedule."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from chaos.experiment.model import Experiment, Phase, Population
from chaos.load.client_log import Logged
from chaos.load.histograms import HistogramLog, decoded, max_ms, percentile_ms
from chaos.load.plan import Client, Group, LoadPlan, Market, Span, market_of
from chaos.load.seconds import LoadSecond
from chaos.load.workers import LoadWorkers, Workers
from chaos.run.furnish import Furnished
from chaos.run.record import HISTOGRAMS_FILE, Delay, Sample
from exchange.client import AsyncClient

OPERATOR_TIMEOUT_S = 10.0


class Exchange(Protocol):
    @property
    def addresses(self) -> tuple[str, ...]: ...

    @property
    def client_addresses(self) -> tuple[str, ...]:
        """Where the load reaches the gateways."""
        ...

    @property
    def operator_key(self) -> str: ...

    @property
    def furnished(self) -> Furnished: ...


class WorkersLoad:
    """The load of an experiment. Its logs go to `logs`, its histograms beside them; `recordings`: where those are.

    `make_workers`: takes the plan, the directory of the logs, and how many.
    """

    def __init__(
        self,
        experiment: Experiment,
        exchange: Callable[[], Exchange],
        logs: Path,
        workers: int,
        recordings: Path,
        make_workers: Callable[[LoadPlan, Path, int], Workers] = LoadWorkers,
    ) -> None:
        self._experiment = experiment
        self._exchange = exchange
        self._logs = logs
        self._count = workers
        self._recordings = recordings
        self._make_workers = make_workers
        self._plan: LoadPlan | None = None
        self._workers: Workers | None = None
        self._histograms: HistogramLog | None = None

    @property
    def schedule_sha256(self) -> str:
        return self._plan.schedule_sha256 if self._plan is not None else ""

    @property
    def workers(self) -> Workers:
        assert self._workers is not None, "the load has not started"
        return self._workers

    async def storm(self, what: str, group: str) -> int:
        """For faults that clients do: have a group, or all (""), `reconnect` or `cancel_all`; return how many did."""
        return await self.workers.storm(what, group)

    async def start(self) -> None:
        exchange = self._exchange()
        async with AsyncClient(exchange.addresses, exchange.operator_key, timeout=OPERATOR_TIMEOUT_S) as operator:
            instruments = {instrument.symbol: instrument for instrument in await operator.instruments()}
        markets = []
        for market in self._experiment.environment.markets:
            shard = exchange.furnished.markets[market.symbol]
            markets.append(market_of(instruments[market.symbol], shard, Decimal(str(market.price))))
        addresses = exchange.client_addresses
        self._plan = plan_of(self._experiment, addresses, tuple(markets), exchange.furnished, self._recordings)
        self._workers = self._make_workers(self._plan, self._logs, self._count)
        await self._workers.start()
        self._histograms = HistogramLog(self._logs.parent / HISTOGRAMS_FILE)

    async def begin(self, at_monotonic_ns: int) -> None:
        await self.workers.begin(at_monotonic_ns)

    async def next_second(self) -> Sample | None:
        second = await self.workers.next_second()
        if second is None:
            return None
        if self._histograms is not None:
            self._histograms.write(float(second.t), second.latencies)
        return sample_of(second)

    async def finish(self) -> None:
        if self._workers is not None:
            await self._workers.finish()
        if self._histograms is not None:
            self._histograms.close()


def logged_of(experiment: Experiment, furnished: Furnished) -> Logged:
    """Return who wrote the logs of an experiment's clients."""
    accounts = {
        client_name(population, number): credential.account
        for population in experiment.load
        for number, credential in enumerate(furnished.clients[population.name])
    }
    return Logged(accounts, furnished.markets)


def client_name(population: Population, number: int) -> str:
    return f"{population.name}-{number}"


def plan_of(
    experiment: Experiment,
    addresses: tuple[str, ...],
    markets: tuple[Market, ...],
    furnished: Furnished,
    recordings: Path,
) -> LoadPlan:
    """Return the plan of an experiment's load."""
    groups = []
    for population in experiment.load:
        credentials = furnished.clients[population.name]
        clients = tuple(
            Client(name=client_name(population, number), account=credential.account, key=credential.key)
            for number, credential in enumerate(credentials)
        )
        groups.append(
            Group(
                name=population.name,
                behaviour=population.behaviour,
                per_s=population.per_s,
                clients=clients,
                markets=population.markets or tuple(market.symbol for market in markets),
                process=population.process,
                retry=population.retry,
                transport=population.transport,
                deadline_ms=population.deadline_ms,
                recording=str(recordings / population.recording) if population.recording else "",
            )
        )
    spans = tuple(_span_of(phase, experiment.load) for phase in experiment.phases)
    return LoadPlan(seed=experiment.seed, addresses=addresses, markets=markets, groups=tuple(groups), spans=spans)


def _span_of(phase: Phase, populations: tuple[Population, ...]) -> Span:
    def factors(load: float | dict[str, float]) -> dict[str, float]:
        return {p.name: load.get(p.name, 1.0) if isinstance(load, dict) else load for p in populations}

    to = None if phase.load_to is None else factors(phase.load_to)
    return Span(duration_s=phase.duration_s, factors=factors(phase.load), factors_to=to)


def sample_of(second: LoadSecond) -> Sample:
    """Return a second as it is written down; stages and memory are somebody else's to see."""
    return Sample(
        t=second.t,
        offered_per_s=second.requests,
        attempts_per_s=second.attempts,
        goodput_per_s=second.good,
        refused_per_s=sum(second.refused.values()),
        unknown_per_s=second.unknown,
        not_sent_per_s=second.not_sent,
        delays={kind: _delay_of(text) for kind, text in second.latencies.items()},
        stages={},
        goodput_by_market={market: float(count) for market, count in second.good_by_market.items()},
        offered_by_market={market: float(count) for market, count in second.offered_by_market.items()},
        memory_mb=0.0,
        late_p99_ms=percentile_ms(decoded([second.late] if second.late else []), 99.0),
    )


def _delay_of(encoded: str) -> Delay:
    histogram = decoded([encoded])
    return Delay(
        count=int(histogram.total_count),
        p50_ms=percentile_ms(histogram, 50.0),
        p99_ms=percentile_ms(histogram, 99.0),
        max_ms=max_ms(histogram),
    )
