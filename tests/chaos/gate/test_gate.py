"""A gate lets through only what has run, and has shown what it was to show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from chaos.cli import execute as chaos
from chaos.experiment import library
from chaos.gate import runs
from chaos.gate.junit import junit_of
from chaos.gate.outcome import Outcome, Result, exit_code_of
from chaos.gate.runs import plan_of, run_all
from chaos.gate.suite import SuiteEmpty, suite_of
from chaos.gate.summary import SUMMARY_BYTES_MAX, markdown_of
from chaos.run.record import ExitCode

FAKE = Path(__file__).with_name("fake_chaos.py")
NAMES = ("okx-2023-07-05", "clock-jump", "slow-disk")
CHECK = {"name": "I1", "held": True, "wanted": "none lost", "found": "none lost", "looked_at": 9}
HELD = {"verdict": {"checks": [CHECK], "figures": {"recover_s": 3.5}}}
BROKEN = {
    "verdict": {"exit_code": 1, "summary": "broken: I1 | <b>", "checks": [CHECK | {"held": False, "found": "2 lost"}]},
    "returns": 1,
}


def outcomes_of(tmp_path: Path, told: dict[str, Any], names: tuple[str, ...] = NAMES) -> list[Outcome]:
    tmp_path.mkdir(exist_ok=True)
    script = tmp_path / "script.json"
    script.write_text(json.dumps(told), encoding="utf-8")
    planned = plan_of([library.load(name) for name in names], 1, tmp_path / "out")
    return list(run_all(planned, command=(sys.executable, str(FAKE), str(script))))


def test_a_suite_whose_runs_all_held_passes(tmp_path: Path) -> None:
    outcomes = outcomes_of(tmp_path, dict.fromkeys(NAMES, HELD))
    assert [outcome.result for outcome in outcomes] == [Result.PASSED] * 3
    assert exit_code_of(outcomes) is ExitCode.HELD
    assert outcomes[0].figures == {"recover_s": 3.5}
    assert "20230705" in outcomes[0].output
    assert (tmp_path / "out" / NAMES[0] / "output.log").is_file()


def test_a_broken_run_fails_and_one_that_says_nothing_is_graver(tmp_path: Path) -> None:
    void = {"verdict": {"exit_code": 4, "summary": "not injected"}, "returns": 4}
    broken = outcomes_of(tmp_path / "1", {NAMES[0]: HELD, NAMES[1]: BROKEN, NAMES[2]: HELD})
    assert [outcome.result for outcome in broken] == [Result.PASSED, Result.FAILED, Result.PASSED]
    assert exit_code_of(broken) is ExitCode.BROKEN
    both = outcomes_of(tmp_path / "2", {NAMES[0]: void, NAMES[1]: BROKEN, NAMES[2]: HELD})
    assert both[0].result is Result.ERROR
    assert exit_code_of(both) is ExitCode.NOT_INJECTED


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"returns": 1},
        {"returns": 77},
        {"verdict": {"exit_code": 1}},
        {"verdict": {"exit_code": 0, "checks": []}},
        {"verdict": {"exit_code": 99}, "returns": 99},
        {"verdict": {"exit_code": "0"}},
        {"verdict": {"checks": [CHECK]}, "returns": 3},
    ],
)
def test_a_run_that_does_not_tell_is_never_a_success(tmp_path: Path, told: dict[str, Any]) -> None:
    outcome = outcomes_of(tmp_path, {NAMES[0]: told}, NAMES[:1])[0]
    assert outcome.result is Result.ERROR
    assert exit_code_of([outcome]) is not ExitCode.HELD


def test_no_run_at_all_is_no_success() -> None:
    assert exit_code_of([]) is ExitCode.INVALID
    with pytest.raises(SuiteEmpty, match="expected all, incidents or a tag"):
        suite_of("no-such-tag")


def test_a_program_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    planned = plan_of([library.load(NAMES[0])], 1, tmp_path / "out")
    (outcome,) = run_all(planned, command=(sys.executable, "-c", "raise SystemExit(2)"))
    assert outcome.exit_code is ExitCode.INVALID
    assert "the process returned 2" in outcome.summary


def test_a_run_that_hangs_is_ended(tmp_path: Path) -> None:
    seconds = -library.load(NAMES[0]).experiment.duration_s
    script = tmp_path / "script.json"
    script.write_text(json.dumps({NAMES[0]: HELD | {"hangs": True}}), encoding="utf-8")
    planned = plan_of([library.load(NAMES[0])], 1, tmp_path / "out")
    (outcome,) = run_all(planned, command=(sys.executable, str(FAKE), str(script)), margin_s=seconds + 2)
    assert outcome.exit_code is ExitCode.ABORTED
    assert "gate: took more than 2 s" in outcome.output


def test_after_a_rollback_that_failed_nothing_more_is_run(tmp_path: Path) -> None:
    failed = {"verdict": {"exit_code": 6, "summary": "the link is cut"}, "returns": 6}
    outcomes = outcomes_of(tmp_path, {NAMES[0]: failed, NAMES[1]: HELD, NAMES[2]: HELD})
    assert [outcome.result for outcome in outcomes] == [Result.ERROR] * 3
    assert outcomes[1].summary.startswith("not run: what okx-2023-07-05")
    assert exit_code_of(outcomes) is ExitCode.ROLLBACK_FAILED


def test_each_seed_is_a_run_in_a_directory_of_its_own(tmp_path: Path) -> None:
    planned = plan_of([library.load("clock-jump")], 3, tmp_path)
    assert [(one.seed, one.directory.name) for one in planned] == [
        (seed, f"clock-jump-seed-{seed}") for seed in (20, 21, 22)
    ]


def test_suites_are_those_that_are_shipped() -> None:
    everything = {source.name for source in suite_of("all")}
    assert everything == set(library.shipped())
    assert {source.name for source in suite_of("incidents")} == {p.stem for p in library.INCIDENTS.glob("*.yaml")}
    assert all("ci" in source.experiment.tags for source in suite_of("ci"))


def test_junit_has_a_case_for_each_run_with_its_figures(tmp_path: Path) -> None:
    outcomes = outcomes_of(tmp_path, {NAMES[0]: HELD, NAMES[1]: BROKEN, NAMES[2]: {"returns": 4}})
    root = ET.fromstring(junit_of("ci", outcomes))
    (suite,) = root
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
        "skipped": "0",
    }
    held, broken, void = suite.findall("testcase")
    properties = {p.get("name"): p.get("value") for p in held.iter("property")}
    assert properties["recover_s"] == "3.5"
    assert properties["seed"] == "20230705"
    failure, error = broken.find("failure"), void.find("error")
    assert failure is not None
    assert failure.get("type") == "BROKEN"
    assert failure.text == "I1: expected none lost, found 2 lost"
    assert error is not None
    assert error.get("type") == "NOT_INJECTED"
    output = held.findtext("system-out") or ""
    assert "running" in output
    assert "\x1b" not in output
    assert all(next(child.tag for child in case) == "properties" for case in (held, broken, void))


def test_markdown_has_a_row_for_each_run_and_stays_within_what_a_pipeline_takes(tmp_path: Path) -> None:
    outcomes = outcomes_of(tmp_path, {NAMES[0]: HELD, NAMES[1]: BROKEN, NAMES[2]: HELD})
    text = markdown_of("ci", outcomes, exit_code_of(outcomes))
    assert "2 of 3 passed, 1 failed, 0 said nothing. Exit code 1 (BROKEN)." in text
    assert "broken: I1 \\| \\<b\\>" in text
    assert "| ✅ | okx-2023-07-05 | 20230705 | HELD | 3.5 s |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    many = markdown_of("ci", outcomes * 5_000, ExitCode.BROKEN)
    assert len(many.encode()) <= SUMMARY_BYTES_MAX
    assert "more lines: see the reports." in many


def test_the_command_writes_all_files_and_exits_with_the_gravest_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"clock-jump": HELD}), encoding="utf-8")
    monkeypatch.setattr(runs, "CHAOS", (sys.executable, str(FAKE), str(script)))
    arguments = ["gate", "--suite", "clock", "--out", str(tmp_path / "out"), "--seeds", "2"]
    files = ["--junit", str(tmp_path / "x" / "junit.xml"), "--markdown", str(tmp_path / "summary.md")]
    assert chaos([*arguments, *files]) == 0
    assert "2 of 2 passed" in capsys.readouterr().out
    assert ET.parse(tmp_path / "x" / "junit.xml").getroot().get("tests") == "2"
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").startswith("## ✅ chaos gate: clock")
    assert (tmp_path / "out" / "clock-jump-seed-20" / "report.html").is_file()
    assert chaos(["gate", "--suite", "nothing"]) == 2


def test_where_runs_are_already_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clock-jump").mkdir()
    (tmp_path / "clock-jump" / "verdict.json").write_text("{}", encoding="utf-8")
    assert chaos(["gate", "--suite", "clock", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "error OUT_NOT_EMPTY" in told.err
    assert not told.out
