"""Whoever is killed or paused on a real exchange: another takes over, and all that was acknowledged is there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from exchange.client import Client, EvenkeelError, Side
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.engine.commands import SetStage
from exchange.engine.words import Stage
from exchange.processes import read_process
from exchange.ray_calls import NAMESPACE, SUPERVISORS, actor_name
from exchange.runtime.host import NotPrimary
from exchange.runtime.messages import LinkBatch, pack
from exchange.runtime.rows import rows_segment
from exchange.settings import opening_at_once, restarting_freely
from tests.cluster.money import open_market, open_rich_account
from tests.cluster.test_kill import until

pytestmark = pytest.mark.cluster
SYMBOL = "BTC-USDT"
PLACED_EACH_TIME = 10


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    data_dir = Path(tmp_path_factory.mktemp("exchange"))
    with LocalExchange(
        ExchangeConfig(data_dir=data_dir, port=0, shards=1, settings=restarting_freely(opening_at_once()))
    ) as running:
        with Client(running.address, running.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
        running.wait(complete=True)
        yield running


class Load:
    """Places an order after the other, from a thread; remembers which were acknowledged."""

    def __init__(self, exchange: LocalExchange, name: str, address: str = "") -> None:
        address = address or exchange.address
        with Client(address, exchange.operator_key, timeout=10) as operator:
            _, secret = open_rich_account(operator, name)
        self.acknowledged: list[str] = []
        self._client = Client(address, secret, timeout=10)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                result = self._client.place_order(SYMBOL, Side.BUY, "0.01", "5", timeout=10)
            except EvenkeelError:
                continue
            if result.accepted:
                self.acknowledged.append(result.client_order_id)

    def go_on(self) -> None:
        """Wait until some more were acknowledged."""
        enough = len(self.acknowledged) + PLACED_EACH_TIME
        until(lambda: len(self.acknowledged) >= enough)

    def check(self) -> None:
        acknowledged = list(self.acknowledged)
        until(lambda: set(acknowledged) <= {order.client_order_id for order in self._client.list_orders()})


def component(exchange: LocalExchange, name: str) -> Any:
    return next(c for c in exchange.status().components if c.name == name)


def active_supervisor() -> tuple[str, int]:
    """Return the name and the process id of the one that is active."""
    for name in SUPERVISORS:
        try:
            said = ray.get(ray.get_actor(name, namespace=NAMESPACE).lead.remote(), timeout=2)
        except (ray.exceptions.RayError, ValueError):
            continue
        if said["is_active"]:
            return name, said["pid"]
    return "", 0


@pytest.mark.parametrize("machine", ["shard-0", "ledger"])
def test_a_primary_that_is_killed_is_taken_over_by_its_standby(exchange: LocalExchange, machine: str) -> None:
    exchange.wait(complete=True)
    before, standby = component(exchange, machine), component(exchange, f"{machine}-standby")
    with Load(exchange, f"killed-{machine}") as load:
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: component(exchange, machine).pid == standby.pid)
        load.go_on()
        load.check()
    assert component(exchange, machine).epoch > before.epoch
    exchange.wait(complete=True)
    assert component(exchange, f"{machine}-standby").incarnation > standby.incarnation


def test_trading_goes_on_without_the_active_supervisor_and_the_other_one_takes_over(exchange: LocalExchange) -> None:
    exchange.wait(complete=True)
    name, pid = active_supervisor()
    processes = {c.name: c.pid for c in exchange.status().components}
    with Load(exchange, "supervised") as load:
        os.kill(pid, signal.SIGKILL)
        load.go_on()
        until(lambda: active_supervisor()[0] not in ("", name) or active_supervisor()[1] not in (0, pid))
        exchange.wait(complete=True)
        load.go_on()
        load.check()
    assert {c.name: c.pid for c in exchange.status().components} == processes


def test_a_primary_that_is_paused_is_taken_over_and_ended(exchange: LocalExchange) -> None:
    exchange.wait(complete=True)
    before, standby = component(exchange, "shard-0"), component(exchange, "shard-0-standby")
    with Load(exchange, "paused") as load:
        os.kill(before.pid, signal.SIGSTOP)
        # With its journal in files it must be gone before another may write.
        until(lambda: component(exchange, "shard-0").pid == standby.pid)
        assert _is_gone(before.pid)
        load.go_on()
        load.check()
    exchange.wait(complete=True)


@pytest.mark.slow
def test_a_zombie_that_was_paused_with_its_node_gets_nothing_in_and_is_not_believed(tmp_path: Path) -> None:
    """The journal is on servers, and the supervisor cannot end what is on a node that does not answer."""
    config = ExchangeConfig(
        data_dir=tmp_path,
        port=0,
        shards=1,
        journal="nats",
        nodes=3,
        gateways=3,
        settings=restarting_freely(opening_at_once()),
    )
    with LocalExchange(config) as exchange:
        nodes = exchange.nodes
        assert nodes is not None
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
        exchange.wait(complete=True)
        before, standby = component(exchange, "shard-0"), component(exchange, "shard-0-standby")
        # Placed where there were fewest, and the ledger came first. Ray's own memory is on the first node.
        assert before.node != nodes.nodes[0].name
        gateway = next(c for c in exchange.status().components if c.name.startswith("gateway") and c.node == "node-0")
        zombie = ray.get_actor(actor_name("shard-0", before.incarnation), namespace=NAMESPACE)
        stage = rows_segment([SetStage(int(Stage.HALTED), 0, "a zombie's")])
        with Load(exchange, "by-standers", gateway.address) as load:
            nodes.pause(nodes.node(before.node))
            # It is in the zombie's socket when that goes on.
            answer = zombie.submit.remote(pack(LinkBatch("zombie", 1, 1, [stage])))
            until(lambda: component(exchange, "shard-0").pid == standby.pid)
            load.go_on()
            nodes.resume(nodes.node(before.node))
            with pytest.raises(ray.exceptions.RayError) as raised:
                ray.get(answer, timeout=60)
            # Either its append is refused, or Ray has given its node up and ended it before.
            assert isinstance(raised.value, (NotPrimary, ray.exceptions.RayActorError)), raised.value
            print(f"the zombie's answer: {raised.value!r}")
            load.go_on()
            load.check()
        after = component(exchange, "shard-0")
        assert after.epoch > before.epoch
        assert after.stage == Stage.OPEN


def _is_gone(pid: int) -> bool:
    process = read_process(pid)
    return process is None or process.state == "Z"
