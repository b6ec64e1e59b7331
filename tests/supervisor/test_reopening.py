"""Shards reopen stage by stage under the supervisor, keep their stage without it, and are held by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exchange.config import ExchangeConfig
from exchange.engine.commands import SetStage
from exchange.engine.control import HoldStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.settings import Settings, Stages
from exchange.supervisor.stages_by_hand import Action
from exchange.v1 import admin_pb2
from tests.supervisor.cluster_in_memory import ClusterInMemory, clock_ns

STAGED = Settings(stages=Stages(capacity_per_s=1_000))
UPWARDS = ["CANCEL_ONLY", "POST_ONLY", "LIMITED at 90 orders/s", "OPEN"]
SLOW = {"delay_ms": {1: 500.0, 2: 500.0, 3: 500.0}}
BTC, ETH = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6), Instrument("ETH-USDT", "ETH", "USDT", 2, 4, 6)


async def new_cluster(directory: Path, settings: Settings = STAGED, *, standbys: bool = True) -> ClusterInMemory:
    cluster = ClusterInMemory(directory, ExchangeConfig(port=0, shards=2, standbys=standbys, settings=settings))
    await cluster.begin()
    for instrument in (BTC, ETH):
        await cluster.reconciler.operator.create_instrument(instrument, "shard-0")
    return cluster


def stage_of(cluster: ClusterInMemory, name: str = "shard-0") -> int:
    stage: int = cluster.processes[name].host.machine.stage
    return stage


def told(cluster: ClusterInMemory, name: str = "shard-0", *, kind: str = "stage") -> list[str]:
    """The details of the events of a kind, up to the first colon."""
    events = cluster.reconciler.events.after(0)
    return [e.detail.partition(":")[0] for e in events if (e.component, e.kind) == (name, kind)]


def component_of(cluster: ClusterInMemory, name: str = "shard-0") -> Any:
    status = admin_pb2.GetStatusResponse.FromString(cluster.reconciler.operator.status("0"))
    return next(component for component in status.components if component.name == name)


def stages_journaled(cluster: ClusterInMemory, name: str = "shard-0") -> list[SetStage]:
    return [command for command in cluster.journaled(name) if isinstance(command, SetStage)]


async def lose(cluster: ClusterInMemory) -> None:
    """Let the shard's process die, and wait until another one is there."""
    await cluster.lose("shard-0")
    await cluster.until(lambda: cluster.reconciler.is_ready)


async def reopened(cluster: ClusterInMemory, name: str = "shard-0") -> None:
    await cluster.until(lambda: cluster.components[name].vitals.get("stage") == Stage.OPEN)


