"""Where a component is started, as a function of what runs where."""

from __future__ import annotations

import pytest

from exchange.supervisor.component import Component, Node, components_of
from exchange.supervisor.placement import place

NODES = [Node(f"id-{number}", f"node-{number}") for number in range(3)]


def components(*, shards: int = 2, gateways: int = 3) -> dict[str, Component]:
    machines = ["ledger", *(f"shard-{number}" for number in range(shards))]
    return components_of(machines, [f"gateway-{number}" for number in range(gateways)], standbys=True)


def placed(some: dict[str, Component], nodes: list[Node]) -> dict[str, str]:
    for component in some.values():
        if not component.node:
            node = place(component, some.values(), nodes, is_single=len(nodes) == 1)
            component.node = node.id if node else ""
    return {name: component.node for name, component in some.items()}


@pytest.mark.parametrize("count", [2, 3])
def test_a_standby_is_never_with_its_primary_where_there_are_several_nodes(count: int) -> None:
    where = placed(components(shards=4), NODES[:count])
    for machine in ("ledger", "shard-0", "shard-1", "shard-2", "shard-3"):
        assert where[machine] != where[f"{machine}-standby"]


def test_on_a_single_node_everything_is_there() -> None:
    assert set(placed(components(), NODES[:1]).values()) == {"id-0"}


def test_machines_are_spread() -> None:
    where = placed(components(shards=5), NODES)
    machines = [node for name, node in where.items() if name.startswith(("shard", "ledger"))]
    assert [machines.count(node.id) for node in NODES] == [4, 4, 4]


def test_each_gateway_has_a_node_of_its_own() -> None:
    where = placed(components(gateways=4), NODES)
    assert [where[f"gateway-{number}"] for number in range(4)] == ["id-0", "id-1", "id-2", ""]


def test_a_gateway_comes_back_where_there_is_none() -> None:
    some = components()
    placed(some, NODES)
    some["gateway-1"].node = ""
    assert placed(some, NODES)["gateway-1"] == "id-1"


def test_after_a_start_that_failed_it_is_the_next_nodes_turn() -> None:
    some = components()
    placed(some, NODES)
    standby = some["shard-0-standby"]
    tried = []
    for failures in range(4):
        standby.node, standby.failures = "", failures
        node = place(standby, some.values(), NODES)
        assert node is not None
        tried.append(node.id)
    assert len(set(tried)) == 2
    assert some["shard-0"].node not in tried
    assert tried[:2] == tried[2:]


def test_without_a_node_there_is_no_place() -> None:
    some = components()
    assert [place(some[name], some.values(), []) for name in ("ledger", "gateway-0", "ledger-standby")] == [None] * 3


def test_a_gateway_is_not_put_beside_another_one_when_all_nodes_but_one_are_away() -> None:
    some = components()
    placed(some, NODES)
    for component in some.values():
        if component.node != "id-0":
            component.node = ""
    assert place(some["gateway-1"], some.values(), NODES[:1]) is None
    assert place(some["gateway-1"], some.values(), NODES[:1], is_single=True) == NODES[0]
