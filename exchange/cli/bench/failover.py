"""`failover`: how long a market takes no order when its shard is lost or restarted, on three nodes, at 1,000 orders/s.

The orders come in an open loop through the SDK: so an order that nobody took within its second counts as failed, and
the time without orders is what clients see, not what the exchange says of itself. What the exchange did meanwhile, and
when, is told by its log of events.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop

from exchange.cli.bench import Figure
from exchange.cli.bench.failover_figure import Moment, draw
from exchange.cli.bench.failover_load import DEADLINE_S, ORDERS_PER_S, OpenLoop
from exchange.cli.bench.live import SYMBOL, OrderFlow, bearer, make_rich, open_market
from exchange.cli.maintenance import follow
from exchange.client import (
    AsyncClient,
    Client,
    Component,
    ComponentState,
    EvenkeelError,
    Maintenance,
    MaintenanceKind,
    MaintenanceState,
)
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.settings import opening_at_once, restarting_freely

TIMES = 10
NODES = 3
POLL_S = 0.1
SETTLE_S = 2.0
AWAY_S = 3.0
PAUSE_S = 2.0
"""Shorter than it takes Ray to give a node up, which then ends when it goes on."""
BACK_S_MAX = 90.0
SHARD = "shard-0"
SUSPECTED, FENCED = ("suspect", "lost", "taking_over"), ("fenced",)


@dataclass(frozen=True, slots=True)
class Failover:
    """One failure, in seconds from when it was made."""

    suspected_s: float
    """None of the events was there: 0, as for the next."""
    fenced_s: float
    """The writers of all epochs before can write no more."""
    first_order_s: float
    """The first order that was acknowledged after that, or after the longest pause where nobody was fenced."""
    longest_pause_s: float
    failed: int
    """Orders that were not taken within their second."""
    moments: tuple[Moment, ...]
    taken_s: tuple[float, ...]
    """When orders were acknowledged, from one second before."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is done to the exchange, and what gives back that which does not heal by itself, after a while."""

    make: Callable[[], None]
    heal: Callable[[], None] = lambda: None
    heal_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A failure of the market's shard, and what it may take."""

    name: str
    words: str
    failure: Callable[[LocalExchange, Client, Component], Failure]
    limit_s: float
    """By the median: to the first order, or if it is planned, of the longest pause."""
    is_planned: bool = False

    def value_of(self, failover: Failover) -> float:
        return failover.longest_pause_s if self.is_planned else failover.first_order_s


def kill_process(exchange: LocalExchange, operator: Client, shard: Component) -> Failure:
    return Failure(lambda: os.kill(shard.pid, signal.SIGKILL))


def kill_node(exchange: LocalExchange, operator: Client, shard: Component) -> Failure:
    assert exchange.nodes is not None
    nodes, node = exchange.nodes, exchange.nodes.node(shard.node)
    return Failure(lambda: nodes.kill(node), lambda: nodes.start_again(node), AWAY_S)


def pause_node(exchange: LocalExchange, operator: Client, shard: Component) -> Failure:
    assert exchange.nodes is not None
    nodes, node = exchange.nodes, exchange.nodes.node(shard.node)
    return Failure(lambda: nodes.pause(node), lambda: nodes.resume(node), PAUSE_S)


def restart_shard(exchange: LocalExchange, operator: Client, shard: Component) -> Failure:
    return _restart(operator, shard.name)


def restart_all(exchange: LocalExchange, operator: Client, shard: Component) -> Failure:
    return _restart(operator)


def _restart(operator: Client, shard: str = "") -> Failure:
    """As planned maintenance; it is over when that has ended."""
    begun: list[Maintenance] = []

    def begin() -> None:
        begun.append(operator.start_maintenance(MaintenanceKind.RESTART, shard=shard))

    def wait() -> None:
        ended = follow(operator, begun[0], lambda _: None)
        if ended.state is not MaintenanceState.DONE:
            raise RuntimeError(f"the maintenance ended as {ended.state.name}: {ended.detail}")

    return Failure(begin, wait)


