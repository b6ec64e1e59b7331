"""Agents follow their nodes; nobody who directs is harmed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from chaos.cluster.agents import Agents
from chaos.cluster.faults import ClusterAgent, check_faults
from chaos.cluster.hands import GONE, Hands, NodeAway, NodeHands, ProtectedProcess
from chaos.cluster.placement import director_node
from chaos.experiment.model import FaultStep
from chaos.faults.fault import Target
from chaos.faults.injection import FaultNotInjected
from chaos.run.furnish import TargetUnsuitable
from chaos.run.parts import Fault
from tests import virtual_time
from tests.chaos.run.fakes import EXPERIMENT


@dataclass
class FakeHands:
    """`states`: of processes by id."""

    nodes: FakeNodes
    node: str
    states: dict[int, str] = field(default_factory=lambda: {7: "S", 8: "S"})

    async def signal(self, pid: int, number: int) -> None:
        self.states[pid] = {signal.SIGKILL: GONE, signal.SIGSTOP: "T"}.get(signal.Signals(number), "S")

    async def state(self, pid: int) -> str:
        return self.states[pid]

    async def memory_mb(self, pids: Sequence[int]) -> float:
        return 100.0 * len(pids)

    async def supervisors(self) -> list[int]:
        return [8]

    async def end_node(self) -> None:
        del self.nodes.there[self.node]
        raise NodeAway("gone")


@dataclass
class FakeNodes:
    there: dict[str, str]
    started: list[str] = field(default_factory=list)
    too_late: set[str] = field(default_factory=set)

    async def alive(self) -> Mapping[str, str]:
        return dict(self.there)

    async def start_agent(self, name: str, node_id: str) -> Hands:
        if node_id in self.too_late:
            raise NodeAway("it went as it came")
        self.started.append(node_id)
        return FakeHands(self, name)


def fault(name: str, target: str) -> FaultStep:
    return FaultStep(fault=name, target=target)


def targets() -> list[Target]:
    return [Target("shard-0", "shard", 7, "node-1"), Target("gateway-0", "gateway", 7, "node-0")]


class NoHand:
    async def make(self, number: int, step: FaultStep) -> Fault:
        raise AssertionError(step.fault)


NO_HAND = NoHand()


async def test_each_node_gets_an_agent_and_a_new_one_when_it_comes_back() -> None:
    nodes = FakeNodes({"node-0": "a", "node-1": "b"})
    agents = Agents(nodes)
    await agents.reconcile()
    await agents.reconcile()
    assert nodes.started == ["a", "b"]
    del nodes.there["node-1"]
    await agents.reconcile()
    with pytest.raises(NodeAway, match="expected an agent on node-1, found agents on node-0"):
        agents.on("node-1")
    nodes.there["node-1"] = "c"
    nodes.too_late = {"c"}
    await agents.reconcile()
    assert agents.names == ["node-0"]
    nodes.too_late = set()
    await agents.reconcile()
    assert (agents.names, agents.id_of("node-1")) == (["node-0", "node-1"], "c")


def test_a_node_that_is_killed_is_seen_to_go_and_waited_for() -> None:
    async def work() -> None:
        nodes = FakeNodes({"node-0": "a", "node-1": "b"})
        agents = Agents(nodes)
        await agents.reconcile()
        keeping = asyncio.create_task(agents.run())
        killing = await ClusterAgent(agents, NO_HAND, targets, 1, "node-0").make(0, fault("kill-node", "node-1"))
        await killing.inject()
        assert await killing.proof() == "Ray has lost node-1 (b)"
        coming_back = asyncio.create_task(killing.rollback())
        await asyncio.sleep(20)
        assert not coming_back.done()
        nodes.there["node-1"] = "c"
        await coming_back
        keeping.cancel()

    virtual_time.run(work())


async def test_the_node_of_the_director_is_not_killed() -> None:
    agents = Agents(FakeNodes({"node-0": "a"}))
    await agents.reconcile()
    killing = await ClusterAgent(agents, NO_HAND, targets, 1, "node-0").make(0, fault("kill-node", "node-0"))
    with pytest.raises(FaultNotInjected, match="other than the director's own"):
        await killing.inject()


async def test_processes_are_killed_and_paused_where_they_are() -> None:
    agents = Agents(FakeNodes({"node-0": "a", "node-1": "b"}))
    await agents.reconcile()
    agent = ClusterAgent(agents, NO_HAND, targets, 1, "node-0")
    kill = await agent.make(0, fault("kill-process", "shard"))
    await kill.inject()
    assert await kill.proof() == "process 7 on node-1 is gone"
    assert await agents.on("node-0").state(7) == "S"
    pause = await agent.make(1, fault("pause-process", "supervisor"))
    await pause.inject()
    assert "process 8 on node-" in await pause.proof()
    await pause.rollback()
    assert [await agents.on(node).state(8) for node in agents.names] == ["S", "S"]


async def test_what_cannot_be_done_is_refused() -> None:
    agents = Agents(FakeNodes({"node-0": "a"}))
    with pytest.raises(FaultNotInjected, match="found no shard-9"):
        await ClusterAgent(agents, NO_HAND, targets, 1, "node-0").make(0, fault("kill-process", "shard-9"))
    with pytest.raises(FaultNotInjected, match=r"on a cluster .*, was slow-disk"):
        check_faults(EXPERIMENT)


async def test_an_agent_sends_signals_but_to_none_that_the_experiment_needs() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import signal; signal.pause()")
    hands = NodeHands(protected=[4_000_000])
    await hands.signal(process.pid, signal.SIGKILL)
    await process.wait()
    assert await hands.state(process.pid) == GONE
    for pid in (os.getpid(), os.getppid(), 4_000_000, 1, 0, -1):
        with pytest.raises(ProtectedProcess):
            await hands.signal(pid, signal.SIGKILL)


def test_the_director_sits_where_nothing_is_done() -> None:
    node_0 = msgspec.structs.replace(
        EXPERIMENT.phases[1], faults=(FaultStep(fault="kill-node", target="node-0", at_s=1),)
    )
    experiment = msgspec.structs.replace(EXPERIMENT, phases=(EXPERIMENT.phases[0], node_0))
    assert director_node(["node-0", "node-1", "node-2"], experiment) == "node-1"
    assert director_node(["node-0", "node-1", "node-2"], experiment, "node-2") == "node-2"
    for nodes, wanted in ((["node-0", "node-1"], "node-0"), (["node-0"], ""), (["node-0", "node-1"], "node-7")):
        with pytest.raises(TargetUnsuitable):
            director_node(nodes, experiment, wanted)
