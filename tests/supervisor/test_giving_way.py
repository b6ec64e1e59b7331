"""What trading does not wait for is started again once it holds nothing up, and in any case after a while."""

from __future__ import annotations

from pathlib import Path

from exchange.config import ExchangeConfig
from exchange.engine.words import Stage
from exchange.settings import Settings, Stages
from exchange.supervisor.component import AUDITOR, ComponentState
from exchange.supervisor.lifecycle import GIVE_WAY_MAX_S
from tests.supervisor.cluster_in_memory import ClusterInMemory

STAGED = Settings(stages=Stages(capacity_per_s=1_000))
SLOW = {"delay_ms": {1: 500.0, 2: 500.0, 3: 500.0}}
STANDBYS = ["shard-0-standby", "shard-1-standby"]
TICKS_S = 0.25


async def new_cluster(directory: Path, settings: Settings = STAGED) -> ClusterInMemory:
    config = ExchangeConfig(port=0, shards=2, standbys=True, settings=settings)
    cluster = ClusterInMemory(directory, config, nodes=3)
    await cluster.begin()
    return cluster


def is_up(cluster: ClusterInMemory, name: str) -> bool:
    return cluster.components[name].state == ComponentState.UP


async def lose_primary(cluster: ClusterInMemory) -> float:
    """Have the standby of shard 0 take over; return when its own successor was due."""
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: cluster.components["shard-0"].state == ComponentState.STARTING)
    await cluster.until(lambda: is_up(cluster, "shard-0"))
    return cluster.components["shard-0-standby"].next_start_s


async def test_the_next_standby_starts_when_its_shard_has_reopened(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    due_s = await lose_primary(cluster)
    await cluster.until(lambda: cluster.reconciler.is_open)
    assert cluster.now_s > due_s
    assert not is_up(cluster, "shard-0-standby")
    opened_s = cluster.now_s
    await cluster.until(lambda: is_up(cluster, "shard-0-standby"))
    assert cluster.now_s - opened_s <= TICKS_S
    await cluster.end()


async def test_a_shard_that_does_not_reopen_gets_a_standby_nevertheless(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.processes["shard-0-standby"].load = SLOW
    due_s = await lose_primary(cluster)
    await cluster.until(lambda: is_up(cluster, "shard-0-standby"))
    assert GIVE_WAY_MAX_S <= cluster.now_s - due_s <= GIVE_WAY_MAX_S + TICKS_S
    assert cluster.components["shard-0"].vitals["stage"] != Stage.OPEN
    await cluster.end()


async def test_two_standbys_and_the_auditor_start_one_after_the_other(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, Settings())
    names = [*STANDBYS, AUDITOR]
    for name in names:
        cluster.processes[name].die()
    at_once = []

    def seen() -> bool:
        at_once.append(sum(cluster.components[name].state == ComponentState.STARTING for name in names))
        return all(is_up(cluster, name) for name in names)

    await cluster.until(lambda: not any(is_up(cluster, name) for name in names))
    await cluster.until(seen)
    assert max(at_once) == 1
    await cluster.end()


async def test_a_start_that_hangs_keeps_no_other_out(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, Settings())
    gone = cluster.components["gateway-0"]
    cluster.processes["gateway-0"].die()
    # Where it was the node is not there any more, which Ray waits for.
    cluster.living, living = [node for node in cluster.living if node.id != gone.node], cluster.living
    await cluster.until(lambda: gone.state == ComponentState.STARTING)
    cluster.processes[STANDBYS[1]].die()
    await cluster.until(lambda: not is_up(cluster, STANDBYS[1]))
    cluster.living = living
    due_s = cluster.components[STANDBYS[1]].next_start_s
    await cluster.until(lambda: is_up(cluster, STANDBYS[1]))
    assert gone.state == ComponentState.STARTING
    assert GIVE_WAY_MAX_S <= cluster.now_s - due_s <= GIVE_WAY_MAX_S + TICKS_S
    await cluster.end()


async def test_the_next_supervisor_lets_them_give_way_too(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    for name in ("shard-0", "shard-1-standby"):
        cluster.processes[name].die()
    await cluster.replace_supervisor()
    await cluster.until(lambda: is_up(cluster, "shard-0"))
    assert not is_up(cluster, "shard-1-standby")
    await cluster.until(lambda: cluster.reconciler.is_open)
    assert not is_up(cluster, "shard-1-standby")
    await cluster.until(lambda: cluster.reconciler.is_complete)
    await cluster.end()