async def test_a_shard_that_never_traded_opens_at_once(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    assert told(cluster) == ["OPEN"]
    assert cluster.reconciler.is_open
    await cluster.end()


@pytest.mark.parametrize(
    ("standbys", "least_s", "most_s"), [(True, 3.5, 4.5), (False, 12.0, 13.5)], ids=["warm", "cold"]
)
async def test_a_shard_that_was_lost_opens_stage_by_stage(
    tmp_path: Path, standbys: bool, least_s: float, most_s: float
) -> None:
    cluster = await new_cluster(tmp_path, standbys=standbys)
    await lose(cluster)
    began_s = cluster.now_s
    assert stage_of(cluster) == Stage.CANCEL_ONLY
    assert not cluster.reconciler.is_open
    await cluster.pass_time(0.2)
    seen = component_of(cluster)
    assert seen.stage_reason == ("warm: a standby took over" if standbys else "cold: started and replayed")
    assert seen.stage_time_ns <= clock_ns() < seen.next_stage_time_ns <= clock_ns() + 2_000_000_000
    await cluster.until(lambda: cluster.reconciler.is_open)
    assert least_s <= cluster.now_s - began_s <= most_s
    assert told(cluster)[1:] == UPWARDS
    rates = [command.orders_per_s for command in stages_journaled(cluster) if command.stage == Stage.LIMITED]
    assert rates[0] == 90
    assert rates == sorted(rates)
    assert rates[-1] <= 900
    # The other one traded on.
    assert told(cluster, "shard-1") == ["OPEN"]
    await cluster.end()


async def test_a_planned_handover_keeps_the_stage(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    before = stages_journaled(cluster)
    done = cluster.reconciler.lifecycle.begin_hand_over("shard-0")
    await cluster.until(done.done)
    await cluster.until(lambda: cluster.reconciler.is_complete)
    await cluster.pass_time(20)
    assert stages_journaled(cluster) == before
    await cluster.end()


async def test_a_shard_keeps_its_stage_while_the_supervisor_is_away_and_the_next_one_goes_on_from_there(
    tmp_path: Path,
) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: stage_of(cluster) == Stage.LIMITED)
    before = stages_journaled(cluster)
    await cluster.replace_supervisor()
    # Nobody has ticked since: it was adopted, and told nothing of a stage.
    assert stages_journaled(cluster) == before
    await cluster.until(lambda: cluster.reconciler.is_open)
    later = stages_journaled(cluster)[len(before) :]
    assert {Stage(command.stage).name for command in later} == {"LIMITED", "OPEN"}
    assert min(command.orders_per_s for command in later if command.stage == Stage.LIMITED) >= before[-1].orders_per_s
    assert told(cluster) == ["OPEN"]
    await cluster.end()


async def test_an_open_shard_hears_nothing_of_a_new_supervisor(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    before = stages_journaled(cluster)
    await cluster.replace_supervisor()
    await cluster.pass_time(20)
    assert stages_journaled(cluster) == before
    await cluster.end()


async def test_overload_while_it_reopens_takes_it_back_and_in_the_end_leaves_it_with_a_person(
    tmp_path: Path,
) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.processes["shard-0"].die()
    with capture_logs() as logs:
        for _ in range(3):
            await cluster.until(lambda: stage_of(cluster) == Stage.LIMITED)
            process = cluster.processes["shard-0"]
            process.load = SLOW
            await cluster.until(lambda: stage_of(cluster) != Stage.LIMITED)
            process.load = None
        await cluster.until(lambda: "shard-0" in cluster.control.machine.held)
    reason = "3 steps back within 300 s, a person must look: overloaded for 2."
    hold = cluster.control.machine.held["shard-0"]
    assert (hold.stage, hold.reason.startswith(reason)) == (Stage.CANCEL_ONLY, True)
    assert [log["log_level"] for log in logs if log["event"] == "stages.gave_up"] == ["error"]
    assert told(cluster, kind="gave_up") == ["CANCEL_ONLY"]
    # Through anything that restarts, until the person has looked.
    await cluster.replace_supervisor()
    await cluster.pass_time(5)
    await cluster.lose("shard-0")
    await cluster.until(lambda: cluster.reconciler.is_complete)
    await cluster.pass_time(60)
    assert stage_of(cluster) == Stage.CANCEL_ONLY
    assert await cluster.by_hand(Action.RESUME, shard="shard-0") == ("", ["shard-0"])
    await reopened(cluster)
    assert told(cluster)[-4:] == UPWARDS
    await cluster.end()


async def test_a_stage_that_could_not_be_told_is_told_again(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await lose(cluster)
    process = cluster.processes["shard-0"]
    process.deaf = True
    await cluster.pass_time(5)
    assert stage_of(cluster) == Stage.CANCEL_ONLY
    process.deaf = False
    await cluster.until(lambda: cluster.reconciler.is_open)
    assert told(cluster)[1:] == UPWARDS
    await cluster.end()


async def test_the_naive_profile_opens_at_once(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, Settings(profile="naive"))
    await lose(cluster)
    assert stage_of(cluster) == Stage.OPEN
    await cluster.end()


async def test_a_declared_service_time_is_the_capacity(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, Settings(service_time_us=5_000))
    cluster.processes["shard-0"].die()
    await cluster.until(lambda: stage_of(cluster) == Stage.LIMITED)
    assert stages_journaled(cluster)[-1].orders_per_s == 18
    await cluster.end()


# ---------------------------------------------------------------- by hand


async def test_an_instrument_is_halted_alone_through_restarts_and_resumed(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    assert await cluster.by_hand(Action.HOLD, Stage.HALTED, instrument="BTC-USDT", reason="news") == ("", ["BTC-USDT"])

    def halted() -> list[tuple[str, int, str]]:
        rows = cluster.processes["shard-0"].host.machine.stages.rows()
        return [(row.instrument, row.stage, row.reason) for row in rows if row.instrument]

    assert halted() == [("BTC-USDT", Stage.HALTED, "news")]
    assert HoldStage("shard-0", int(Stage.HALTED), 0, "news", "BTC-USDT") in cluster.journaled("supervisor")
    for restart in (cluster.replace_supervisor, lambda: cluster.lose("shard-0")):
        await restart()
        await cluster.until(lambda: cluster.reconciler.is_open)
        assert halted() == [("BTC-USDT", Stage.HALTED, "news")]
    await cluster.pass_time(1)
    (seen,) = component_of(cluster).instrument_stages
    assert (seen.instrument, seen.stage, seen.reason) == ("BTC-USDT", Stage.HALTED, "news")
    assert await cluster.by_hand(Action.RESUME, instrument="BTC-USDT") == ("", ["BTC-USDT"])
    await cluster.until(lambda: not halted())
    await cluster.pass_time(1)
    assert not component_of(cluster).instrument_stages
    await cluster.end()


async def test_everything_is_held_and_goes_on_from_there_in_stages(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    held = await cluster.by_hand(Action.HOLD, Stage.POST_ONLY, reason="makers first")
    assert held == ("", ["shard-0", "shard-1"])
    assert [stage_of(cluster, name) for name in held[1]] == [Stage.POST_ONLY] * 2
    assert cluster.reconciler.is_open, "it is as somebody wants it"
    await cluster.pass_time(60)
    assert [stage_of(cluster, name) for name in held[1]] == [Stage.POST_ONLY] * 2
    assert await cluster.by_hand(Action.RESUME, shard="shard-1", stage=Stage.OPEN) == ("", ["shard-1"])
    assert stage_of(cluster, "shard-1") == Stage.OPEN
    assert await cluster.by_hand(Action.RESUME) == ("", ["shard-0"])
    await reopened(cluster)
    assert told(cluster)[1:] == UPWARDS[1:]
    assert told(cluster, kind="by_hand") == ["hold POST_ONLY", "resume"]
    await cluster.end()


async def test_a_stage_is_skipped_or_all_of_them(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, standbys=False)
    await lose(cluster)
    assert await cluster.by_hand(Action.SKIP, shard="shard-0") == ("", ["shard-0"])
    assert stage_of(cluster) == Stage.POST_ONLY
    await cluster.pass_time(0.2)
    assert await cluster.by_hand(Action.SKIP, stage=Stage.OPEN) == ("", ["shard-0"])
    assert stage_of(cluster) == Stage.OPEN
    await cluster.end()


@pytest.mark.parametrize(
    ("refused", "action", "asked"),
    [
        ("REASON_MISSING", Action.HOLD, {"stage": Stage.HALTED, "reason": " "}),
        ("SHARD_UNKNOWN", Action.HOLD, {"stage": Stage.HALTED, "shard": "shard-9"}),
        ("INSTRUMENT_UNKNOWN", Action.HOLD, {"stage": Stage.HALTED, "instrument": "NO-SUCH"}),
        ("STAGE_INVALID", Action.HOLD, {"stage": Stage.HALTED, "shard": "shard-0", "instrument": "BTC-USDT"}),
        ("STAGE_INVALID", Action.HOLD, {"stage": Stage.OPEN}),
        ("STAGE_INVALID", Action.HOLD, {"stage": Stage.REPLAYING}),
        ("STAGE_INVALID", Action.HOLD, {"stage": Stage.LIMITED}),
        ("STAGE_INVALID", Action.HOLD, {"stage": Stage.HALTED, "orders_per_s": 5}),
        ("STAGE_INVALID", Action.RESUME, {"stage": Stage.POST_ONLY}),
        ("NOT_HELD", Action.RESUME, {}),
        ("NOT_HELD", Action.RESUME, {"instrument": "BTC-USDT"}),
        ("STAGE_OPEN", Action.SKIP, {}),
        ("STAGE_INVALID", Action.SKIP, {"instrument": "BTC-USDT"}),
    ],
)
async def test_nonsense_is_refused_with_a_code_and_nothing_is_done(
    tmp_path: Path, refused: str, action: Action, asked: dict[str, Any]
) -> None:
    cluster = await new_cluster(tmp_path, standbys=False)
    before = stages_journaled(cluster)
    assert await cluster.by_hand(action, **asked) == (refused, [])
    await cluster.pass_time(1)
    assert stages_journaled(cluster) == before
    assert not cluster.control.machine.held
    await cluster.end()


async def test_what_is_held_is_resumed_not_skipped(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, standbys=False)
    await cluster.by_hand(Action.HOLD, Stage.CANCEL_ONLY, shard="shard-0")
    assert await cluster.by_hand(Action.SKIP, shard="shard-0") == ("HELD", [])
    await cluster.end()


async def test_a_shard_that_hangs_keeps_nobody_from_halting_the_others(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, standbys=False)
    cluster.processes["shard-0"].stuck.add("submit")
    assert await cluster.by_hand(Action.HOLD, Stage.HALTED) == ("", ["shard-0", "shard-1"])
    assert stage_of(cluster, "shard-1") == Stage.HALTED
    cluster.processes["shard-0"].resume()
    await cluster.until(lambda: stage_of(cluster) == Stage.HALTED)
    await cluster.end()
