"""A plan of faults and a flow of orders are the same for the same seed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from chaos.campaign.flow import Flow
from chaos.faults.fault import FaultKind, Target, choose, plan_faults
from chaos.worlds.worlds import make_world
from exchange.netns import LocalNetwork, NetworkFailed

ROLES = {FaultKind.KILL_PROCESS: ["shard", "ledger"], FaultKind.PAUSE_NODE: ["node"], FaultKind.CUT_LINK: ["link"]}


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    assert plan_faults(1, 50, ROLES, 3.0, 0.2) == plan_faults(1, 50, ROLES, 3.0, 0.2)
    assert plan_faults(1, 50, ROLES, 3.0, 0.2) != plan_faults(2, 50, ROLES, 3.0, 0.2)


def test_every_kind_and_role_gets_its_share() -> None:
    planned = [fault for together in plan_faults(3, 60, ROLES, 3.0, 0.2) for fault in together]
    assert Counter(fault.kind for fault in planned) == dict.fromkeys(ROLES, 20)
    assert Counter(f.role for f in planned if f.kind == FaultKind.KILL_PROCESS) == {"shard": 10, "ledger": 10}


def test_a_fault_is_done_to_a_target_of_its_role_or_else_to_any() -> None:
    (planned,) = plan_faults(1, 1, {FaultKind.KILL_PROCESS: ["shard"]}, 3.0, 0.0)[0]
    shards = [Target("shard-0", "shard", 1), Target("shard-1", "shard", 2)]
    assert choose(planned, [Target("ledger", "ledger", 3), *shards]) in shards
    assert choose(planned, [Target("ledger", "ledger", 3)]) == Target("ledger", "ledger", 3)
    assert choose(planned, []) is None


def test_the_same_seed_gives_the_same_orders_and_each_client_its_own() -> None:
    def messages(seed: int, client: str) -> list[bytes]:
        flow = Flow(seed, client, ["AAA-USDT", "BBB-USDT"])
        return [command.SerializeToString() for _ in range(100) for command in flow.message(5)]

    assert messages(1, "t0") == messages(1, "t0")
    assert messages(1, "t0") != messages(1, "t1")
    assert messages(1, "t0") != messages(2, "t0")


def test_the_orders_are_of_every_sort_that_is_promised() -> None:
    flow = Flow(1, "t0", ["AAA-USDT"])
    commands = [command for _ in range(400) for command in flow.message(5)]
    kinds = Counter(command.WhichOneof("command") for command in commands)
    assert kinds["place"] > kinds["cancel"] > kinds["amend"] > kinds["cancel_all"] > 0
    orders = [command.place for command in commands if command.HasField("place")]
    assert {order.time_in_force for order in orders} == {0, 2, 3}
    assert any(order.post_only for order in orders)
    assert {order.self_trade_prevention for order in orders} == {0, 2, 3}


def test_without_root_a_campaign_says_that_it_cuts_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (left_out,) = make_world("nodes", tmp_path).left_out
    assert left_out == "no links are cut: expected root, which network namespaces need"
    with pytest.raises(NetworkFailed, match="expected root"):
        LocalNetwork(3).make()
