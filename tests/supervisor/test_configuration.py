"""Settings are rolled out over a cluster in memory, and taken back, through the deaths of processes and supervisors."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.config import ExchangeConfig
from exchange.engine.control import NoteMaintenance
from exchange.engine.settings_history import RolloutState, SettingsVersion
from exchange.settings import Settings, SettingsInvalid
from exchange.settings_text import format_settings, parse_settings
from exchange.supervisor.configuration import Configuration, SettingsRefused
from exchange.supervisor.maintenance_plan import State
from tests import virtual_time
from tests.supervisor.cluster_in_memory import ClusterInMemory

FIRST = parse_settings("[rollout]\nwatch_ms = 2_000")
NEW = "[rollout]\nwatch_ms = 2_000\n[detection]\nsuspect_after_ms = 400"
"""What concerns every process."""
GATEWAYS_ONLY = "[rollout]\nwatch_ms = 2_000\n[codel]\ntarget_ms = 20"


async def new_cluster(directory: Path, *, standbys: bool = True) -> ClusterInMemory:
    config = ExchangeConfig(port=0, shards=2, gateways=2, standbys=standbys, settings=FIRST)
    cluster = ClusterInMemory(directory, config, nodes=2)
    await cluster.begin()
    await settle(cluster)
    return cluster


def configuration(cluster: ClusterInMemory) -> Configuration:
    return cluster.reconciler.configuration


def newest(cluster: ClusterInMemory) -> SettingsVersion:
    history = cluster.reconciler.machine.settings
    return history.versions[history.newest]


def who_has(cluster: ClusterInMemory, new: Settings) -> set[str]:
    return {c.name for c in cluster.components.values() if c.process and cluster.processes[c.name].settings == new}


def told(cluster: ClusterInMemory) -> list[str]:
    return [event.detail for event in cluster.reconciler.events.after(0) if event.kind == "rollout"]


async def ended(cluster: ClusterInMemory) -> SettingsVersion:
    await cluster.until(lambda: newest(cluster).state != RolloutState.ROLLING)
    return newest(cluster)


async def settle(cluster: ClusterInMemory) -> None:
    """Let everybody be up and have heard what holds."""
    reconciler = cluster.reconciler

    def is_settled() -> bool:
        parts = [c for c in cluster.components.values() if c.name != "auditor"]
        settings = reconciler.settings
        return reconciler.is_complete and all(cluster.processes[c.name].settings == settings for c in parts)

    await cluster.until(is_settled)


async def test_a_rollout_goes_from_one_process_to_half_to_all_and_every_process_has_it_then(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    seen = []
    await configuration(cluster).apply(NEW, "k1", "a test")
    new = parse_settings(NEW)
    while newest(cluster).state == RolloutState.ROLLING:
        await cluster.pass_time(0.05)
        seen.append(who_has(cluster, new))
    firsts = {"gateway-0"}
    halves = firsts | {"shard-0", "shard-0-standby", "gateway-1"}
    everybody = {c.name for c in cluster.components.values()} - {"auditor"}
    assert [names for names in (firsts, halves, everybody) if names in seen] == [firsts, halves, everybody]
    assert newest(cluster).state == RolloutState.APPLIED
    assert cluster.reconciler.settings == new
    assert told(cluster) == [
        "version 2 by k1: a test: detection.suspect_after_ms 500 → 400",
        "version 2: step 1/3, to gateway-0",
        "version 2: step 2/3, to shard-0, gateway-1",
        "version 2: step 3/3, to shard-1, ledger",
        "version 2 applied",
    ]
    await cluster.end()


def harm_slow(cluster: ClusterInMemory, name: str) -> None:
    cluster.processes[name].more_vitals = {"load": {"links": {"shard-0": {"delay_ms": {3: 900.0}}}}}


def harm_refusing(cluster: ClusterInMemory, name: str) -> None:
    process = cluster.processes[name]

    async def refuse() -> None:
        for count in range(1, 1_000):
            process.more_vitals = {"load": {"commands": 10 * count, "rate_limited": 5 * count}}
            await asyncio.sleep(0.05)

    process.task = asyncio.create_task(refuse())


def harm_lost(cluster: ClusterInMemory, name: str) -> None:
    cluster.processes[name].die()


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("harm", [harm_slow, harm_refusing, harm_lost])
async def test_a_breach_takes_it_back_by_itself_and_everybody_has_the_old_settings_again(
    tmp_path: Path, harm: Any, step: int
) -> None:
    cluster = await new_cluster(tmp_path)
    await configuration(cluster).apply(GATEWAYS_ONLY, "k1", "a test")
    await cluster.until(lambda: newest(cluster).step == step)
    harm(cluster, "gateway-0")
    version = await ended(cluster)
    assert version.state == RolloutState.REVERTED
    assert told(cluster)[-1] == f"version 2 taken back: {version.detail}"
    assert {"slow": "p99", "refusing": "refused", "lost": "gateway-0 lost"}[harm.__name__[5:]] in version.detail
    await settle(cluster)
    assert cluster.reconciler.settings == FIRST
    await cluster.end()


async def test_a_detection_that_is_too_quick_is_taken_back_from_the_one_that_it_lost(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path, standbys=False)
    detection = "[detection]\nsuspect_after_ms = 50\ndead_after_ms = 100\ndead_alone_after_ms = 100"
    toml = f"[rollout]\nwatch_ms = 2_000\n{detection}"
    process = cluster.processes["gateway-0"]
    await configuration(cluster).apply(toml, "k1", "a test")
    process.hang()
    await cluster.pass_time(0.3)
    process.resume()
    version = await ended(cluster)
    assert (version.state, version.detail.partition(" ")[0]) == (RolloutState.REVERTED, "gateway-0")
    await settle(cluster)
    # With the old settings it may be as slow.
    losses = cluster.components["gateway-0"].losses
    cluster.processes["gateway-0"].hang()
    await cluster.pass_time(0.3)
    cluster.processes["gateway-0"].resume()
    await cluster.pass_time(1.0)
    assert cluster.components["gateway-0"].losses == losses
    await cluster.end()


async def test_a_process_whose_answer_was_lost_gets_the_old_settings_back_too(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    process = cluster.processes["gateway-0"]
    process.loses_answers = True
    await configuration(cluster).apply(NEW, "k1", "a test")
    await cluster.until(lambda: process.settings == parse_settings(NEW))
    await configuration(cluster).revert(0, "k1", "it does not answer")
    process.loses_answers = False
    await settle(cluster)
    assert process.settings == FIRST
    await cluster.end()


async def test_the_next_supervisor_takes_back_what_the_last_one_left_under_way(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await configuration(cluster).apply(NEW, "k1", "a test")
    await cluster.until(lambda: newest(cluster).step == 1 and len(who_has(cluster, parse_settings(NEW))) == 4)
    await cluster.replace_supervisor()
    assert newest(cluster).state == RolloutState.REVERTED
    assert told(cluster) == ["version 2 taken back: the supervisor was replaced while it was watched"]
    await settle(cluster)
    assert who_has(cluster, parse_settings(NEW)) == set()
    await cluster.end()


async def test_processes_keep_their_settings_while_there_is_no_supervisor(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await configuration(cluster).apply(NEW, "k1", "a test")
    await ended(cluster)
    await settle(cluster)
    new = parse_settings(NEW)
    before = who_has(cluster, new)
    # Nobody ticks.
    await asyncio.sleep(30)
    assert who_has(cluster, new) == before
    await cluster.replace_supervisor()
    await settle(cluster)
    assert cluster.reconciler.settings == new
    await cluster.end()


def is_replaced(cluster: ClusterInMemory, name: str, old: Any) -> bool:
    return cluster.processes[name] is not old


async def test_a_process_that_starts_begins_with_what_holds_for_it(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    new = parse_settings(GATEWAYS_ONLY)
    await configuration(cluster).apply(GATEWAYS_ONLY, "k1", "a test")
    await ended(cluster)
    await settle(cluster)
    for name in ("gateway-1", "shard-0", "shard-1-standby"):
        old = cluster.processes[name]
        old.die()
        await cluster.until(partial(is_replaced, cluster, name, old))
    await settle(cluster)
    fresh = [
        p for p in cluster.launched.values() if p.alive and "apply_settings" not in p.calls and p.name != "auditor"
    ]
    assert {p.name for p in fresh} >= {"gateway-1", "shard-1-standby"}
    assert {p.settings == new for p in fresh} == {True}
    await cluster.end()


async def test_a_standby_takes_its_version_along_when_it_takes_over(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    standby = cluster.processes["shard-0-standby"]
    await cluster.lose("shard-0")
    await settle(cluster)
    assert cluster.processes["shard-0"] is standby
    assert "apply_settings" not in standby.calls
    await cluster.end()


async def refused(cluster: ClusterInMemory, toml: str) -> str:
    with pytest.raises(SettingsRefused) as caught:
        await configuration(cluster).apply(toml, "k1", "a test")
    return caught.value.code


async def test_what_cannot_be_rolled_out_now_is_refused(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    with pytest.raises(SettingsInvalid):
        await configuration(cluster).apply("[codel]\ntarget_ms = 0", "k1", "a test")
    assert await refused(cluster, format_settings(FIRST)) == "SETTINGS_UNCHANGED"
    running = NoteMaintenance(1, "", "", int(State.RUNNING), (), 1)
    await cluster.reconciler.commands.decide(running)
    assert await refused(cluster, NEW) == "MAINTENANCE_UNDER_WAY"
    await cluster.reconciler.commands.decide(running._replace(state=int(State.DONE)))
    await configuration(cluster).apply(NEW, "k1", "a test")
    assert await refused(cluster, GATEWAYS_ONLY) == "ROLLOUT_UNDER_WAY"
    assert newest(cluster).version == 2
    await ended(cluster)
    await cluster.end()


async def test_what_concerns_the_supervisor_alone_or_is_forced_holds_at_once(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    version = await configuration(cluster).apply("[rollout]\nwatch_ms = 3_000", "k1", "a test")
    assert version.state == RolloutState.APPLIED
    version = await configuration(cluster).apply(NEW, "k1", "an outage", force=True)
    assert version.state == RolloutState.APPLIED
    assert told(cluster)[-1] == "version 3 holds at once, as forced"
    await settle(cluster)
    await cluster.end()


async def test_a_start_with_other_settings_than_those_that_hold_says_that_it_does_not_change_them(
    tmp_path: Path,
) -> None:
    cluster = await new_cluster(tmp_path)
    cluster.config = replace(cluster.config, settings=parse_settings(NEW))
    await cluster.replace_supervisor()
    assert cluster.reconciler.settings == FIRST
    (said,) = told(cluster)
    assert said == "version 1 holds, and not what this start was given: `exchange config apply` changes it"
    await cluster.end()


async def test_an_operator_takes_back_what_is_under_way_and_goes_back_to_what_held(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    with pytest.raises(SettingsRefused, match="expected a version that held before 1"):
        await configuration(cluster).revert(0, "k1", "a test")
    await configuration(cluster).apply(NEW, "k1", "a test")
    await cluster.pass_time(1.0)
    version = await configuration(cluster).revert(0, "k2", "a mistake")
    assert (version.version, version.state, version.detail) == (2, RolloutState.REVERTED, "by k2: a mistake")
    await configuration(cluster).apply(GATEWAYS_ONLY, "k1", "a test")
    await ended(cluster)
    # Version 2 never held.
    version = await configuration(cluster).revert(0, "k2", "slower")
    assert (version.version, version.reason) == (4, "back to version 1: slower")
    await ended(cluster)
    await settle(cluster)
    assert cluster.reconciler.settings == FIRST
    with pytest.raises(SettingsRefused) as caught:
        await configuration(cluster).revert(99, "k2", "a test")
    assert caught.value.code == "VERSION_UNKNOWN"
    await cluster.end()


WHAT = st.sampled_from(["apply", "apply gateways", "revert", "supervisor", "lose gateway-0", "lose shard-0", "wait"])


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happenings=st.lists(st.tuples(WHAT, st.floats(0.0, 4.0)), min_size=1, max_size=8))
def test_whatever_is_interleaved_everybody_ends_with_the_version_that_holds(
    tmp_path_factory: pytest.TempPathFactory, happenings: list[tuple[str, float]]
) -> None:
    async def happen() -> None:
        cluster = await new_cluster(tmp_path_factory.mktemp("cluster"))
        for what, seconds in happenings:
            first, _, name = what.partition(" ")
            try:
                if first == "apply":
                    await configuration(cluster).apply(GATEWAYS_ONLY if name else NEW, "k1", "a test")
                elif first == "revert":
                    await configuration(cluster).revert(0, "k1", "a test")
            except SettingsRefused:
                pass
            if first == "supervisor":
                await cluster.replace_supervisor()
            elif first == "lose":
                cluster.processes[name].die()
            await cluster.pass_time(seconds)
            history = cluster.reconciler.machine.settings
            rolling = [v.version for v in history.versions.values() if v.state == RolloutState.ROLLING]
            assert rolling == [history.rolling] * bool(history.rolling)
        await ended(cluster)
        await settle(cluster)
        history = cluster.reconciler.machine.settings
        assert history.versions[history.applied].state == RolloutState.APPLIED
        await cluster.end()

    virtual_time.run(happen())
