"""Several Ray nodes on this machine, with the faults that they are there for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from exchange.nodes import LocalNode, LocalNodes, NodesFailed
from exchange.processes import descendants, read_process
from exchange.ray_settings import LOCAL_RAY_ENVIRONMENT, NODE_LABEL

pytestmark = pytest.mark.cluster
LIMIT_S = 60.0


class Counter:
    """An actor that counts, itself or through another one that it knows by its handle."""

    def __init__(self) -> None:
        self._count = 0
        self._other: Any = None

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def pid(self) -> int:
        return os.getpid()

    def count(self) -> int:
        self._count += 1
        return self._count

    def know(self, name: str) -> int:
        self._other = ray.get_actor(name, namespace="test")
        return self.count_through()

    def count_through(self) -> int:
        count: int = ray.get(self._other.count.remote())
        return count


def start_counter(name: str, node: LocalNode) -> Any:
    options = {"name": name, "namespace": "test", "lifetime": "detached", "num_cpus": 0}
    counter = ray.remote(Counter).options(**options, label_selector={NODE_LABEL: node.name}).remote()
    call(counter, "pid")
    return counter


def call(counter: Any, method: str, *arguments: Any) -> Any:
    return ray.get(getattr(counter, method).remote(*arguments), timeout=LIMIT_S)


def wait(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {LIMIT_S:g} s"
        time.sleep(0.05)


def alive_in_ray() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNodes]:
    os.environ.update(LOCAL_RAY_ENVIRONMENT)
    with LocalNodes(3, tmp_path_factory.mktemp("nodes"), share_directory=False) as running:
        ray.init(
            address=running.address,
            namespace="test",
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address=running.nodes[0].host,
        )
        yield running
        ray.shutdown()


def test_an_actor_runs_on_the_node_that_it_is_meant_for_and_knows_it(nodes: LocalNodes) -> None:
    node = nodes.node("node-1")
    counter = start_counter("placed", node)
    environment = call(counter, "environment")
    assert environment["EVENKEEL_NODE"] == "node-1"
    assert Path(environment["EVENKEEL_DATA_DIR"]) == node.data_dir
    assert node.data_dir.name == "node-1"
    assert {name: environment[name] for name in LOCAL_RAY_ENVIRONMENT} == LOCAL_RAY_ENVIRONMENT
    assert call(counter, "pid") in node.worker_pids
    assert {node.ray_id for node in nodes.nodes} == alive_in_ray()


def test_trading_between_actors_goes_on_while_the_gcs_is_away_and_it_finds_them_again(nodes: LocalNodes) -> None:
    caller, counter = start_counter("caller", nodes.nodes[1]), start_counter("counter", nodes.nodes[2])
    assert call(caller, "know", "counter") == 1
    nodes.kill_gcs()
    assert nodes.gcs_pid == 0
    with pytest.raises(NodesFailed, match="the GCS is to be killed"):
        nodes.kill_gcs()
    # From actor to actor, and from here, by the handles that there are.
    assert [call(caller, "count_through") for _ in range(10)] == list(range(2, 12))
    assert call(counter, "count") == 12
    nodes.restart_gcs()
    assert nodes.gcs_pid
    # By name it finds those that ran all the time, and can place new ones.
    assert call(ray.get_actor("counter", namespace="test"), "count") == 13
    assert call(caller, "know", "counter") == 14
    assert call(start_counter("new", nodes.nodes[2]), "count") == 1
    assert {node.ray_id for node in nodes.nodes} == alive_in_ray()


def test_a_paused_node_answers_when_it_goes_on(nodes: LocalNodes) -> None:
    node = nodes.node("node-1")
    counter = start_counter("pausing", node)
    nodes.pause(node)
    was_paused = node.paused
    assert was_paused
    assert all(process.state == "T" for process in node.processes)
    answer = counter.count.remote()
    assert ray.wait([answer], timeout=0.2) == ([], [answer])
    nodes.resume(node)
    is_paused = node.paused
    assert not is_paused
    assert ray.get(answer, timeout=LIMIT_S) == 1


def test_a_killed_node_leaves_no_process_and_comes_back_under_its_name(nodes: LocalNodes) -> None:
    node = nodes.node("node-2")
    counter = start_counter("killed", node)
    pid, ray_id = call(counter, "pid"), node.ray_id
    processes = [process.pid for process in node.processes]
    assert {pid, node.raylet_pid} <= set(processes)
    with pytest.raises(NodesFailed, match="but it runs"):
        nodes.start_again(node)
    nodes.kill(node)
    # Reaped too: a raylet that is not keeps its workers alive.
    assert [read_process(pid) for pid in processes] == [None] * len(processes)
    assert (node.alive, node.worker_pids) == (False, [])
    with pytest.raises(ray.exceptions.RayActorError):
        call(counter, "count")
    wait(lambda: ray_id not in alive_in_ray())
    nodes.start_again(node)
    assert node.ray_id not in {ray_id, ""}
    assert call(start_counter("next", node), "environment")["EVENKEEL_NODE"] == "node-2"


@pytest.mark.slow
def test_the_first_node_can_be_killed_while_the_gcs_and_the_others_go_on(nodes: LocalNodes) -> None:
    counter = start_counter("elsewhere", nodes.nodes[1])
    gcs_pid, ray_id = nodes.gcs_pid, nodes.nodes[0].ray_id
    nodes.kill(nodes.nodes[0])
    assert call(counter, "count") == 1
    assert nodes.gcs_pid == gcs_pid
    # Until Ray has given it up, it would start an actor for a node of that name there.
    wait(lambda: ray_id not in alive_in_ray())
    nodes.start_again(nodes.nodes[0])
    assert call(start_counter("first", nodes.nodes[0]), "environment")["EVENKEEL_NODE"] == "node-0"


@pytest.mark.slow
def test_the_gcs_can_be_killed_over_and_over(nodes: LocalNodes) -> None:
    counter = start_counter("steady", nodes.nodes[1])
    for number in range(1, 4):
        nodes.kill_gcs()
        assert call(counter, "count") == 2 * number - 1
        nodes.restart_gcs()
        assert call(ray.get_actor("steady", namespace="test"), "count") == 2 * number


@pytest.mark.slow
def test_nothing_is_left_of_nodes_whose_owner_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from exchange.nodes import LocalNodes\n"
        "nodes = LocalNodes(1, Path(sys.argv[1])); nodes.start(); print(nodes.nodes[0].raylet_pid, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert read_process(int(owner.stdout.readline()))
        below = [process.pid for process in descendants(owner.pid)]
        owner.send_signal(signal.SIGKILL)
    assert len(below) > 3
    wait(lambda: not any(read_process(pid) for pid in below))


def test_a_keeper_runs_a_command_and_kills_what_it_leaves(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "exchange.keeper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        script = "sleep 1000 & echo $!; exit 3"
        command = {"argv": ["/bin/sh", "-c", script], "environment": {}, "output": str(tmp_path / "output")}
        keeper.stdin.write(json.dumps(command) + "\n")
        keeper.stdin.flush()
        started = json.loads(keeper.stdout.readline())["started"]
        assert json.loads(keeper.stdout.readline()) == {"ended": started, "code": 3}
        left = int((tmp_path / "output").read_text())
        process = read_process(left)
        assert process is not None
        assert process.parent == keeper.pid
        keeper.stdin.close()
        assert keeper.wait(LIMIT_S) == 0
        assert read_process(left) is None