def kill_nats_leader(exchange: LocalExchange, operator: Client, shard: Component) -> Failure:
    assert exchange.nats_servers is not None
    servers, number = exchange.nats_servers, leader_of(exchange, f"j-{SHARD}")
    return Failure(
        lambda: servers.stop_server(number, kill=True), lambda: servers.start_server(number), AWAY_S + DEADLINE_S
    )


def leader_of(exchange: LocalExchange, stream: str) -> int:
    """Return the number of the NATS server that leads a stream."""
    servers = exchange.nats_servers
    assert servers is not None
    with urllib.request.urlopen(f"{servers.monitoring_urls[0]}/jsz?streams=true", timeout=5) as response:
        accounts = json.load(response)["account_details"]
    (leader,) = {s["cluster"]["leader"] for a in accounts for s in a["stream_detail"] if s["name"] == stream}
    return servers.names.index(leader)


SCENARIOS = (
    Scenario("failover", "kill -9 of a shard's process", kill_process, 1.0),
    Scenario("failover_node", "kill of the shard's whole node", kill_node, 2.0),
    Scenario("failover_pause", f"a pause of the shard's whole node for {PAUSE_S:.0f} s", pause_node, 3.0),
    Scenario("handover", "a planned restart of the shard", restart_shard, 0.15, is_planned=True),
    Scenario("rolling", "a planned restart of everything, one after the other", restart_all, 0.15, is_planned=True),
    Scenario("failover_nats", "kill of the NATS server that leads the journal", kill_nats_leader, 10.0),
)


