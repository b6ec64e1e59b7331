"""A director: whatever happens, everything is taken back, the run ends with its own exit code, and all is on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from chaos.run.director import LEAD_S, Director
from chaos.run.parts import Judgement
from chaos.run.record import Check, ExitCode, Manifest, Sample, read_lines
from tests.chaos.run.fakes import EXPERIMENT, START_S, Rig, conduct

ENDED = ["finish load", "stop exchange", "stop"]
I11_BROKEN = Check(name="I11", held=False, wanted="goodput again within 30 s", found="never", looked_at=60)
I1_BROKEN = Check(name="I1", held=False, wanted="nothing lost", found="1 order lost", looked_at=60)
DEVIATE = msgspec.structs.replace(EXPERIMENT, expect="deviate")


def test_an_experiment_is_done_by_time_and_taken_back_in_reverse_order(tmp_path: Path) -> None:
    ran = conduct(Rig(), tmp_path)
    assert ran.verdict.exit_code == ExitCode.HELD
    assert ran.done == [
        *("start", "start load"),
        *("inject slow-disk", "inject latency", "roll back slow-disk", "roll back latency"),
        *("finish load", "stop exchange", "judge", "stop"),
    ]
    by_time = [(event.t, event.kind, event.name, event.what) for event in ran.events if event.kind != "note"]
    assert by_time[:9] == [
        (-LEAD_S, "stage", "shard-0", "OPEN"),
        (0.0, "phase", "steady", "begun"),
        (10.0, "check", "steady_state", "held"),
        (10.0, "phase", "trouble", "begun"),
        (12.0, "fault", "slow-disk", "injected"),
        (12.0, "proof", "slow-disk", "took effect"),
        (14.0, "fault", "latency", "injected"),
        (14.0, "proof", "latency", "took effect"),
        (17.0, "rollback", "slow-disk", "taken back"),
    ]
    samples = list(read_lines(tmp_path / "samples.jsonl", Sample))
    assert [sample.t for sample in samples] == list(range(len(samples)))
    assert len(samples) >= 38
    assert samples[5].stages == {"shard-0": "OPEN"}
    assert samples[5].memory_mb == 300.0
    assert msgspec.json.decode((tmp_path / "manifest.json").read_bytes(), type=Manifest).schedule_sha256 == "5" * 64


def test_without_a_steady_state_nothing_is_done(tmp_path: Path) -> None:
    ran = conduct(Rig(goodput=lambda _: 0.5), tmp_path)
    assert ran.verdict.exit_code == ExitCode.NO_STEADY_STATE
    assert "found goodput 50.0%" in ran.verdict.summary
    assert ran.done == ["start", "start load", *ENDED]


def test_an_exchange_that_does_not_start_is_no_steady_state(tmp_path: Path) -> None:
    ran = conduct(Rig(failing_start="no ports"), tmp_path)
    assert ran.verdict.exit_code == ExitCode.NO_STEADY_STATE
    assert ran.verdict.summary == "nothing to begin with: no ports"
    assert ran.done == ["start", *ENDED]


def test_a_fault_without_effect_ends_the_run_and_is_taken_back(tmp_path: Path) -> None:
    ran = conduct(Rig(without_effect=["latency"]), tmp_path)
    assert ran.verdict.exit_code == ExitCode.NOT_INJECTED
    assert ran.verdict.summary == "latency ledger did not take effect: expected a delay of 200 ms, found 0 ms"
    assert ran.done[-5:] == ["roll back latency", "roll back slow-disk", *ENDED]


def test_a_fault_that_is_never_injected_is_cut_short_and_taken_back(tmp_path: Path) -> None:
    ran = conduct(Rig(never_injected=["slow-disk"]), tmp_path)
    assert ran.verdict.exit_code == ExitCode.NOT_INJECTED
    assert "nothing showed within 120 s" in ran.verdict.summary
    assert {"roll back latency", "roll back slow-disk"} <= set(ran.done)


def test_a_rollback_that_fails_is_tried_again_and_then_told_before_all_else(tmp_path: Path) -> None:
    ran = conduct(Rig(stuck=["slow-disk"], without_effect=["latency"]), tmp_path)
    assert ran.verdict.exit_code == ExitCode.ROLLBACK_FAILED
    assert ran.verdict.summary == "slow-disk shard-0 could not be taken back: it would not let go"
    assert ran.done.count("roll back slow-disk") == 2
    assert ran.done[-3:] == ENDED


@pytest.mark.parametrize(
    ("rig", "why"),
    [
        (Rig(memory_mb=9_000.0), "expected at most 8000 MB"),
        (Rig(disk_free_mb=100.0), "expected at least 500 MB"),
        (Rig(worker_dies_at_s=15), "load worker 1 ended with -9"),
        (Rig(failing_begin="load worker 1 is gone"), "load worker 1 is gone"),
    ],
)
def test_a_run_that_must_not_go_on_is_aborted(rig: Rig, why: str, tmp_path: Path) -> None:
    ran = conduct(rig, tmp_path)
    assert ran.verdict.exit_code == ExitCode.ABORTED
    assert why in ran.verdict.summary
    assert ran.done[-3:] == ENDED
    assert ran.done.count("inject slow-disk") == ran.done.count("roll back slow-disk")


@pytest.mark.parametrize(
    ("at_s", "injected"),
    [
        (START_S / 2, []),
        (START_S + LEAD_S / 2, []),
        (START_S + LEAD_S + 5, []),
        (START_S + LEAD_S + 13, ["slow-disk"]),
        (START_S + LEAD_S + 15, ["slow-disk", "latency"]),
        (START_S + LEAD_S + 35, ["slow-disk", "latency"]),
        (START_S + LEAD_S + 45, ["slow-disk", "latency"]),
    ],
    ids=["starting", "about to begin", "steady", "one fault", "two faults", "after", "judging"],
)
def test_an_interrupt_takes_everything_back_whenever_it_comes(at_s: float, injected: list[str], tmp_path: Path) -> None:
    async def interrupt(director: Director) -> None:
        await asyncio.sleep(at_s)
        director.interrupt()
        await asyncio.sleep(0.1)
        director.interrupt()

    ran = conduct(Rig(judging_s=20.0), tmp_path, meanwhile=interrupt)
    assert ran.verdict.exit_code == ExitCode.ABORTED
    assert ran.verdict.summary == "interrupted"
    assert [done for done in ran.done if done.startswith("inject")] == [f"inject {name}" for name in injected]
    assert {f"roll back {name}" for name in injected} == {done for done in ran.done if done.startswith("roll")}
    assert ran.done[-1] == "stop"
    assert "judge" not in ran.done


def test_a_cancelled_director_takes_everything_back_as_well(tmp_path: Path) -> None:
    async def cancel(_: Director) -> None:
        await asyncio.sleep(START_S + LEAD_S + 15)
        (running,) = [task for task in asyncio.all_tasks() if "Director.run" in repr(task.get_coro())]
        running.cancel()
        await asyncio.sleep(0.0)
        running.cancel()

    ran = conduct(Rig(), tmp_path, meanwhile=cancel)
    assert ran.verdict.exit_code == ExitCode.ABORTED
    assert ran.done[-5:] == ["roll back latency", "roll back slow-disk", *ENDED]


def test_what_is_broken_is_told_with_what_was_found(tmp_path: Path) -> None:
    ran = conduct(Rig(judgement=Judgement([I1_BROKEN, I11_BROKEN])), tmp_path)
    assert ran.verdict.exit_code == ExitCode.BROKEN
    assert ran.verdict.summary == "broken: I1 (1 order lost), I11 (never)"


def test_a_rule_that_is_seen_broken_meanwhile_counts_once(tmp_path: Path) -> None:
    ran = conduct(Rig(broken_rules=[I1_BROKEN], judgement=Judgement([I1_BROKEN])), tmp_path)
    assert ran.verdict.exit_code == ExitCode.BROKEN
    assert [check.name for check in ran.verdict.checks] == ["I1", "steady_state"]
    assert ran.says("check", "broken")[0].t == 1.0


def test_a_deviation_that_is_expected_is_what_was_to_be_shown(tmp_path: Path) -> None:
    ran = conduct(Rig(judgement=Judgement([I11_BROKEN])), tmp_path, DEVIATE)
    assert ran.verdict.exit_code == ExitCode.HELD
    assert ran.verdict.summary == "deviated, as expected: I11 (never)"


@pytest.mark.parametrize(
    ("rig", "exit_code"),
    [
        (Rig(judgement=Judgement()), ExitCode.BROKEN),
        (Rig(judgement=Judgement([I11_BROKEN, I1_BROKEN])), ExitCode.BROKEN),
        (Rig(judgement=Judgement([I11_BROKEN]), without_effect=["latency"]), ExitCode.NOT_INJECTED),
        (Rig(judgement=Judgement([I11_BROKEN]), memory_mb=9_000.0), ExitCode.ABORTED),
        (Rig(goodput=lambda _: 0.1), ExitCode.NO_STEADY_STATE),
    ],
    ids=["held", "lost an order", "fault without effect", "aborted", "no steady state"],
)
def test_what_says_nothing_never_counts_as_a_deviation(rig: Rig, exit_code: ExitCode, tmp_path: Path) -> None:
    assert conduct(rig, tmp_path, DEVIATE).verdict.exit_code == exit_code
