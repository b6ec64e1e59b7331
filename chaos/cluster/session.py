"""One run on a cluster, as its director does it there: attached to the exchange, with an agent on each node."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from chaos.cluster.agents import Agents
from chaos.cluster.faults import ClusterAgent
from chaos.cluster.hands import NodeAway
from chaos.experiment.library import Source
from chaos.faults.fault import Target
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
    here: str,
    holding: Callable[[Director], AbstractContextManager[None]],
) -> Verdict:
    """Run an experiment from the node `here` of a cluster and return its verdict."""
    assert options.attachment is not None, "a run on a cluster is attached to its exchange"
    experiment = seeded(source, options)
    make_directory(options.directory, source, options.seed)
    exchange = attached(experiment, options.attachment)
    watch = watch_of(exchange, options.directory, lambda targets: memory_of(agents, targets))
    agent = ClusterAgent(agents, watch.targets, options.seed, here)
    load = load_of(experiment, exchange, source, options)
    parts = Parts(exchange, load, watch, agent, WholeRun(experiment, exchange))
    await agents.reconcile()
    keeping = asyncio.create_task(agents.run())
    try:
        return await conduct(source, options, observer, parts, exchange.target, holding)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


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
