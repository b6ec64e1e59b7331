"""A comparison tells a difference from noise, and a regression from an improvement."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cli import execute as chaos
from chaos.report.comparison import compare, exit_code, overlaid, read_side, render_comparison
from chaos.report.reading import NotARun
from chaos.run.record import ExitCode
from tests.chaos.report.synthetic import write_run


def test_a_run_that_never_recovers_is_a_regression_and_the_other_way_round_is_none(tmp_path: Path) -> None:
    good, bad = (read_side(write_run(tmp_path / n, is_naive=naive)) for n, naive in (("good", False), ("bad", True)))
    worse = compare(good, bad)
    assert {"Goodput", "Recovered", "Attempts per request"} <= set(worse.regressions)
    assert any(line.startswith("I11: broken in 100%") for line in worse.broken)
    assert exit_code(worse, fail_on_regression=True) is ExitCode.BROKEN
    assert exit_code(worse, fail_on_regression=False) is ExitCode.HELD
    assert compare(bad, good).regressions == []


def test_what_differs_less_than_the_sets_spread_is_noise(tmp_path: Path) -> None:
    for side, seeds in (("a", (1, 2, 3)), ("b", (4, 5, 6))):
        for seed in seeds:
            write_run(tmp_path / side / f"seed-{seed}", seed=seed, with_histograms=False)
    comparison = compare(read_side(tmp_path / "a"), read_side(tmp_path / "b"), {"amplification": 0.0, "refused": 0.0})
    assert comparison.has_noise
    assert comparison.regressions == []
    refused = next(row for row in comparison.rows if row.name == "refused")
    assert refused.noise is not None
    assert refused.is_beyond_noise is False


def test_curves_are_aligned_at_the_trigger(tmp_path: Path) -> None:
    comparison = compare(read_side(write_run(tmp_path / "a")), read_side(write_run(tmp_path / "b", is_naive=True)))
    charts, time = overlaid(comparison)
    assert (time.begin_s, time.end_s) == (-10.0, 65.0)
    goodput = next(chart for chart in charts if chart.key == "both-goodput")
    down = dict(goodput.curves[0].points)
    assert down[-1 + 0.5] == pytest.approx(100.0)
    assert down[2 + 0.5] == 0.0
    assert "B is worse" in render_comparison(comparison)


def test_a_set_of_several_experiments_or_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "mixed" / "a", with_histograms=False)
    write_run(tmp_path / "mixed" / "b", is_naive=True, with_histograms=False)
    for path in (tmp_path / "empty", tmp_path / "none", tmp_path / "mixed"):
        with pytest.raises(NotARun, match="expected"):
            read_side(path)


def test_the_command_line_compares_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_run(tmp_path / "good", with_histograms=False)
    bad = write_run(tmp_path / "bad", is_naive=True, with_histograms=False)
    assert chaos(["compare", str(good), str(bad), "--html", str(tmp_path / "compare.html")]) == 0
    assert chaos(["compare", str(good), str(bad), "--fail-on-regression"]) == 1
    assert "B is worse" in capsys.readouterr().out
    assert chaos(["report", str(good), str(bad)]) == 0
    assert (good / "report.html").is_file()
    assert (bad / "incident.md").is_file()
    assert chaos(["report", str(tmp_path / "none")]) == 2
    assert "error RUN_INVALID: expected a run's directory" in capsys.readouterr().err
    assert chaos(["compare", str(good), str(bad), "--tolerance", "goodput"]) == 2
