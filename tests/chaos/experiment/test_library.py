"""Experiments are read strictly: what is wrong is named by file, line and path, with what was expected and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from chaos.cli.library import schema_text
from chaos.experiment import library
from chaos.experiment.library import ExperimentInvalid, ExperimentUnknown
from chaos.experiment.targets import targets_of

ROOT = Path(__file__).resolve().parents[3]
MARKETS = [{"symbol": "BTC-USDT"}, {"symbol": "ETH-USDT"}]


def document() -> dict[str, Any]:
    return {
        "title": "A restart",
        "environment": {"markets": [dict(market) for market in MARKETS]},
        "load": [{"name": "clients", "behaviour": "flow", "per_s": 100}],
        "phases": [
            {"name": "steady", "duration_s": 10},
            {
                "name": "restart",
                "duration_s": 20,
                "faults": [{"fault": "pause-process", "target": "shard-0", "at_s": 1, "for_s": 2}],
            },
        ],
    }


def problems(tmp_path: Path, values: Any) -> tuple[str, ...]:
    path = tmp_path / "restart.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(ExperimentInvalid) as raised:
        library.read(path)
    assert raised.value.code == "EXPERIMENT_INVALID"
    return tuple(problem.removeprefix(f"{path}:") for problem in raised.value.problems)


def test_an_experiment_is_read_with_its_name_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "restart.yaml"
    path.write_text("# What it rehearses.\n" + yaml.safe_dump(document()))
    source = library.read(path)
    assert (source.name, source.experiment.duration_s, source.experiment.trigger_end_s) == ("restart", 30, 30)
    path.write_text(yaml.safe_dump(document(), sort_keys=False))
    assert library.read(path).sha256 == source.sha256


def put(path: str, value: Any) -> dict[str, Any]:
    """Return a document with one value changed; the path is written with dots."""
    values = document()
    at: Any = values
    *above, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    for part in above:
        at = at[part]
    at[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("titel", "x", "Object contains unknown field `titel`"),
        ("phases.1.duration_s", "long", "phases[1].duration_s: Expected `float`, got `str`"),
        ("phases.0.faults", [{"fault": "kill-process"}], "expected none in the first phase"),
        ("phases.0.load", 2.0, "phases[0].load: expected 1 in the first phase"),
        ("phases.0.load_to", 2.0, "phases[0].load_to: expected 1 in the first phase"),
        ("phases.0.is_trigger", True, "expected false for the first phase"),
        ("phases.0.duration_s", 1, "expected at least 3 s"),
        ("phases.1.name", "steady", "expected each name once, found 'steady' 2 times"),
        ("phases.1.load", {"cleints": 2}, "expected a population of the experiment (clients), was 'cleints'; the near"),
        ("phases.1.load", -1, "phases[1].load: expected 0 or more, was -1"),
        ("phases.1.faults.0.at_s", 21, "phases[1].faults[0].at_s: expected at most the phase's 20 s, was 21"),
        ("phases.1.faults.0.for_s", 20, "phases[1].faults[0].for_s: expected an end within the experiment, 20 s after"),
        (
            "phases.1.faults.0.fault",
            "kill-process",
            "phases[1].faults[0].for_s: expected 0, as kill-process is not taken",
        ),
        ("phases.1.faults.0.fault", "pause", "expected a fault of the catalogue, was 'pause'; the nearest is pause-"),
        ("phases.1.faults.0.arguments", {"x": 1}, "phases[1].faults[0].arguments: Object contains unknown field `x`"),
        ("phases.1.faults.0.target", "shard-7", "expected something that the experiment has, was 'shard-7'; the near"),
        ("environment.nodes", 3, "environment.journal: expected `nats` with 3 nodes"),
        ("environment.markets.1.shard", 1, "environment.markets[1].shard: expected a shard from 0 to 0, was 1"),
        ("environment.markets", [], "environment.markets: expected at least one"),
        ("environment.settings", {"stages": {"wram": 1}}, "environment.settings: stages.wram: no such setting"),
        ("environment.links", "apart", "expected several nodes"),
        ("load.0.markets", ["XRP-USDT"], "load[0].markets[0]: expected a market of the experiment"),
        ("load.0.behaviour", "replay", "load[0].recording: expected the file that is replayed"),
        ("load.0.recording", "flow.csv", "load[0].recording: expected none, as only `replay` sends one"),
        ("blast_radius", {"markets": ["XRP-USDT"]}, "blast_radius.markets[0]: expected a market"),
        ("deviates_in", ["I8"], "deviates_in: expected none with `expect: hold`, was I8"),
        ("sometimes", ["shed", "shed"], "sometimes: expected each name once"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(path: str, value: Any, problem: str, tmp_path: Path) -> None:
    (found, *_) = problems(tmp_path, put(path, value))
    line, _, text = found.partition(": ")
    assert line.isdecimal()
    assert problem in text


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    values = put("environment.nodes", 3)
    values["blast_radius"] = {"markets": ["XRP-USDT"]}
    assert len(problems(tmp_path, values)) == 3


def test_a_recording_that_is_missing_is_named(tmp_path: Path) -> None:
    values = put("load.0.behaviour", "replay")
    values["load"][0]["recording"] = "flow.csv"
    (problem,) = problems(tmp_path, values)
    assert problem.endswith(f"load[0].recording: expected a file, found none at {tmp_path / 'flow.csv'}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("title: a\ntitle: b\n", "line 2: expected each key once, found 'title' again"),
        ("a: &x [1]\nb: *x\n", "line 2: expected a value, found the alias *x"),
        ("[1, 2\n", "line 2: expected ',' or ']', but got '<stream end>'"),
        ("", "expected an experiment, found an empty document"),
        ("x" * 300_000, "expected at most 262,144 bytes, found 300,000"),
        ("- 1\n", "Expected `object`, got `array`"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
        ("? [a]\n: 1\n", "expected a name as key"),
    ],
)
def test_what_is_no_document_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (found,) = problems(tmp_path, text)
    assert problem in found


def test_changes_are_laid_over_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "restart.yaml"
    path.write_text(yaml.safe_dump(document()))
    changes = {"environment.profile": "naive", "phases[1].duration_s": 60, "service_levels.recover_s": 9}
    experiment = library.read(path, changes).experiment
    assert experiment.environment.profile == "naive"
    assert experiment.phases[1].duration_s == 60
    assert experiment.service_levels.recover_s == 9
    with pytest.raises(ExperimentInvalid, match="expected the path of a value"):
        library.read(path, {"phases[7].duration_s": 60})
    with pytest.raises(ExperimentInvalid, match="unknown field"):
        library.read(path, {"environment.node": 60})


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentUnknown, match="expected a file or the name of an experiment, found 'none'"):
        library.find("none")


def test_the_status_service_is_a_target_where_there_is_one() -> None:
    experiment = library.load("okx-2023-07-05").experiment
    assert "status" in targets_of(experiment)
    environment = msgspec.structs.replace(experiment.environment, status_page=False)
    assert "status" not in targets_of(msgspec.structs.replace(experiment, environment=environment))


def test_every_shipped_experiment_is_valid() -> None:
    for path in library.shipped().values():
        library.read(path)


def test_the_published_schema_is_that_of_the_code() -> None:
    written = (ROOT / "docs" / "experiment.schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "write it anew: chaos schema > docs/experiment.schema.json"
