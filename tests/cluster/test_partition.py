"""A node whose links are cut: another takes over, the zombie on it gets nothing in, and it comes back into use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from exchange.client import Client
from exchange.cluster import LocalExchange, NoSupervisor, StartFailed
from exchange.config import ExchangeConfig
from exchange.engine.commands import SetStage
from exchange.engine.words import Stage
from exchange.netns import missing
from exchange.node_reviver import NodeReviver
from exchange.nodes import LocalNode, LocalNodes
from exchange.ray_calls import NAMESPACE, actor_name
from exchange.runtime.host import NotPrimary
from exchange.runtime.messages import LinkBatch, pack
from exchange.runtime.rows import rows_segment
from tests.cluster.money import open_market
from tests.cluster.test_failover import SYMBOL, Load, active_supervisor, component
from tests.cluster.test_kill import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
LIMIT_S = 180.0
Cut = Callable[[LocalNodes, LocalNode], None]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    data_dir = Path(tmp_path_factory.mktemp("exchange"))
    config = ExchangeConfig(data_dir=data_dir, shards=1, journal="nats", nodes=3, gateways=3)
    with LocalExchange(config, apart=True) as running:
        with Client(running.address, running.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
        assert running.nodes is not None
        with NodeReviver(running.nodes):
            yield running


def cut_off(nodes: LocalNodes, node: LocalNode) -> None:
    """From everything: other nodes, journals and clients."""
    nodes.cut(node)


def cut_from_peers(nodes: LocalNodes, node: LocalNode) -> None:
    """From the other nodes, Ray's GCS among them; its journals and clients still reach it."""
    for other in nodes.nodes:
        if other is not node:
            nodes.cut(node, other)


def gateway_on(exchange: LocalExchange, node: str) -> str:
    found = next(c for c in exchange.status().components if c.name.startswith("gateway") and c.node == node)
    return str(found.address)


def is_complete(exchange: LocalExchange) -> bool:
    """Whether everything runs. What was to start on a node that is lost did not: it is tried again on the next one."""
    try:
        exchange.wait(complete=True)
    except StartFailed:
        return False
    return True


def moved(exchange: LocalExchange, pid: int) -> bool:
    """Whether the shard's primary is another process than that."""
    try:
        return int(component(exchange, "shard-0").pid) not in (0, pid)
    except (ray.exceptions.RayError, NoSupervisor):
        return False


@pytest.mark.parametrize("cut", [cut_off, cut_from_peers])
def test_a_primary_that_is_partitioned_is_fenced_and_never_believed(exchange: LocalExchange, cut: Cut) -> None:
    nodes = exchange.nodes
    assert nodes is not None
    until(lambda: is_complete(exchange), timeout_s=LIMIT_S)
    before = component(exchange, "shard-0")
    if before.node == "node-0":
        # The GCS is there, which this test is not about: the standby, elsewhere, takes over first.
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: moved(exchange, before.pid), timeout_s=LIMIT_S)
        until(lambda: is_complete(exchange), timeout_s=LIMIT_S)
        before = component(exchange, "shard-0")
    node = nodes.node(before.node)
    assert node.name != "node-0"
    elsewhere = next(other for other in nodes.nodes[1:] if other is not node)
    zombie = ray.get_actor(actor_name("shard-0", before.incarnation), namespace=NAMESPACE)
    ray.get(zombie.ping.remote(0, 0), timeout=60)
    stage = rows_segment([SetStage(int(Stage.HALTED), 0, "a zombie's")])
    with (
        Load(exchange, f"majority-{cut.__name__}", gateway_on(exchange, elsewhere.name)) as load,
        Load(exchange, f"minority-{cut.__name__}", gateway_on(exchange, node.name)) as beside_the_zombie,
    ):
        cut(nodes, node)
        # Comes when the link is healed, if there is still somebody then.
        answer = zombie.submit.remote(pack(LinkBatch(cut.__name__, 1, 1, [stage])))
        until(lambda: moved(exchange, before.pid), timeout_s=LIMIT_S)
        load.go_on()
        lives = before.pid in node.worker_pids
        assert lives, "nothing ended the old primary, which nobody could reach"
        nodes.heal(node)
        with pytest.raises(ray.exceptions.RayError) as raised:
            ray.get(answer, timeout=60)
        # Either its append is refused, or it has ended before: it was fenced, or Ray had given its node up.
        assert isinstance(raised.value, (NotPrimary, ray.exceptions.RayActorError)), raised.value
        print(f"the zombie's answer: {raised.value!r}")
        until(lambda: is_complete(exchange), timeout_s=LIMIT_S)
        load.go_on()
        beside_the_zombie.go_on()
        load.check()
        beside_the_zombie.check()
    after = component(exchange, "shard-0")
    assert after.epoch > before.epoch
    assert after.stage == Stage.OPEN
    until(lambda: before.pid not in node.worker_pids, timeout_s=LIMIT_S)
    # The node is of use again: its gateway is back, and there is somebody to take over.
    assert gateway_on(exchange, node.name)


def test_a_supervisor_that_is_partitioned_leaves_it_to_the_other_one(exchange: LocalExchange) -> None:
    nodes = exchange.nodes
    assert nodes is not None
    until(lambda: is_complete(exchange), timeout_s=LIMIT_S)
    name, pid = active_supervisor()
    if name == "supervisor-0":
        # It is beside the GCS, which this test is not about. Killed it might be back before the other one has noticed.
        os.kill(pid, signal.SIGSTOP)
        until(lambda: active_supervisor()[0] == "supervisor-1", timeout_s=LIMIT_S)
        os.kill(pid, signal.SIGCONT)
        until(lambda: is_complete(exchange), timeout_s=LIMIT_S)
        name, pid = active_supervisor()
    node = next(node for node in nodes.nodes if pid in node.worker_pids)
    elsewhere = next(other for other in nodes.nodes[1:] if other is not node)
    with Load(exchange, "supervised", gateway_on(exchange, elsewhere.name)) as load:
        nodes.cut(node)
        until(lambda: active_supervisor()[0] == "supervisor-0", timeout_s=LIMIT_S)
        load.go_on()
        nodes.heal(node)
        # It finds itself fenced, or Ray had given its node up.
        until(lambda: pid not in node.worker_pids, timeout_s=LIMIT_S)
        until(lambda: is_complete(exchange), timeout_s=LIMIT_S)
        load.go_on()
        load.check()
