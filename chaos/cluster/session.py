"""One run on a cluster, as its director does it there: attached to the exchange, with an agent on each node."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from chaos.cluster.agents import Agents
from chaos.cluster.faults import ClusterAgent, check_faults
from chaos.cluster.hands import NodeAway
from chaos.cluster.load import ClusterWorkers, LoadPart, moment
from chaos.cluster.placement import spared
from chaos.experiment.library import Source
from chaos.faults.fault import Target
from chaos.load.plan import LoadPlan
from chaos.load.workers import Workers
from chaos.run.agent import LocalAgent
from chaos.run.director import Director
from chaos.run.directory import make_directory
from chaos.run.judging import WholeRun
from chaos.run.parts import Parts
from chaos.run.record import Verdict
from chaos.run.session import RunOptions, attached, conduct, load_of, seeded, watch_of
from chaos.run.writer import Observer


async def run_on_cluster(
    source: Source,
    options: RunOptions,
    observer: Observer,
    agents: Agents,
    start_part: Callable[[str, int], LoadPart],
    here: str,
    holding: Callable[[Director], AbstractContextManager[None]],
) -> Verdict:
    """Run an experiment from the node `here` of a cluster and return its verdict.

    `start_part` has a process of the load started on a node. Raises `FaultNotInjected` before anything is started if a
    fault cannot be done on a cluster.
    """
    assert options.attachment is not None, "a run on a cluster is attached to its exchange"
    experiment = seeded(source, options)
    check_faults(experiment)
    make_directory(options.directory, source, options.seed)
    exchange = attached(experiment, options.attachment)
    watch = watch_of(exchange, options.directory, lambda targets: memory_of(agents, targets))
    await agents.reconcile()
    nodes = spared(agents.names, experiment)

    def make_workers(plan: LoadPlan, logs: Path, count: int) -> Workers:
        return ClusterWorkers(plan, logs, count, lambda number: start_part(nodes[number % len(nodes)], number), moment)

    load = load_of(experiment, exchange, source, options, make_workers)
    by_hand = LocalAgent(exchange, watch.targets, options.seed, load.storm)
    agent = ClusterAgent(agents, by_hand, watch.targets, options.seed, here)
    parts = Parts(exchange, load, watch, agent, WholeRun(experiment, exchange))
    keeping = asyncio.create_task(agents.run())
    try:
        return await conduct(source, options, observer, parts, exchange.target, holding)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await by_hand.close()


async def memory_of(agents: Agents, targets: Sequence[Target]) -> float:
    """Return the memory of processes wherever they are; those on a node that is away have none."""
    pids: dict[str, list[int]] = defaultdict(list)
    for target in targets:
        pids[target.node].append(target.pid)

    async def on(node: str) -> float:
        try:
            return await agents.on(node).memory_mb(pids[node])
        except NodeAway:
            return 0.0

    return sum(await asyncio.gather(*map(on, pids)))
