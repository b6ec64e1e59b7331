"""Planned maintenance: what is planned, what is refused, and what is left when it is broken off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from exchange.config import ExchangeConfig
from exchange.engine.control import NoteMaintenance
from exchange.engine.words import Stage
from exchange.supervisor.component import Node
from exchange.supervisor.maintenance import Maintenance
from exchange.supervisor.maintenance_plan import (
    Action,
    Kind,
    MaintenanceRefused,
    State,
    What,
    node_for_standby_supervisor,
)
from exchange.supervisor.stages_by_hand import Action as StageAction
from exchange.v1 import admin_pb2
from tests.supervisor.cluster_in_memory import ClusterInMemory

ALL = What(Kind.RESTART)
SHARD_0 = What(Kind.RESTART, machine="shard-0")


class SupervisorsInMemory:
    def __init__(self, node: str = "id-0") -> None:
        self.node = node
        self.standby: str | None = None
        """As `standby_node` tells it: "" while it does not answer."""
        self.restarted: list[str] = []

    async def standby_node(self) -> str | None:
        return self.standby

    async def restart_standby(self, node: str) -> None:
        self.standby = node or self.standby
        self.restarted.append(f"standby to {node}" if node else "standby")

    async def restart_active(self) -> None:
        self.restarted.append("active")


class World:
    def __init__(self, directory: Path, *, nodes: int = 2, gateways: int = 2, standbys: bool = True) -> None:
        config = ExchangeConfig(port=0, shards=2, gateways=gateways, standbys=standbys)
        self.cluster = ClusterInMemory(directory, config, nodes=nodes)
        self.supervisors = SupervisorsInMemory()

    async def begin(self) -> World:
        await self.cluster.begin()
        await self.cluster.until(lambda: all(c.is_up for c in self.cluster.components.values()))
        self.maintenance = Maintenance(self.cluster.reconciler, self.supervisors)
        return self

    @property
    def note(self) -> NoteMaintenance:
        note = self.cluster.reconciler.machine.maintenance
        assert note is not None
        return note

    @property
    def steps(self) -> list[tuple[str, str]]:
        return [(Action(step.action).name, step.component) for step in self.note.steps]

    async def run(self, what: What, *, force: bool = False) -> None:
        await self.maintenance.begin(what, force=force)
        await self.cluster.until(lambda: not self.maintenance.is_under_way)

    async def refused(self, what: What, *, force: bool = False) -> str:
        with pytest.raises(MaintenanceRefused) as refused:
            await self.maintenance.begin(what, force=force)
        return refused.value.reason

    def incarnations(self) -> dict[str, int]:
        return {c.name: c.incarnation for c in self.cluster.components.values()}


async def test_a_primary_is_handed_over_only_to_a_standby_that_has_caught_up(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    shard, standby = (world.cluster.components[name] for name in ("shard-0", "shard-0-standby"))
    before = standby.incarnation, shard.incarnation
    world.cluster.history_is_long = True
    await world.maintenance.begin(SHARD_0)
    await world.cluster.until(lambda: standby.incarnation > before[0] and standby.can_take_over)
    for _ in range(20):
        world.cluster.reconciler.tick()
        await asyncio.sleep(0.05)
    assert shard.incarnation == before[1], "it would wait until the standby has applied the history"
    world.cluster.history_is_long = False
    await world.cluster.until(lambda: not world.maintenance.is_under_way)
    assert State(world.note.state) == State.DONE
    assert shard.incarnation > before[1]
    await world.cluster.end()


async def test_everything_is_restarted_in_order_and_each_is_new(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    world.supervisors.standby = "id-1"
    before, ports = world.incarnations(), {c.port for c in world.cluster.components.values() if c.is_gateway}
    await world.run(ALL)
    assert world.steps == [
        ("RESTART", "ledger-standby"),
        ("RESTART", "shard-0-standby"),
        ("RESTART", "shard-1-standby"),
        ("HAND_OVER", "ledger"),
        ("HAND_OVER", "shard-0"),
        ("HAND_OVER", "shard-1"),
        ("RESTART", "gateway-0"),
        ("RESTART", "gateway-1"),
        ("RESTART", "auditor"),
        ("RESTART_STANDBY_SUPERVISOR", "supervisor"),
        ("RESTART_ACTIVE_SUPERVISOR", "supervisor"),
    ]
    assert {State(step.state) for step in world.note.steps} == {State.DONE}
    assert State(world.note.state) == State.DONE
    assert world.supervisors.restarted == ["standby", "active"]
    after = world.incarnations()
    assert not set(after.values()) & set(before.values())
    assert {c.port for c in world.cluster.components.values() if c.is_gateway} == ports
    assert world.cluster.reconciler.is_complete
    await world.cluster.end()


async def test_a_step_begins_when_everything_is_healthy_after_the_one_before(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    world.cluster.refused.add("shard-0-standby")
    await world.maintenance.begin(SHARD_0)
    await world.cluster.pass_time(20.0)
    assert [State(step.state).name for step in world.note.steps] == ["RUNNING", "WAITING"]
    world.cluster.refused.clear()
    await world.cluster.until(lambda: not world.maintenance.is_under_way)
    assert State(world.note.state) == State.DONE
    await world.cluster.end()


async def test_it_stops_where_something_does_not_come_up_again_and_says_so(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    world.cluster.refused.add("gateway-0")
    await world.run(ALL)
    assert State(world.note.state) == State.FAILED
    assert "gateway-0" in world.note.detail
    states = {step.component: State(step.state) for step in world.note.steps}
    assert (states["shard-1"], states["gateway-0"], states["gateway-1"]) == (State.DONE, State.FAILED, State.WAITING)
    world.cluster.refused.clear()
    await world.cluster.until(lambda: world.cluster.reconciler.is_complete)
    await world.cluster.end()


async def test_a_drained_node_is_empty_and_stays_so_through_a_supervisor_until_it_is_undrained(tmp_path: Path) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    cluster = world.cluster
    await world.run(What(Kind.DRAIN, node="node-1"))
    assert State(world.note.state) == State.DONE
    assert "id-1" not in {c.node for c in cluster.components.values()}
    assert cluster.reconciler.is_complete
    (held,) = [c for c in cluster.components.values() if c.is_gateway and not c.is_up]
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_complete)
    await cluster.lose("shard-0")
    await cluster.until(lambda: cluster.reconciler.is_complete)
    assert "id-1" not in {c.node for c in cluster.components.values()}
    world.maintenance = Maintenance(cluster.reconciler, world.supervisors)
    await world.run(What(Kind.UNDRAIN, node="node-1"))
    await cluster.until(lambda: cluster.components[held.name].is_up)
    assert cluster.components[held.name].node == "id-1"
    await cluster.end()


async def test_a_supervisor_that_stands_by_leaves_a_node_that_is_drained(tmp_path: Path) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    world.supervisors.standby = "id-1"
    await world.run(What(Kind.DRAIN, node="node-1"))
    assert world.steps[-1] == ("RESTART_STANDBY_SUPERVISOR", "supervisor")
    assert State(world.note.state) == State.DONE
    assert world.supervisors.restarted == ["standby to id-2"]
    # A restart leaves it where it is.
    await world.run(What(Kind.RESTART, node="node-2"))
    assert world.supervisors.restarted[1:] == ["standby"]
    await world.cluster.end()


async def test_the_active_supervisor_leaves_a_node_that_is_drained_and_the_next_one_finishes_that(
    tmp_path: Path,
) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    cluster, supervisors = world.cluster, world.supervisors
    supervisors.standby = "id-1"
    ends = asyncio.Event()

    async def restart_active() -> None:
        supervisors.restarted.append("active")
        ends.set()
        await asyncio.Event().wait()

    supervisors.restart_active = restart_active  # type: ignore[method-assign]
    await world.maintenance.begin(What(Kind.DRAIN, node="node-0"))
    await cluster.until(ends.is_set)
    assert world.steps[-2:] == [
        ("RESTART_ACTIVE_SUPERVISOR", "supervisor"),
        ("RESTART_STANDBY_SUPERVISOR", "supervisor"),
    ]
    await world.maintenance.stop()
    await cluster.replace_supervisor()
    # The other one is active now, on node-1; this one, which Ray starts again where it was, does not answer at first.
    world.supervisors = supervisors = SupervisorsInMemory("id-1")
    supervisors.standby = ""
    world.maintenance = Maintenance(cluster.reconciler, supervisors)
    await world.maintenance.resume()
    await cluster.pass_time(3.0)
    assert (State(world.note.state), supervisors.restarted) == (State.RUNNING, [])
    supervisors.standby = "id-0"
    await cluster.until(lambda: not world.maintenance.is_under_way)
    assert (State(world.note.state), supervisors.restarted) == (State.DONE, ["standby to id-2"])
    assert {State(step.state) for step in world.note.steps} == {State.DONE}
    await cluster.end()


async def test_a_node_on_which_something_is_left_is_not_told_to_be_empty(tmp_path: Path) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    # It seems to end, and is active there again.
    await world.run(What(Kind.DRAIN, node="node-0"))
    assert State(world.note.state) == State.FAILED
    assert world.note.detail == "expected node-0 to be empty, found supervisor"
    await world.cluster.end()


@pytest.mark.parametrize(("node", "restarted"), [("id-1", ["standby to id-2"]), ("id-2", [])])
async def test_a_supervisor_that_is_silent_when_a_drain_is_planned_is_moved_once_it_answers_if_it_is_there(
    tmp_path: Path, node: str, restarted: list[str]
) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    world.supervisors.standby = ""
    await world.maintenance.begin(What(Kind.DRAIN, node="node-1"))
    assert world.steps[-1] == ("RESTART_STANDBY_SUPERVISOR", "supervisor")
    await world.cluster.until(lambda: State(world.note.steps[-1].state) == State.RUNNING)
    await world.cluster.pass_time(3.0)
    assert State(world.note.state) == State.RUNNING
    world.supervisors.standby = node
    await world.cluster.until(lambda: not world.maintenance.is_under_way)
    assert (State(world.note.state), world.supervisors.restarted) == (State.DONE, restarted)
    await world.cluster.end()


async def test_a_drain_fails_if_the_supervisor_that_stands_by_never_answers(tmp_path: Path) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    world.supervisors.standby = ""
    await world.run(What(Kind.DRAIN, node="node-1"))
    assert State(world.note.state) == State.FAILED
    expected = "stopped at supervisor: expected the one that stands by to say where it is within 180 s"
    assert world.note.detail == f"{expected}, found that it does not answer"
    assert "id-1" not in {c.node for c in world.cluster.components.values()}
    # Of a shard alone it was no part.
    await world.run(SHARD_0)
    assert State(world.note.state) == State.DONE
    await world.cluster.end()


@pytest.mark.parametrize(
    ("answer", "state", "detail"),
    [
        ("id-2", State.DONE, ""),
        ("id-1", State.FAILED, "expected node-1 to be empty, found supervisor"),
        (
            "",
            State.FAILED,
            "expected node-1 to be empty, found supervisor (the one that stands by may be there: it does not answer)",
        ),
    ],
)
async def test_a_drain_ends_as_done_only_if_it_knows_where_the_supervisor_is_that_stands_by(
    tmp_path: Path, answer: str, state: State, detail: str
) -> None:
    world = await World(tmp_path, nodes=3, gateways=3).begin()
    world.supervisors.standby = "id-2"
    await world.maintenance.begin(What(Kind.DRAIN, node="node-1"))
    world.supervisors.standby = ""
    await world.cluster.until(lambda: State(world.note.steps[-1].state) == State.DONE)
    await world.cluster.pass_time(3.0)
    assert State(world.note.state) == State.RUNNING, "it asks again"
    world.supervisors.standby = answer
    await world.cluster.until(lambda: not world.maintenance.is_under_way)
    assert (State(world.note.state), world.note.detail) == (state, detail)
    await world.cluster.end()


def test_where_a_supervisor_goes_whose_node_is_drained() -> None:
    nodes = [Node(f"id-{number}", f"node-{number}") for number in range(3)]
    assert node_for_standby_supervisor(nodes, [], active="id-0", standby="id-1") == ""
    assert node_for_standby_supervisor(nodes, ["node-2"], active="id-0", standby="id-1") == ""
    assert node_for_standby_supervisor(nodes, ["node-1"], active="id-0", standby="id-1") == "id-2"
    assert node_for_standby_supervisor(nodes[:2], ["node-1"], active="id-0", standby="id-1") == "id-0"


async def test_a_supervisor_that_comes_in_the_middle_ends_it_and_keeps_everything_running(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    await world.maintenance.begin(ALL)
    await world.cluster.until(lambda: State(world.note.steps[3].state) == State.RUNNING)
    await world.maintenance.stop()
    await world.cluster.replace_supervisor()
    await Maintenance(world.cluster.reconciler, world.supervisors).resume()
    assert State(world.note.state) == State.UNFINISHED
    assert [State(s.state).name for s in world.note.steps[2:5]] == ["DONE", "UNFINISHED", "WAITING"]
    await world.cluster.until(lambda: world.cluster.reconciler.is_complete)
    await world.cluster.end()


async def test_the_supervisor_that_comes_at_the_last_step_finds_it_done(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    await world.run(ALL)
    steps = (*world.note.steps[:-1], world.note.steps[-1]._replace(state=int(State.RUNNING)))
    await world.cluster.reconciler.commands.decide(world.note._replace(state=int(State.RUNNING), steps=steps))
    world.maintenance = Maintenance(world.cluster.reconciler, world.supervisors)
    await world.maintenance.resume()
    await world.cluster.until(lambda: not world.maintenance.is_under_way)
    assert (State(world.note.state), State(world.note.steps[-1].state)) == (State.DONE, State.DONE)
    await world.cluster.end()


async def test_what_is_unsafe_is_refused_unless_it_is_forced(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    cluster = world.cluster
    await cluster.by_hand(StageAction.HOLD, Stage.CANCEL_ONLY, shard="shard-1")
    await cluster.until(lambda: cluster.components["shard-1"].vitals["stage"] == Stage.CANCEL_ONLY)
    assert await world.refused(SHARD_0) == "SHARD_NOT_OPEN"
    await cluster.by_hand(StageAction.RESUME, shard="shard-1")
    await cluster.until(lambda: cluster.components["shard-1"].vitals["stage"] == Stage.OPEN)
    cluster.components["ledger"].utilisation = 0.7
    assert await world.refused(SHARD_0) == "BUSY"
    cluster.components["ledger"].utilisation = 0.0
    cluster.refused.add("shard-0-standby")
    await cluster.lose("shard-0-standby")
    assert await world.refused(SHARD_0) == "STANDBY_MISSING"
    before = cluster.components["shard-0"].incarnation
    await world.maintenance.begin(SHARD_0, force=True)
    assert await world.refused(ALL, force=True) == "MAINTENANCE_UNDER_WAY"
    cluster.refused.clear()
    await cluster.until(lambda: not world.maintenance.is_under_way)
    assert world.steps == [("RESTART", "shard-0-standby"), ("RESTART", "shard-0")]
    assert cluster.components["shard-0"].incarnation != before
    await cluster.end()


async def test_nothing_is_done_to_what_is_not_there_or_would_leave_nothing(tmp_path: Path) -> None:
    world = await World(tmp_path, nodes=1, gateways=1).begin()
    assert await world.refused(What(Kind.RESTART, node="node-7"), force=True) == "NODE_UNKNOWN"
    assert await world.refused(What(Kind.RESTART, machine="shard-7"), force=True) == "SHARD_UNKNOWN"
    assert await world.refused(What(Kind.DRAIN, node="node-0"), force=True) == "ONLY_NODE"
    assert await world.refused(ALL) == "ONLY_GATEWAY"
    await world.cluster.end()


async def test_the_answer_names_the_steps_and_the_drained_nodes(tmp_path: Path) -> None:
    world = await World(tmp_path).begin()
    assert not admin_pb2.GetMaintenanceResponse.FromString(world.maintenance.encode()).HasField("maintenance")
    await world.run(What(Kind.DRAIN, node="node-1"))
    told = admin_pb2.GetMaintenanceResponse.FromString(world.maintenance.encode())
    assert list(told.drained_nodes) == ["node-1"]
    assert (told.maintenance.kind, told.maintenance.node) == (admin_pb2.MAINTENANCE_KIND_DRAIN, "node-1")
    assert [step.component for step in told.maintenance.steps] == [step.component for step in world.note.steps]
    kinds = {event.kind for event in world.cluster.reconciler.events.after(0)}
    assert {"maintenance", "handing_over", "stopping"} <= kinds
    await world.cluster.end()
