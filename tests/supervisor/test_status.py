"""What the supervisor tells about the components."""

from __future__ import annotations

from pathlib import Path

from exchange.config import ExchangeConfig
from exchange.runtime.machine import state_hash
from exchange.runtime.recovery import take_snapshot
from exchange.supervisor.stages_by_hand import Action
from exchange.v1 import admin_pb2
from tests.supervisor.cluster_in_memory import ClusterInMemory


async def test_the_state_hash_comes_with_the_sequence_at_which_it_holds(tmp_path: Path) -> None:
    cluster = ClusterInMemory(tmp_path, ExchangeConfig(port=0, shards=1, standbys=False))
    await cluster.begin()
    host = cluster.processes["shard-0"].host

    def told() -> admin_pb2.Component:
        status = admin_pb2.GetStatusResponse.FromString(cluster.reconciler.operator.status("0"))
        return next(c for c in status.components if c.name == "shard-0")

    assert (told().state_hash, told().state_hash_sequence) == ("", 0)
    take_snapshot(host.kind, host.at, host.snapshots)
    expected = state_hash(host.kind, host.machine).hex(), host.machine.sequence
    await cluster.until(lambda: (told().state_hash, told().state_hash_sequence) == expected)
    await cluster.by_hand(Action.HOLD, 2, shard="shard-0")
    await cluster.until(lambda: told().sequence == expected[1] + 1)
    assert (told().state_hash, told().state_hash_sequence) == expected
    await cluster.end()
