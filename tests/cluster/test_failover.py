"""Whoever is killed or paused on a real exchange: another takes over, and all that was acknowledged is there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from exchange.client import Client, EvenkeelError, Side
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.processes import read_process
from exchange.ray_calls import NAMESPACE, SUPERVISORS, actor_name
from exchange.runtime.messages import LinkBatch, pack
from exchange.runtime.rows import rows_segment
from tests.cluster.money import open_market, open_rich_account
from tests.cluster.test_kill import until

pytestmark = pytest.mark.cluster
SYMBOL = "BTC-USDT"
PLACED_EACH_TIME = 10


@pytest.fixture(scope="module", params=["file", "nats"])
def exchange(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    data_dir = Path(tmp_path_factory.mktemp("exchange"))
    config = ExchangeConfig(data_dir=data_dir, port=0, shards=1, journal=request.param)
    with LocalExchange(config) as running:
        with Client(running.address, running.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
        running.wait(complete=True)
        yield running


class Load:
    """Places an order after the other, from a thread; remembers which were acknowledged."""

    def __init__(self, exchange: LocalExchange, name: str) -> None:
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            _, secret = open_rich_account(operator, name)
        self.acknowledged: list[str] = []
        self._client = Client(exchange.address, secret, timeout=10)
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


def test_a_primary_that_is_paused_is_taken_over_and_what_it_does_afterwards_is_not_believed(
    exchange: LocalExchange,
) -> None:
    exchange.wait(complete=True)
    before, standby = component(exchange, "shard-0"), component(exchange, "shard-0-standby")
    zombie = ray.get_actor(actor_name("shard-0", before.incarnation), namespace=NAMESPACE)
    late = pack(LinkBatch("zombie", 1, 1, [rows_segment([])]))
    with Load(exchange, "paused") as load:
        os.kill(before.pid, signal.SIGSTOP)
        # What is on its way to it when it goes on; the supervisor may end it first, which is as good.
        answer = zombie.submit.remote(late)
        until(lambda: component(exchange, "shard-0").pid == standby.pid)
        _send(before.pid, signal.SIGCONT)
        with pytest.raises(ray.exceptions.RayError):
            ray.get(answer, timeout=60)
        load.go_on()
        load.check()
    exchange.wait(complete=True)
    until(partial(_is_gone, before.pid))


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _is_gone(pid: int) -> bool:
    process = read_process(pid)
    return process is None or process.state == "Z"
