"""`chaos run --ray`: the director sits on the cluster, and this process shows what it says."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import tarfile
import uuid
from typing import TYPE_CHECKING

from chaos.cli.progress import Progress
from chaos.cluster.placement import director_node
from chaos.experiment.library import Source
from chaos.run.record import Verdict
from chaos.run.session import RunOptions
from exchange.ray_settings import CLUSTER_RAY_ENVIRONMENT

if TYPE_CHECKING:
    from chaos.actors import RemoteDirector

LOOK_S = 0.3


def run_there(ray_address: str, source: Source, options: RunOptions, progress: Progress, wanted_node: str) -> Verdict:
    """Run an experiment on a cluster; its files are fetched into the directory. Raises `ClusterUnreachable`."""
    assert options.attachment is not None, "a run on a cluster is attached to its exchange"
    # What is set already holds: who runs a cluster without a token says so. Ray reads it when it is imported.
    os.environ.update({name: value for name, value in CLUSTER_RAY_ENVIRONMENT.items() if name not in os.environ})
    from chaos.actors import RemoteDirector, alive_nodes
    from exchange.cluster import ClusterExchange

    with ClusterExchange(ray_address):
        node = director_node(sorted(alive_nodes()), source.experiment, wanted_node)
        director = RemoteDirector(source, uuid.uuid4().hex[:8], node)
        try:
            director.begin(options.seed, options.workers, options.attachment, options.command)
            verdict, packed = asyncio.run(_follow(director, progress))
        finally:
            director.stop()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(options.directory, filter="data")
    return verdict


async def _follow(director: RemoteDirector, progress: Progress) -> tuple[Verdict, bytes]:
    """Show what the director says until it is done; Ctrl-C is passed on to it."""
    loop = asyncio.get_running_loop()
    passing_on: set[asyncio.Task[None]] = set()

    def interrupt() -> None:
        passing_on.add(asyncio.create_task(director.interrupt()))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    over = False
    while not over:
        over = await director.is_over(LOOK_S)
        events, samples = await director.seen()
        for event in events:
            progress.event(event)
        for sample in samples:
            progress.sample(sample)
    return await director.verdict(), await director.files()
