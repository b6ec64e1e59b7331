"""A standby takes over when its primary is lost: when, in which order, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.config import ExchangeConfig
from exchange.engine.control import Promote, TakeIncarnation
from exchange.engine.words import Stage
from exchange.runtime.host import Role
from exchange.settings import Settings
from exchange.supervisor.component import ComponentState
from exchange.supervisor.lifecycle import CannotHandOver
from exchange.supervisor.takeover import StandbyOutdated
from tests.supervisor.cluster_in_memory import ClusterInMemory

STANDBY = "shard-0-standby"


async def new_cluster(directory: Path, *, standbys: bool = True, nodes: int = 3) -> ClusterInMemory:
    config = ExchangeConfig(port=0, shards=2, gateways=nodes, standbys=standbys)
    cluster = ClusterInMemory(directory, config, nodes=nodes)
    await cluster.begin()
    return cluster


def events(cluster: ClusterInMemory, name: str, *, after: int = 0) -> list[str]:
    return [event.kind for event in cluster.reconciler.events.after(after) if event.component == name]


def is_up(cluster: ClusterInMemory, name: str, incarnation: int) -> bool:
    component = cluster.components[name]
    return component.state == ComponentState.UP and component.incarnation == incarnation


async def test_the_standby_of_a_primary_that_died_goes_on_at_once_and_gets_a_standby(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    old, standby = cluster.processes["shard-0"], cluster.processes[STANDBY]
    began_s, seen = cluster.now_s, cluster.reconciler.events.after(0)[-1].sequence
    old.die()
    await cluster.until(lambda: is_up(cluster, "shard-0", standby.incarnation))
    assert cluster.now_s - began_s <= 0.2
    assert events(cluster, "shard-0", after=seen) == ["lost", "taking_over", "fenced", "stage", "up"]
    assert standby.host.role == Role.PRIMARY
    assert standby.host.machine.stage == Stage.OPEN
    assert cluster.reconciler.is_ready
    await cluster.until(lambda: cluster.reconciler.is_complete)
    new = cluster.components[STANDBY]
    assert new.incarnation > standby.incarnation
    assert new.node != cluster.components["shard-0"].node
    await cluster.end()


@pytest.mark.parametrize(
    ("standbys", "suspect_s", "dead_s"), [(True, 0.5, 1.0), (False, 0.5, 10.0)], ids=["standby", "alone"]
)
async def test_a_primary_that_hangs_is_suspect_first_and_given_up_after_its_limit(
    tmp_path: Path, standbys: bool, suspect_s: float, dead_s: float
) -> None:
    cluster = await new_cluster(tmp_path, standbys=standbys)
    shard, old = cluster.components["shard-0"], cluster.processes["shard-0"]
    old.hang()
    began_s = cluster.now_s
    await cluster.until(lambda: shard.state == ComponentState.SUSPECT)
    assert suspect_s <= cluster.now_s - began_s <= suspect_s + 0.25
    await cluster.until(lambda: shard.state in (ComponentState.DOWN, ComponentState.STARTING))
    assert dead_s <= cluster.now_s - began_s <= dead_s + 0.25
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert not old.alive
    assert shard.process is not old
    await cluster.end()


async def test_a_primary_that_answers_within_the_limit_keeps_its_place(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    shard, old = cluster.components["shard-0"], cluster.processes["shard-0"]
    old.hang()
    await cluster.until(lambda: shard.state == ComponentState.SUSPECT)
    old.resume()
    await cluster.until(lambda: shard.state == ComponentState.UP)
    await cluster.pass_time(5)
    assert shard.process is old
    assert not [command for command in cluster.journaled("supervisor") if isinstance(command, Promote)]
    await cluster.end()


async def test_the_promotion_is_journaled_before_the_standby_is_told(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    standby.stuck.add("promote")
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: "promote" in standby.calls)
    assert cluster.journaled("supervisor")[-1] == Promote("shard-0", standby.incarnation)
    # Nobody is sent to it before it serves.
    gateway = cluster.processes["gateway-0"]
    await cluster.until(lambda: gateway.topologies[-1].machines["shard-0"][0] == 0)
    await cluster.pass_time(2)
    assert gateway.topologies[-1].machines["shard-0"][0] == 0
    standby.resume()
    await cluster.until(lambda: gateway.topologies[-1].machines["shard-0"][0] == standby.incarnation)
    await cluster.end()


async def test_a_standby_that_dies_while_it_takes_over_is_followed_by_a_new_start(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    standby.stuck.add("promote")
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: "promote" in standby.calls)
    standby.die()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert cluster.components["shard-0"].incarnation > standby.incarnation
    await cluster.end()


async def test_a_standby_that_hangs_while_it_takes_over_is_given_up(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    standby.stuck.add("promote")
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: "promote" in standby.calls)
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert not standby.alive
    await cluster.end()


async def test_a_standby_that_has_diverged_is_replaced_and_never_promoted(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    standby.diverged = True
    await cluster.until(lambda: not standby.alive)
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert "promote" not in standby.calls
    assert cluster.components[STANDBY].process is not standby
    assert "its state is another than the primary's" in {e.detail for e in cluster.reconciler.events.after(0)}
    await cluster.end()


async def test_a_primary_whose_standby_is_away_is_started_again(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.refused.add(STANDBY)
    await cluster.lose(STANDBY)
    old = cluster.processes["shard-0"]
    await cluster.lose("shard-0")
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert cluster.components["shard-0"].incarnation > old.incarnation
    assert not [command for command in cluster.journaled("supervisor") if isinstance(command, Promote)]
    await cluster.end()


async def test_a_node_that_is_lost_takes_primaries_and_standbys_and_both_go_on_elsewhere(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    lost = cluster.components["shard-0"].node
    began_s = cluster.now_s
    await cluster.lose_node(lost)
    machines = [cluster.components[name] for name in cluster.config.machine_names]
    await cluster.until(lambda: all(c.state == ComponentState.UP and c.node != lost for c in machines))
    assert cluster.now_s - began_s <= 1.0
    await cluster.until(lambda: all(c.node != lost for c in cluster.components.values() if c.is_standby))
    await cluster.until(lambda: all(c.can_take_over for c in cluster.components.values() if c.is_standby))
    for name in cluster.config.machine_names:
        where = {cluster.components[name].node, cluster.components[f"{name}-standby"].node}
        assert len(where) == 2
        assert lost not in where
    # The third gateway waits for a node, also if its start was begun before anybody knew that the node is gone.
    assert cluster.now_s - began_s <= 5.0
    gateway = cluster.components["gateway-1"]
    await cluster.until(lambda: gateway.detail.startswith("expected a node for gateway-1, found none"))
    assert [c.state for c in cluster.components.values() if c.is_gateway].count(ComponentState.UP) == 2
    await cluster.end()


async def test_everyone_who_calls_others_is_told_in_the_tick_in_which_a_takeover_is_done(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    gateways = [cluster.processes[f"gateway-{number}"] for number in range(3)]
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: cluster.components["shard-0"].incarnation == standby.incarnation)
    await cluster.until(lambda: cluster.components["shard-0"].state == ComponentState.UP)
    for gateway in gateways:
        newest = gateway.topologies[-1]
        assert newest.machines["shard-0"][0] == standby.incarnation
        versions = [topology.version for topology in gateway.topologies]
        assert versions == sorted(set(versions))
    await cluster.end()


async def test_a_gateway_that_did_not_hear_is_told_until_it_has(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    gateway = cluster.processes["gateway-1"]
    gateway.stuck.add("configure")
    standby = cluster.processes[STANDBY]
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: is_up(cluster, "shard-0", standby.incarnation))
    await cluster.pass_time(1)
    assert not cluster.reconciler.is_ready
    gateway.resume()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert gateway.topologies[-1].machines["shard-0"][0] == standby.incarnation
    await cluster.end()


async def test_a_machine_hands_over_to_its_standby_and_gets_a_new_one(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    old, standby = cluster.processes["shard-0"], cluster.processes[STANDBY]
    commands = len(cluster.journaled("shard-0"))
    done = cluster.reconciler.lifecycle.begin_hand_over("shard-0")
    await cluster.until(done.done)
    done.result()
    await cluster.until(lambda: is_up(cluster, "shard-0", standby.incarnation))
    assert old.calls[-2:] == ["hand_over", "kill"]
    assert standby.host.role == Role.PRIMARY
    # It goes on as it was: nothing was closed, so nothing is opened.
    assert len(cluster.journaled("shard-0")) == commands
    assert standby.host.machine.stage == Stage.OPEN
    await cluster.until(lambda: cluster.reconciler.is_complete)
    promotions = [command for command in cluster.journaled("supervisor") if isinstance(command, Promote)]
    assert promotions == [Promote("shard-0", standby.incarnation)]
    await cluster.end()


async def test_a_primary_that_hangs_when_it_is_to_hand_over_is_ended(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    old, standby = cluster.processes["shard-0"], cluster.processes[STANDBY]
    old.stuck.add("hand_over")
    done = cluster.reconciler.lifecycle.begin_hand_over("shard-0")
    await cluster.until(lambda: is_up(cluster, "shard-0", standby.incarnation))
    assert done.done()
    assert not old.alive
    await cluster.end()


async def test_nothing_is_handed_over_without_a_standby_that_follows(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.refused.add(STANDBY)
    await cluster.lose(STANDBY)
    with pytest.raises(CannotHandOver, match="shard-0: expected a standby"):
        cluster.reconciler.lifecycle.begin_hand_over("shard-0")
    assert cluster.components["shard-0"].state == ComponentState.UP
    cluster.refused.clear()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    await cluster.end()


async def test_a_primary_goes_on_when_the_journal_knows_another_standby_than_the_one_at_hand(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    old, standby = cluster.processes["shard-0"], cluster.processes[STANDBY]
    await cluster.reconciler.commands.take_incarnation(STANDBY)
    done = cluster.reconciler.lifecycle.begin_hand_over("shard-0")
    await cluster.until(done.done)
    with pytest.raises(StandbyOutdated, match=f"its incarnation {standby.incarnation}, the journal has started"):
        done.result()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert cluster.processes["shard-0"] is old
    assert "hand_over" not in old.calls
    assert old.host.role == Role.PRIMARY
    # That one is none, so it is replaced.
    assert not standby.alive
    await cluster.end()


async def test_a_standby_that_the_journal_does_not_know_takes_nothing_over(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    await cluster.reconciler.commands.take_incarnation(STANDBY)
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: not standby.alive)
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert "promote" not in standby.calls
    await cluster.end()


# ---------------------------------------------------------------- another supervisor


async def test_another_supervisor_takes_everything_on_as_it_is(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    before = {name: cluster.processes[name] for name in cluster.components}
    version = before["gateway-0"].topologies[-1].version
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    after = {name: component.process for name, component in cluster.components.items()}
    assert after == before
    assert all(process.alive for process in before.values())
    # What the supervisor before says late is older.
    assert before["gateway-0"].topologies[-1].version > version
    taken = [command.actor for command in cluster.journaled("supervisor") if isinstance(command, TakeIncarnation)]
    assert sorted(taken) == sorted([*cluster.components, "supervisor", "supervisor"])
    await cluster.end()


async def test_another_supervisor_finishes_a_takeover_that_was_begun(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    old, standby = cluster.processes["shard-0"], cluster.processes[STANDBY]
    standby.stuck.add("promote")
    old.hang()
    await cluster.until(lambda: "promote" in standby.calls)
    # It was not told before the supervisor died, and the old primary is a zombie.
    standby.resume()
    old.alive = True
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert standby.host.role == Role.PRIMARY
    assert cluster.components["shard-0"].process is standby
    assert not old.alive
    await cluster.end()


async def test_another_supervisor_has_a_standby_take_over_from_a_primary_that_died_meanwhile(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes[STANDBY]
    cluster.processes["shard-0"].die()
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert cluster.components["shard-0"].process is standby
    await cluster.end()


async def test_another_supervisor_does_so_too_if_the_primary_only_hangs(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    old, standby = cluster.processes["shard-0"], cluster.processes[STANDBY]
    old.hang()
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert cluster.components["shard-0"].process is standby
    assert not old.alive
    await cluster.end()


async def test_processes_that_nobody_knows_are_ended(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    unknown = await cluster.start("gateway-0", 999, node="id-0", port=0, standby=False, settings=Settings())
    await cluster.replace_supervisor()
    assert not unknown.alive
    await cluster.until(lambda: cluster.reconciler.is_complete)
    await cluster.end()


@pytest.mark.parametrize("name", [STANDBY, "shard-0", "gateway-0"])
async def test_a_supervisor_that_was_replaced_while_it_was_cut_off_ends_nobody(tmp_path: Path, name: str) -> None:
    cluster = await new_cluster(tmp_path)
    process = cluster.processes[name]
    await cluster.fence_supervisor()
    process.hang()
    await cluster.pass_time(30)
    process.resume()
    assert process.alive
    assert name not in {started.name for started in cluster.launched.values() if started is not process}
    await cluster.end()


async def test_a_supervisor_to_which_most_nodes_are_silent_leaves_it_to_the_other_one_first(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    here = cluster.components[STANDBY].node
    standby = cluster.components[STANDBY].incarnation
    silent = [process for process in cluster.processes.values() if process.node != here]
    assert cluster.components["shard-0"].node != here
    for process in silent:
        process.hang()
    # Another supervisor takes over after half of this time.
    await cluster.pass_time(2 * cluster.config.supervisor_dead_after_ms / 1_000 - 0.1)
    assert not [command for command in cluster.journaled("supervisor") if isinstance(command, Promote)]
    # There is none: so it is they who are lost.
    await cluster.until(lambda: Promote("shard-0", standby) in cluster.journaled("supervisor"))
    await cluster.end()