def measure(
    scenarios: Sequence[Scenario] = SCENARIOS, times: int = TIMES, figure_path: Path | None = None
) -> list[Figure]:
    """Return for each scenario the median time to the first new order; reference: what it may be.

    `figure_path`: where the median failover of the first scenario is to be drawn.
    """
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
        # How fast somebody takes over is measured here; how a shard opens then is a matter of settings.
        config = ExchangeConfig(
            data_dir=Path(directory),
            port=0,
            shards=1,
            nodes=NODES,
            gateways=NODES,
            journal="nats",
            settings=restarting_freely(opening_at_once()),
        )
        with LocalExchange(config) as exchange:
            exchange.wait(complete=True)
            addresses = [c.address for c in exchange.status().components if c.name.startswith("gateway")]
            # Ray would end this process together with the first node.
            exchange.disconnect()
            figures = []
            with Client(addresses, exchange.operator_key, timeout=10) as operator:
                open_market(operator, SYMBOL)
                accounts = tuple(operator.create_account(name).account_id for name in ("buyer", "seller"))
                make_rich(operator, addresses[0], bearer(exchange.operator_key), accounts)
                for scenario in scenarios:
                    flow = OrderFlow((accounts[0], accounts[1]), f"{scenario.name}-")

                    def failure(shard: Component, scenario: Scenario = scenario) -> Failure:
                        return scenario.failure(exchange, operator, shard)

                    failovers = uvloop.run(_measure(addresses, exchange.operator_key, OpenLoop(flow), failure, times))
                    figures.append(figure_of(scenario, failovers))
                    if figure_path is not None and scenario is scenarios[0]:
                        by_length = sorted(failovers, key=lambda f: f.first_order_s)
                        chosen = by_length[len(by_length) // 2]
                        figure_path.write_text(draw(scenario.words, chosen.moments, chosen.taken_s))
            return figures


def figure_of(scenario: Scenario, failovers: Sequence[Failover]) -> Figure:
    def both(figures: Iterable[float], digits: int = 2) -> str:
        ordered = sorted(figures)
        return f"{median(ordered):,.{digits}f} (worst {ordered[-1]:,.{digits}f})"

    value = median(map(scenario.value_of, failovers))
    acts = ""
    fenced = [f for f in failovers if f.fenced_s]
    if not scenario.is_planned:
        first_order = both(f.first_order_s for f in failovers)
        acts = f"seconds from there to the first new order {first_order}; "
        if fenced:
            suspected, fence = both(f.suspected_s for f in fenced), both(f.fenced_s for f in fenced)
            took_over = f"in the {len(fenced)} in which a standby took over"
            acts = (
                f"seconds from there to suspicion {suspected} and to the new epoch {fence} {took_over}, to the first "
            )
            acts += f"new order {first_order}; "
    detail = (
        f"{scenario.words}, {len(failovers)} times, {ORDERS_PER_S:,} orders/s, open loop; {acts}"
        f"longest pause {both((f.longest_pause_s for f in failovers), 3)} s; failed orders "
        f"{both((f.failed for f in failovers), 0)}; reference: the most that is meant to be"
    )
    return Figure(scenario.name, value, "s", scenario.limit_s, value / scenario.limit_s, detail)


async def _measure(
    addresses: Sequence[str], key: str, load: OpenLoop, failure: Callable[[Component], Failure], times: int
) -> list[Failover]:
    failovers = []
    async with (
        AsyncClient(addresses, key, timeout=2.0) as operator,
        AsyncClient(addresses, key, timeout=DEADLINE_S, reconnect_timeout=None) as trader,
    ):
        running_load = asyncio.create_task(load.run(trader))
        for _ in range(times):
            await _whole(operator)
            await asyncio.sleep(SETTLE_S)
            shard = await _whole(operator)
            failovers.append(await _one(load, operator, failure(shard)))
        running_load.cancel()
        await asyncio.gather(running_load, return_exceptions=True)
    return failovers


async def _one(load: OpenLoop, operator: AsyncClient, failure: Failure) -> Failover:
    """Make one failure and watch until orders are taken again and everything is up."""
    failed_s, failed_ns = time.monotonic(), time.time_ns()
    await asyncio.to_thread(failure.make)
    moments = [Moment(0.0, "failure")]
    # The exchange is left alone meanwhile: to ask it for its status takes time of those who are to be measured.
    await asyncio.sleep(failure.heal_after_s or AWAY_S)
    await asyncio.to_thread(failure.heal)
    await _whole(operator)
    while not load.takes_orders(failed_s + AWAY_S):
        if time.monotonic() > failed_s + BACK_S_MAX:
            raise TimeoutError(f"no order was taken for {BACK_S_MAX:.0f} s after the failure of {SHARD}")
        await asyncio.sleep(POLL_S)
    over_s = time.monotonic()
    # Until everything that was due by then has its outcome.
    await asyncio.sleep(2 * DEADLINE_S)
    for event in await operator.events():
        at_s = (event.time_ns - failed_ns) / 1e9
        if event.component == SHARD and at_s > 0:
            moments.append(Moment(at_s, event.kind))
    pause = load.longest_pause(failed_s, over_s)
    fenced_s = _first(moments, FENCED)
    first_order_s = pause[1]
    if fenced_s:
        first_order_s = next((at_s for at_s in load.taken_s(failed_s + fenced_s, over_s)), pause[1])
    moments.append(Moment(first_order_s - failed_s, "first order"))
    return Failover(
        _first(moments, SUSPECTED),
        fenced_s,
        first_order_s - failed_s,
        pause[1] - pause[0],
        load.failed(failed_s - DEADLINE_S, over_s),
        tuple(sorted(moments)),
        tuple(at_s - failed_s for at_s in load.taken_s(failed_s - 1, failed_s + AWAY_S)),
    )


def _first(moments: Iterable[Moment], kinds: Sequence[str]) -> float:
    return min((moment.at_s for moment in moments if moment.what in kinds), default=0.0)


async def _whole(operator: AsyncClient) -> Component:
    """Wait until all components are up; return the market's shard."""
    give_up_s = time.monotonic() + BACK_S_MAX
    found: object = None
    while time.monotonic() < give_up_s:
        try:
            found = components = (await operator.status()).components
        except EvenkeelError as error:
            found = error
        else:
            shard = next(component for component in components if component.name == SHARD)
            if all(c.state is ComponentState.UP for c in components):
                return shard
        await asyncio.sleep(POLL_S)
    raise TimeoutError(f"not all components were up after {BACK_S_MAX:.0f} s: {found}")
