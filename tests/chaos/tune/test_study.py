"""The search finds what is better, refuses what breaks a rule, goes on where it was, and is honest about noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from chaos.run.record import Check, ExitCode, Verdict
from chaos.tune.evaluation import Job
from chaos.tune.proposal import as_markdown, as_toml, verdict_of
from chaos.tune.score import Gain, Score, score_of, worst
from chaos.tune.space import ParameterUnknown, declared, parameters_of, settings_of
from chaos.tune.study import Plan, Result, tune
from exchange.settings import Settings
from exchange.settings_text import parse_settings

NAMES = ("queues.orders_wait_ms", "stages.cold.ramp_ms")
PARAMETERS = parameters_of(NAMES)


class FakeStorms:
    """Scores by a formula; each run takes a minute of a clock that only it moves."""

    def __init__(self, score: Callable[[Job], Score]) -> None:
        self.jobs: list[Job] = []
        self.now_s = 0.0
        self._score = score

    def run(self, jobs: Sequence[Job]) -> list[Score]:
        self.jobs += jobs
        self.now_s += 60.0 * len(jobs)
        return [self._score(job) for job in jobs]

    def clock(self) -> float:
        return self.now_s


def plan(minutes: float = 120.0) -> Plan:
    return Plan(
        parameters=PARAMETERS,
        storms=("storm",),
        seeds=(1,),
        held_out=("other", "storm"),
        held_out_seeds=(100, 101),
        budget_s=minutes * 60.0,
    )


def wait_ms(job: Job) -> float:
    return job.values.get("queues.orders_wait_ms", 250)


def shorter_is_better(job: Job) -> Score:
    return Score(1.0 + 0.3 * math.log(wait_ms(job) / 250))


def run(storms: FakeStorms, path: Path, minutes: float = 120.0) -> Result:
    return tune(plan(minutes), storms, path / "search", lambda _: None, storms.clock)


def test_what_is_better_on_the_held_out_storms_too_is_proposed(tmp_path: Path) -> None:
    result = run(FakeStorms(shorter_is_better), tmp_path)
    assert result.values["queues.orders_wait_ms"] < 150
    assert result.is_accepted
    assert result.default_score == pytest.approx(1.0)
    assert result.best_score < result.default_score
    assert max(result.sensitivity, key=lambda name: result.sensitivity[name]) == "queues.orders_wait_ms"
    assert "Take it" in verdict_of(result)


def test_what_only_chance_made_better_is_not(tmp_path: Path) -> None:
    chance = Random(3)
    result = run(FakeStorms(lambda _: Score(1.0 + chance.gauss(0.0, 0.2))), tmp_path)
    assert not result.is_accepted
    assert "Keep the defaults" in verdict_of(result)


def test_a_configuration_that_breaks_a_rule_of_safety_is_never_proposed(tmp_path: Path) -> None:
    def breaks_when_short(job: Job) -> Score:
        return Score(0.0, broken=("I1",)) if wait_ms(job) < 200 else shorter_is_better(job)

    result = run(FakeStorms(breaks_when_short), tmp_path)
    assert result.refused > 0
    assert result.values.get("queues.orders_wait_ms", 250) >= 200


def test_one_that_breaks_a_rule_on_the_held_out_storms_has_lost(tmp_path: Path) -> None:
    def breaks_later(job: Job) -> Score:
        broken = ("I1",) if job.experiment == "other" and job.values else ()
        return Score(shorter_is_better(job).value, broken)

    result = run(FakeStorms(breaks_later), tmp_path)
    assert result.values
    assert not result.is_accepted


def test_the_first_trial_is_the_defaults_and_all_see_the_same_storms(tmp_path: Path) -> None:
    storms = FakeStorms(shorter_is_better)
    run(storms, tmp_path, minutes=20.0)
    assert storms.jobs[0].values == {parameter.name: parameter.default for parameter in PARAMETERS}
    searched = [job for job in storms.jobs if job.seed == 1]
    assert {job.name for job in searched} == {"storm seed 1"}
    assert {job.seed for job in storms.jobs} == {1, 100, 101}


def test_a_search_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    first = run(FakeStorms(shorter_is_better), tmp_path, minutes=20.0)
    second = run(FakeStorms(shorter_is_better), tmp_path, minutes=20.0)
    assert second.trials > first.trials
    assert second.default_score == first.default_score


def test_the_proposal_is_a_file_that_the_exchange_takes(tmp_path: Path) -> None:
    result = run(FakeStorms(shorter_is_better), tmp_path)
    settings = parse_settings(as_toml(result))
    assert settings == settings_of(result.values) != Settings()
    report = as_markdown(result)
    assert "`queues.orders_wait_ms` | 250 |" in report
    assert "held out" in report


def test_every_parameter_lies_within_its_declared_range_and_holds_its_default() -> None:
    for parameter in declared().values():
        assert parameter.low <= parameter.default <= parameter.high, parameter
        for value in (parameter.low, parameter.high):
            assert isinstance(value, int) == parameter.is_whole


def test_a_parameter_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(ParameterUnknown, match=r"was 'queues.orders_wait'; the nearest is queues.orders_wait_ms"):
        parameters_of(["queues.orders_wait"])


def verdict(exit_code: ExitCode, checks: tuple[Check, ...] = (), **figures: float) -> Verdict:
    return Verdict(name="storm", expect="hold", exit_code=int(exit_code), summary="so", checks=checks, figures=figures)


def test_a_score_counts_goodput_cancels_delay_and_recovery() -> None:
    good = score_of(verdict(ExitCode.HELD, goodput=0.9, cancels_served=1.0, p99_ms=500.0, recover_s=5.0))
    assert good.is_allowed
    assert good.value == pytest.approx(0.1 + 0.05 + 0.05)
    never = score_of(verdict(ExitCode.BROKEN, goodput=0.1, cancels_served=0.5, p99_ms=2_000.0))
    assert never.value == pytest.approx(0.9 + 0.25 + 0.2 + 0.6)


def test_a_broken_rule_of_safety_is_told_and_a_missed_service_level_is_none() -> None:
    checks = tuple(
        Check(name=name, held=False, wanted="", found="", looked_at=1) for name in ("I2", "I11", "recover_s")
    )
    assert score_of(verdict(ExitCode.BROKEN, checks, goodput=1.0)).broken == ("I2",)


def test_a_run_that_says_nothing_is_no_good_run() -> None:
    failed = score_of(verdict(ExitCode.NOT_INJECTED))
    assert not failed.is_allowed
    assert worst([Score(0.5), failed]).value == failed.value


@pytest.mark.parametrize(
    ("candidate", "accepted"), [((0.8, 0.9, 0.7, 0.8), True), ((0.99, 1.0, 0.98, 1.0), False), ((1.2,) * 4, False)]
)
def test_a_gain_counts_only_beyond_the_noise(candidate: tuple[float, ...], accepted: bool) -> None:
    assert Gain((1.0,) * 4, candidate, noise=0.05).is_beyond_noise is accepted
