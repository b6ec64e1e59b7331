"""P13: restarts wait longer each time, and end in parking; a standby that follows takes over at once, always."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from exchange.config import ExchangeConfig
from exchange.engine.control import Park
from exchange.settings import Governor
from exchange.supervisor.component import ComponentState
from exchange.supervisor.governor import BACKOFF_S, JITTER, WINDOW_S, RestartGovernor
from exchange.v1 import admin_pb2
from tests.supervisor.cluster_in_memory import ClusterInMemory

GATEWAY = "gateway-0"


def new_governor(seed: int = 1) -> RestartGovernor:
    return RestartGovernor(Governor, Random(seed))


def test_each_loss_within_a_minute_waits_longer_and_the_first_one_not_at_all() -> None:
    governor = new_governor()
    waits = [governor.note_lost("a", 5.0 * n, was_up=False) for n in range(10)]
    assert waits[0] == 0
    for wait_s, backoff_s in zip(waits, [*BACKOFF_S, 30.0, 30.0, 30.0], strict=True):
        assert backoff_s * (1 - JITTER) <= wait_s <= backoff_s
    assert new_governor().note_lost("b", 0, was_up=True) == 0


def test_what_was_lost_together_does_not_come_back_together() -> None:
    governor = new_governor()
    names = [f"shard-{n}" for n in range(20)]
    for name in names:
        governor.note_lost(name, 0.0, was_up=True)
    assert len({governor.note_lost(name, 1.0, was_up=True) for name in names}) == 20


def test_after_a_calm_minute_a_loss_is_the_first_one_again() -> None:
    governor = new_governor()
    for n in range(4):
        governor.note_lost("a", n, was_up=True)
        governor.note_up("a")
    assert governor.note_lost("a", 4 + WINDOW_S, was_up=True) == 0


def test_what_fails_to_start_for_long_is_not_hurried_by_the_minute() -> None:
    governor = new_governor()
    waits = [governor.note_lost("a", 40.0 * n, was_up=False) for n in range(10)]
    assert min(waits[6:]) >= 30 * (1 - JITTER)


def test_what_came_up_and_was_lost_too_often_is_parked_and_what_never_came_up_is_not() -> None:
    governor = new_governor()
    for n in range(5):
        governor.note_lost("a", n, was_up=True)
        governor.note_lost("b", n, was_up=False)
    assert governor.refuses("a") == ""
    governor.note_lost("a", 5, was_up=True)
    governor.note_lost("b", 5, was_up=False)
    assert governor.refuses("a") == "lost 6 times within a minute after it had come up, expected at most 5"
    assert governor.refuses("b") == ""
    governor.forget("a")
    assert governor.refuses("a") == ""


async def new_cluster(directory: Path, *, standbys: bool = False) -> ClusterInMemory:
    cluster = ClusterInMemory(directory, ExchangeConfig(port=0, shards=1, gateways=2, standbys=standbys))
    await cluster.begin()
    return cluster


async def crash_until_parked(cluster: ClusterInMemory, name: str) -> int:
    """Let a component die whenever it is up; return how often."""
    component, crashes = cluster.components[name], 0
    while not component.parked:
        await cluster.until(lambda: component.state == ComponentState.UP or bool(component.parked))
        if component.state == ComponentState.UP:
            crashes += 1
            cluster.processes[name].die()
            await cluster.until(lambda: component.state != ComponentState.UP)
    return crashes


@pytest.mark.parametrize("name", [GATEWAY, "shard-0"])
async def test_a_crash_loop_ends_with_a_person(tmp_path: Path, name: str) -> None:
    cluster = await new_cluster(tmp_path)
    assert await crash_until_parked(cluster, name) == 6
    await cluster.pass_time(300)
    component = cluster.components[name]
    assert component.state == ComponentState.DOWN
    assert cluster.control.machine.parked.keys() == {name}
    status = admin_pb2.GetStatusResponse.FromString(cluster.reconciler.operator.status("0"))
    seen = next(c for c in status.components if c.name == name)
    assert seen.state == admin_pb2.COMPONENT_STATE_PARKED
    assert f"`exchange maintenance unpark {name}`" in seen.detail
    # Also through a supervisor that comes after.
    await cluster.replace_supervisor()
    await cluster.pass_time(60)
    assert cluster.components[name].state == ComponentState.DOWN
    assert await cluster.reconciler.operator.unpark(name) == ("", "")
    await cluster.until(lambda: cluster.components[name].state == ComponentState.UP)
    assert not cluster.control.machine.parked
    assert cluster.journaled("supervisor").count(Park(name, "")) == 1
    await cluster.end()


async def test_only_what_is_parked_is_unparked(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    refused = [await cluster.reconciler.operator.unpark(name) for name in (GATEWAY, "shard-9")]
    assert [reason for reason, _ in refused] == ["NOT_PARKED", "COMPONENT_UNKNOWN"]
    await cluster.end()


async def test_a_standby_takes_over_at_once_however_often_its_machine_was_lost(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, standbys=True)
    shard = cluster.components["shard-0"]
    for _ in range(10):
        await cluster.until(lambda: cluster.reconciler.is_complete)
        standby = cluster.processes["shard-0-standby"]
        cluster.processes["shard-0"].die()
        died_s = cluster.now_s
        await cluster.lose("shard-0")
        await cluster.until(lambda: shard.state == ComponentState.UP)
        assert shard.process is standby
        assert cluster.now_s - died_s <= 0.2
        assert not shard.parked
    await cluster.end()
