"""The incident of 2023-07-05 in small, and its cure: overload and restarts, without the policies and with them.

The capacity of the shard is declared (a service time), low enough that neither the gateway nor the load generator is
what limits: so the figures are about what the exchange does at its limit, not about how fast this machine is.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from chaos.exchange_process import RunningExchange, open_market, running_exchange
from chaos.figure import Panel, Second, draw
from chaos.load.arrivals import Phase
from chaos.load.generator import Generator, LoadPlan
from chaos.load.record import Ending, Kind, Record
from exchange.client import AsyncClient, Client, EvenkeelError, Instrument, Stage

SYMBOL = "BTC-USDT"
MIDDLE = Decimal(60_000)
ACCOUNTS = 20
CAPACITY_PER_S = 150
BEFORE_S = 10.0
"""Of the ordinary load, before anything happens."""
NORMAL = 0.7
WATCH_S = 0.1
RECOVERED = 0.95
SHARD, GATEWAY = "shard-0", "gateway-0"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`rates`: after the time before, the load as shares of the capacity, each for some seconds."""

    name: str
    words: str
    rates: tuple[tuple[float, float], ...]
    kills: bool
    options: tuple[str, ...] = ()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("surge", "three times the capacity for 60 s", ((60.0, 3.0), (30.0, NORMAL)), kills=False),
        Scenario("warm", "kill -9 of a shard that has a standby", ((40.0, NORMAL),), kills=True),
        Scenario("cold", "kill -9 of a shard without one", ((60.0, NORMAL),), kills=True, options=("--no-standbys",)),
    )
}


@dataclass(frozen=True, slots=True)
class Profile:
    """What the exchange and its clients do."""

    name: str
    settings: str
    sender: str


_SERVICE_TIME = f"service_time_us = {1_000_000 // CAPACITY_PER_S}\n"
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("naive", f'profile = "naive"\n{_SERVICE_TIME}', "naive"),
        Profile("staged", _SERVICE_TIME, "sdk"),
    )
}


