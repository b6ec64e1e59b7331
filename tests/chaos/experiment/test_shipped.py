"""Every experiment that is shipped can be run, says what it rehearses, and promises no less than the issue does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chaos.experiment import library
from chaos.experiment.library import Source
from chaos.experiment.model import Experiment
from chaos.run.sometimes import SOMETIMES

DOCS = Path(__file__).resolve().parents[3] / "docs" / "experiments.md"
SOURCES = [library.read(path) for path in library.shipped().values()]
NAIVE = "okx-2023-07-05-naive"
STAGED = "okx-2023-07-05"
AROUND_S = 20
"""What a run takes besides its phases, on two cores: start, stop and the check of its history."""

IGNORES_PUSHBACK = "ignores-pushback"
"""There, it is what clients do that is no business of the exchange's."""

each_one = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)


def by_name(name: str) -> Experiment:
    return next(source.experiment for source in SOURCES if source.name == name)


def comment_of(source: Source) -> str:
    lines = []
    for line in source.text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def test_all_scenarios_and_incidents_are_there() -> None:
    incidents = [source.name for source in SOURCES if source.is_incident]
    storms = [source.name for source in SOURCES if "tune" in source.experiment.tags]
    scenarios = [s for s in SOURCES if s.name not in (*incidents, *storms) or s.name in (STAGED, NAIVE)]
    assert len(scenarios) == 21
    assert len(incidents) == 11
    assert len(storms) == 2
    assert len({source.experiment.title for source in SOURCES}) == len(SOURCES)


@each_one
def test_it_says_what_it_rehearses_and_what_goes_wrong_without(source: Source) -> None:
    comment = comment_of(source)
    assert len(comment) > 300
    assert "Without" in comment or "without" in comment
    assert source.experiment.description
    assert source.experiment.tags
    if source.is_incident and source.name != NAIVE:
        assert "cted out:" in comment, "an incident says what of the original is acted out"


@each_one
def test_something_is_done_to_the_exchange_and_it_is_looked_at_afterwards(source: Source) -> None:
    experiment = source.experiment
    assert any(phase.is_trigger for phase in experiment.phases)
    assert experiment.duration_s - experiment.trigger_end_s >= 5
    assert experiment.duration_s <= 90


@each_one
def test_service_levels_are_those_that_were_promised(source: Source) -> None:
    """The issue has them: 95 % within 30 s of the end of the trouble, cancels within 250 ms; none is loosened."""
    levels = source.experiment.service_levels
    assert levels.recover_s is not None
    assert levels.recover_s <= 30
    assert levels.recovered_goodput >= 0.95
    assert levels.cancel_p99_ms_max in (None, 250)
    if source.name not in (NAIVE, IGNORES_PUSHBACK):
        assert levels.amplification_max is not None
        assert levels.amplification_max <= 1.5
    assert len(source.experiment.invariants) == 13, "every rule is checked in every experiment"


@each_one
def test_what_must_have_happened_is_something_that_can_be_seen(source: Source) -> None:
    assert set(source.experiment.sometimes) <= set(SOMETIMES)


@each_one
def test_it_deviates_only_where_the_policies_are_off(source: Source) -> None:
    experiment = source.experiment
    is_naive = experiment.environment.profile == "naive"
    assert (experiment.expect == "deviate") == is_naive == ("naive" in experiment.tags)


def test_the_naive_incident_is_the_staged_one_without_the_policies() -> None:
    def stripped(experiment: Experiment) -> Experiment:
        return msgspec.structs.replace(
            experiment,
            title="",
            description="",
            tags=(),
            expect="hold",
            sometimes=(),
            deviates_in=(),
            environment=msgspec.structs.replace(experiment.environment, profile="staged"),
            load=tuple(msgspec.structs.replace(population, retry="none") for population in experiment.load),
        )

    assert stripped(by_name(NAIVE)) == stripped(by_name(STAGED))
    assert by_name(NAIVE).duration_s + by_name(STAGED).duration_s + 2 * AROUND_S <= 240


def test_the_suite_of_the_pipeline_takes_ten_minutes_at_most() -> None:
    suite = [source for source in SOURCES if "ci" in source.experiment.tags]
    assert {STAGED, NAIVE} <= {source.name for source in suite}
    assert sum(source.experiment.duration_s + AROUND_S for source in suite) <= 600


@each_one
def test_an_incident_is_told_with_its_source_and_its_begin(source: Source) -> None:
    incident = source.experiment.incident
    if incident is None:
        assert source.path.parent.name in ("experiments", "storms")
        return
    assert source.path.parent.name == "incidents"
    assert incident.source
    assert [event.mark for event in incident.timeline].count("trigger") == 1


@each_one
def test_it_stands_in_the_documentation(source: Source) -> None:
    assert f"`{source.name}`" in DOCS.read_text(encoding="utf-8")
