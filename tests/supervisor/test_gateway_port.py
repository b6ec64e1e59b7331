"""A gateway that is replaced is found where it was, also when it may take any port."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.config import ConfigInvalid, ExchangeConfig
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


async def test_gateways_on_machines_of_their_own_listen_on_one_port(tmp_path: Path) -> None:
    config = ExchangeConfig(port=7_700, same_port=True, shards=1, gateways=2, nodes=2)
    cluster = ClusterInMemory(tmp_path, config, nodes=2)
    await cluster.begin()
    await cluster.lose("gateway-1")
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert cluster.ports_asked == [7_700] * 3
    assert {cluster.components[name].node for name in ("gateway-0", "gateway-1")} == {"id-0", "id-1"}
    await cluster.end()


@pytest.mark.parametrize("changes", [{"nodes": 1}, {"port": 0}])
def test_one_port_for_gateways_that_share_a_machine_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigInvalid, match="same_port: expected a port, and a node for each gateway, was"):
        ExchangeConfig(**{"gateways": 2, "nodes": 2, "same_port": True, **changes})  # type: ignore[arg-type]
