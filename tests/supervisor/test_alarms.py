"""A break that the auditor finds takes the shards involved to CANCEL_ONLY, once, and nobody else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exchange.config import ExchangeConfig
from exchange.engine.commands import SetStage
from exchange.engine.control import NoteBreak
from exchange.engine.words import Stage
from exchange.supervisor.audit.words import Break, BreakKind
from exchange.supervisor.component import AUDITOR
from exchange.supervisor.stages_by_hand import Action
from exchange.v1 import admin_pb2
from tests.supervisor.cluster_in_memory import ClusterInMemory

CANCEL_ONLY, OPEN, HALTED = int(Stage.CANCEL_ONLY), int(Stage.OPEN), int(Stage.HALTED)


async def new_cluster(directory: Path) -> ClusterInMemory:
    cluster = ClusterInMemory(directory, ExchangeConfig(port=0, shards=3, standbys=False))
    await cluster.begin()
    await cluster.until(lambda: cluster.reconciler.components[AUDITOR].state.name == "UP")
    return cluster


def a_break(shards: tuple[str, ...] = ("shard-1",), found: int = 5) -> dict[str, Any]:
    broken = Break(BreakKind.HOLD, "USDT", shards, 0, found, (7,), "BTC-USDT", (("shard-1", 40),), ("an event",))
    return broken.as_fields()


def stages(cluster: ClusterInMemory) -> list[int]:
    return [cluster.processes[f"shard-{i}"].host.machine.stage for i in range(3)]


def status_of(cluster: ClusterInMemory, name: str) -> Any:
    status = admin_pb2.GetStatusResponse.FromString(cluster.reconciler.operator.status("0"))
    return next(component for component in status.components if component.name == name)


async def pass_time(cluster: ClusterInMemory, seconds: float = 5.0) -> None:
    end_s = cluster.now_s + seconds
    await cluster.until(lambda: cluster.now_s >= end_s)


async def test_a_break_is_an_alarm_with_evidence_and_holds_the_shards_involved_once(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    with capture_logs() as logs:
        cluster.processes[AUDITOR].breaks = [a_break()]
        await cluster.until(lambda: stages(cluster)[1] == CANCEL_ONLY)
        await pass_time(cluster)
    assert stages(cluster) == [OPEN, CANCEL_ONLY, OPEN]
    alarms = [log for log in logs if log["event"] == "audit.break"]
    assert len(alarms) == 1
    assert alarms[0]["log_level"] == "error"
    evidence = {name: alarms[0][name] for name in ("rule", "kind", "asset", "accounts", "expected", "found", "events")}
    expected = {"rule": "I4", "kind": "HOLD", "asset": "USDT", "accounts": [7], "expected": 0, "found": 5}
    assert evidence == {**expected, "events": ["an event"]}
    assert status_of(cluster, AUDITOR).detail.startswith("I4 HOLD shard-1 account 7 USDT BTC-USDT")
    reason = "audit: I4 HOLD shard-1 account 7 USDT BTC-USDT: expected 0, was 5"
    assert cluster.journaled("shard-1").count(SetStage(CANCEL_ONLY, 0, reason)) == 1
    notes = [command for command in cluster.journaled("supervisor") if isinstance(command, NoteBreak)]
    assert notes == [NoteBreak(a_break()["key"], ("shard-1",), reason)]
    await cluster.end()


async def test_a_shard_that_an_operator_opened_again_stays_open_whatever_is_restarted(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.processes[AUDITOR].breaks = [a_break()]
    await cluster.until(lambda: stages(cluster)[1] == CANCEL_ONLY)
    assert await cluster.by_hand(Action.RESUME, shard="shard-1") == ("", ["shard-1"])
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_ready)
    await cluster.until(lambda: cluster.reconciler.components[AUDITOR].state.name == "UP")
    cluster.processes[AUDITOR].breaks = [a_break()]
    await pass_time(cluster)
    assert stages(cluster) == [OPEN, OPEN, OPEN]
    # Another one is another alarm.
    cluster.processes[AUDITOR].breaks.append(a_break(found=6))
    await cluster.until(lambda: stages(cluster)[1] == CANCEL_ONLY)
    await cluster.end()


async def test_a_held_shard_stays_held_through_its_restart(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.processes[AUDITOR].breaks = [a_break(("shard-0", "shard-1"))]
    await cluster.until(lambda: stages(cluster) == [CANCEL_ONLY, CANCEL_ONLY, OPEN])
    await cluster.lose("shard-0")
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert stages(cluster) == [CANCEL_ONLY, CANCEL_ONLY, OPEN]
    await cluster.end()


@pytest.mark.parametrize("is_away", [True, False], ids=["away", "deaf"])
async def test_a_shard_that_cannot_be_told_is_told_as_soon_as_it_can(tmp_path: Path, is_away: bool) -> None:
    cluster = await new_cluster(tmp_path)
    if is_away:
        cluster.refused.add("shard-1")
        await cluster.lose("shard-1")
    cluster.processes["shard-1"].deaf = True
    cluster.processes[AUDITOR].breaks = [a_break(("shard-1", "shard-2"))]
    await cluster.until(lambda: "shard-1" in cluster.control.machine.held)
    await pass_time(cluster)
    cluster.refused.clear()
    cluster.processes["shard-1"].deaf = False
    await cluster.until(lambda: stages(cluster) == [OPEN, CANCEL_ONLY, CANCEL_ONLY])
    await cluster.end()


async def test_a_shard_that_is_halted_stays_halted(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await cluster.by_hand(Action.HOLD, HALTED, shard="shard-1")
    cluster.processes[AUDITOR].breaks = [a_break(("shard-1", "shard-2"))]
    await cluster.until(lambda: stages(cluster)[2] == CANCEL_ONLY)
    assert stages(cluster)[1] == HALTED
    await cluster.end()


async def test_trading_starts_and_goes_on_without_an_auditor(tmp_path: Path) -> None:
    cluster = ClusterInMemory(tmp_path, ExchangeConfig(port=0, shards=3, standbys=False))
    cluster.refused.add(AUDITOR)
    await cluster.begin()
    await pass_time(cluster)
    assert cluster.reconciler.is_ready
    assert stages(cluster) == [OPEN, OPEN, OPEN]
    assert "did not start" in status_of(cluster, AUDITOR).detail or status_of(cluster, AUDITOR).detail == "starting"
    cluster.refused.clear()
    await cluster.until(lambda: status_of(cluster, AUDITOR).state == admin_pb2.COMPONENT_STATE_UP)
    await cluster.lose(AUDITOR)
    assert cluster.reconciler.is_ready
    await cluster.until(lambda: status_of(cluster, AUDITOR).restarts == 1)
    await cluster.until(lambda: cluster.reconciler.components[AUDITOR].state.name == "UP")
    audit = asyncio.create_task(cluster.reconciler.operator.audit())
    await cluster.until(audit.done)
    assert audit.result() == b"audited"
    await cluster.end()