@dataclass(slots=True)
class Outcome:
    """What was seen. Times in s since the load began; the failure was at `BEFORE_S`."""

    scenario: str
    profile: str
    record: Record
    trigger_end_s: float
    stages: list[tuple[float, str]] = field(default_factory=list)
    """Of the shard, when it was seen to change."""
    memory_mb: list[tuple[float, float]] = field(default_factory=list)
    """Of the shard and the gateway together, as they were seen."""

    @property
    def goodput_before(self) -> float:
        return self.record.between(2.0, BEFORE_S).goodput_per_s

    @property
    def seconds(self) -> list[Second]:
        """What was attempted, offered, and done within its deadline, in each second."""
        end_s = int(self.record.requests[-1].intended_s)
        summaries = (self.record.between(n, n + 1) for n in range(end_s))
        return [Second(n, s.attempts_per_s, s.goodput_per_s, s.offered_per_s) for n, s in enumerate(summaries)]

    @property
    def recovered_after_s(self) -> float | None:
        """From the end of what was done to it until what is offered is done in time again, and stays so; None: never.

        By three seconds at a time, as what is offered in one comes by chance.
        """
        recovered: float | None = None
        seconds = [second for second in self.seconds if second.begin_s >= self.trigger_end_s]
        for at in range(len(seconds) - 2):
            window = seconds[at : at + 3]
            if sum(s.goodput_per_s for s in window) < RECOVERED * sum(s.offered_per_s for s in window):
                recovered = None
            elif recovered is None:
                recovered = window[0].begin_s - self.trigger_end_s
        return recovered

    @property
    def first_cancel_after_s(self) -> float | None:
        """From the failure to the first cancel that was acknowledged of those that came after it."""
        done = (
            r.done_s
            for r in self.record.requests
            if r.kind == Kind.CANCEL and r.ending == Ending.ACKNOWLEDGED and r.intended_s >= BEFORE_S
        )
        first = min(done, default=None)
        return None if first is None else first - BEFORE_S

    @property
    def open_after_s(self) -> float | None:
        """From the failure to the stage OPEN; None: not within the time, or it never left it."""
        after = [(at_s, stage) for at_s, stage in self.stages if at_s > BEFORE_S]
        return next((at_s - BEFORE_S for at_s, stage in reversed(after) if stage == Stage.OPEN.name), None)

    def figures(self) -> dict[str, Any]:
        during = self.record.between(BEFORE_S + 1.0, self.trigger_end_s) if self.trigger_end_s > BEFORE_S + 1 else None
        end_s = self.record.requests[-1].intended_s
        cancels = self.record.between(BEFORE_S, end_s, Kind.CANCEL)
        last = self.record.between(end_s - 10.0, end_s)
        return {
            "scenario": self.scenario,
            "profile": self.profile,
            "goodput_before_per_s": round(self.goodput_before, 1),
            "goodput_during_per_s": round(during.goodput_per_s, 1) if during else None,
            "p99_during_ms": round(during.p99_ms, 1) if during else None,
            "goodput_last_10_s_per_s": round(last.goodput_per_s, 1),
            "amplification": round(self.record.between(BEFORE_S, end_s).amplification, 2),
            "cancel_p99_ms": round(cancels.p99_ms, 1),
            "cancels_refused": cancels.refused,
            "cancels_unknown": cancels.unknown,
            "first_cancel_after_s": _rounded(self.first_cancel_after_s),
            "open_after_s": _rounded(self.open_after_s),
            "recovered_after_s": _rounded(self.recovered_after_s),
            "memory_mb_begin": round(self.memory_mb[0][1]),
            "memory_mb_max": round(max(mb for _, mb in self.memory_mb)),
            "not_sent": self.record.between(0.0, end_s).not_sent,
            "generator_late_p99_ms": round(self.record.between(0.0, end_s).late_p99_ms, 1),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def run(scenario: Scenario, profile: Profile, seed: int = 1) -> Outcome:
    """Start an exchange, put it through a scenario, and return what clients saw."""
    rates = [(BEFORE_S, NORMAL), *scenario.rates]
    phases = tuple(Phase(duration_s, share * CAPACITY_PER_S) for duration_s, share in rates)
    plan = LoadPlan(phases, sender=profile.sender, seed=seed)
    with running_exchange(profile.settings, ("--shards", "1", *scenario.options)) as exchange:
        with Client(exchange.addresses, exchange.operator_key, timeout=10) as operator:
            keys = open_market(operator, SYMBOL, ACCOUNTS)
            (instrument,) = operator.instruments()
        return asyncio.run(_run(scenario, profile, exchange, plan, keys, instrument))


async def _run(
    scenario: Scenario,
    profile: Profile,
    exchange: RunningExchange,
    plan: LoadPlan,
    keys: list[str],
    instrument: Instrument,
) -> Outcome:
    generator = Generator(plan, exchange.addresses, keys, instrument, MIDDLE)
    trigger_end_s = BEFORE_S if scenario.kills else BEFORE_S + scenario.rates[0][0]
    outcome = Outcome(scenario.name, profile.name, generator.record, trigger_end_s)
    async with AsyncClient(exchange.addresses, exchange.operator_key, timeout=1.0) as operator:
        (pid,) = [c.pid for c in (await operator.status()).components if c.name == SHARD]
        load = asyncio.create_task(generator.run())
        watching = asyncio.create_task(_watch(operator, generator, outcome))
        if scenario.kills:
            await asyncio.sleep(BEFORE_S)
            os.kill(pid, signal.SIGKILL)
        await load
        watching.cancel()
    return outcome


async def _watch(operator: AsyncClient, generator: Generator, outcome: Outcome) -> None:
    """Note each stage of the shard as it is seen."""
    while True:
        try:
            components = (await operator.status()).components
        except EvenkeelError:
            stage = "?"
        else:
            (stage,) = [c.stage.name for c in components if c.name == SHARD]
            pids = [c.pid for c in components if c.name in (SHARD, GATEWAY)]
            outcome.memory_mb.append((generator.now_s, sum(map(_resident_mb, pids))))
        if not outcome.stages or outcome.stages[-1][1] != stage:
            outcome.stages.append((generator.now_s, stage))
        await asyncio.sleep(WATCH_S)


def _resident_mb(pid: int) -> float:
    """Return what a process has in memory; none if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except FileNotFoundError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def figure_of(outcomes: Sequence[Outcome]) -> str:
    """Return runs of one scenario side by side, as SVG."""
    return draw([_panel_of(outcome) for outcome in outcomes])


def _panel_of(outcome: Outcome) -> Panel:
    scenario = SCENARIOS[outcome.scenario]
    marks = [(BEFORE_S, "kill -9" if scenario.kills else "surge")]
    if not scenario.kills:
        marks.append((outcome.trigger_end_s, "surge over"))
    return Panel(f"{outcome.profile}: {scenario.words}", outcome.seconds, outcome.stages, CAPACITY_PER_S, marks)
