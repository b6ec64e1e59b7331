"""A gateway that is replaced is found where it was, also when it may take any port."""

from __future__ import annotations

from pathlib import Path

from exchange.config import ExchangeConfig
from exchange.supervisor.starter import PORT_TRIES
from tests.supervisor.cluster_in_memory import ClusterInMemory


async def test_a_gateway_on_any_port_keeps_the_one_it_got_first(tmp_path: Path) -> None:
    cluster = ClusterInMemory(tmp_path, ExchangeConfig(port=0, shards=1, gateways=2))
    await cluster.begin()
    ports = {name: cluster.processes[name].port for name in ("gateway-0", "gateway-1")}
    for _ in range(2):
        await cluster.lose("gateway-1")
        await cluster.until(lambda: cluster.reconciler.is_ready)
    assert {name: cluster.processes[name].port for name in ports} == ports
    assert cluster.ports_asked == [0, 0, ports["gateway-1"], ports["gateway-1"]]
    await cluster.end()


async def test_a_gateway_takes_another_port_when_its_own_stays_taken(tmp_path: Path) -> None:
    cluster = ClusterInMemory(tmp_path, ExchangeConfig(port=0, shards=1))
    await cluster.begin()
    port = cluster.processes["gateway-0"].port
    cluster.taken.add(port)
    await cluster.lose("gateway-0")
    await cluster.until(lambda: cluster.reconciler.is_ready)
    other = cluster.processes["gateway-0"].port
    assert other != port
    assert cluster.ports_asked == [0, *[port] * PORT_TRIES, 0]
    # From now on that is its port.
    await cluster.lose("gateway-0")
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert cluster.processes["gateway-0"].port == other
    await cluster.end()


async def test_configured_ports_are_given_in_the_order_of_the_gateways(tmp_path: Path) -> None:
    cluster = ClusterInMemory(tmp_path, ExchangeConfig(port=7_700, shards=1, gateways=2))
    await cluster.begin()
    await cluster.lose("gateway-1")
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert [cluster.processes[name].port for name in ("gateway-0", "gateway-1")] == [7_700, 7_701]
    assert cluster.ports_asked == [7_700, 7_701, 7_701]
    await cluster.end()
