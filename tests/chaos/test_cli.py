"""`chaos …` on the command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chaos.cli import execute
from chaos.run.record import ExitCode

VALID = """
# A comment
# of two lines.
title: A restart
environment: {shards: 1}
load: [{name: clients, behaviour: flow, per_s: 100}]
phases: [{name: steady, duration_s: 10}, {name: after, duration_s: 10}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "restart.yaml"
    path.write_text(VALID.lstrip())
    return path


def test_valid_and_invalid_experiments_are_told_apart(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: valid, 20 s\n"
    file.write_text(VALID.lstrip().replace("shards: 1", "shards: none"))
    assert execute(["validate", str(file)]) == ExitCode.INVALID
    assert capsys.readouterr().err == (
        f"error EXPERIMENT_INVALID: {file}:4: environment.shards: Expected `int`, got `str`\n"
    )


def test_an_invalid_experiment_is_not_run(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(VALID.replace("duration_s: 10}]", "duration_s: 10, load: {nobody: 2}}]"))
    assert execute(["run", str(file), "--out", str(tmp_path / "out")]) == ExitCode.INVALID
    assert "expected a population of the experiment" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_experiment_is_described_with_its_comment(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["describe", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "restart: A restart" in printed
    assert "  of two lines." in printed
    assert execute(["describe", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "A restart"


def test_the_shipped_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["okx-2023-07-05-naive"]["expect"] == "deviate"
    assert execute(["list", "--tags"]) == 0
    assert "incident" in capsys.readouterr().out
    assert execute(["list", "--faults"]) == 0
    assert "pause-process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "nothing-like-it"], ExitCode.INVALID, "error EXPERIMENT_UNKNOWN"),
        (["run", "okx-2023-07-06"], ExitCode.INVALID, "the nearest is okx-2023-07-05"),
        (["run", "okx-2023-07-05", "--attach", "10.0.0.7:7700"], ExitCode.INVALID, "error TARGET_REFUSED"),
        (["run", "okx-2023-07-05", "--set", "seed"], ExitCode.INVALID, "usage: Invalid value for --set"),
        (["run", "okx-2023-07-05", "--set", "nodes=1"], ExitCode.INVALID, "unknown field `nodes`"),
        (["run", "okx-2023-07-05", "--attach", "127.0.0.1:7700"], ExitCode.INVALID, "operator's key"),
    ],
)
def test_what_cannot_be_run_has_its_code_and_its_exit_code(
    arguments: list[str], code: ExitCode, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == code
    assert told in capsys.readouterr().err


def test_a_run_is_not_laid_over_another_one(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "verdict.json").write_text("{}")
    assert execute(["run", str(file), "--out", str(tmp_path / "out")]) == ExitCode.INVALID
    assert "error OUT_NOT_EMPTY" in capsys.readouterr().err


def test_a_target_where_nobody_answers_is_no_steady_state(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    out = tmp_path / "out"
    arguments = ["run", str(file), "--out", str(out), "--attach", "127.0.0.1:1", "--operator-key-file", str(key)]
    assert execute(arguments) == ExitCode.NO_STEADY_STATE
    assert "expected an exchange at 127.0.0.1:1, found none to use" in capsys.readouterr().out
    assert json.loads((out / "verdict.json").read_text())["exit_code"] == ExitCode.NO_STEADY_STATE


def test_faults_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["list", "--faults", "--json"]) == 0
    rows = {row["fault"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["cut-nats"]["needs"] == "root"
    assert execute(["describe", "latency"]) == 0
    assert "argument    latency_ms (number, >= 0, <= 60000)" in capsys.readouterr().out
    assert execute(["describe", "latency", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"]["required"] == ["latency_ms"]


def test_a_fault_that_needs_root_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert execute(["run", "partition-supervisor", "--out", str(tmp_path / "out")]) == ExitCode.NOT_INJECTED
    assert capsys.readouterr().err.startswith("error FAULT_NOT_INJECTED: cut-peers: expected to be root")
    assert not (tmp_path / "out").exists()
