"""Two runs beside each other, or two sets of runs of several seeds: what differs, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from chaos.report import svg, words
from chaos.report.account import figures_of, trigger_of
from chaos.report.page import chart_data, embedded, templates
from chaos.report.reading import NotARun, Run, is_run, read_run
from chaos.report.svg import Time
from chaos.report.timeline import Chart, Curve, draw_chart
from chaos.run.record import ExitCode, Sample

TOLERANCE_DEFAULT = 0.10
_BAD_STATES = frozenset({"broken", "void", "unfinished"})


@dataclass(frozen=True, slots=True)
class Side:
    """The runs of one side."""

    name: str
    runs: tuple[Run, ...]

    def values(self, figure: str) -> list[float]:
        return [figures[figure] for figures in map(figures_of, self.runs) if figure in figures]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure on both sides: medians, the spread of each (highest less lowest), and what the difference is."""

    name: str
    a: float | None
    b: float | None
    noise: float | None
    """The larger of both spreads; None with a single run on a side."""
    tolerance: float
    """What may differ without being told, in the figure's unit."""

    @property
    def difference(self) -> float | None:
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def is_beyond_noise(self) -> bool | None:
        """None: not known, as there is one run on a side."""
        if self.noise is None or self.difference is None:
            return None
        return abs(self.difference) > self.noise

    @property
    def is_beyond(self) -> bool:
        """Beyond the tolerance, and beyond the noise as far as it is known."""
        difference = self.difference
        return difference is not None and abs(difference) > max(self.tolerance, self.noise or 0.0)

    @property
    def is_regression(self) -> bool:
        figure = words.figure_named(self.name)
        difference = self.difference
        if difference is None:
            # What A could measure and B could not, such as a time to recover of a run that never did.
            return self.a is not None and self.name == "recover_s"
        return self.is_beyond and figure.higher_is_better is not None and (difference < 0) is figure.higher_is_better

    def texts(self) -> tuple[str, str, str, str]:
        """Return both values, the difference, and what it is called."""
        a, b = (words.value_text(self.name, value) if value is not None else "–" for value in (self.a, self.b))
        if self.difference is None:
            return a, b, "–", "worse" if self.is_regression else "only on one side"
        sign = "+" if self.difference >= 0 else "−"
        share = f" ({sign}{abs(self.difference / self.a):.0%})" if self.a else ""
        difference = f"{sign}{words.value_text(self.name, abs(self.difference))}{share}"
        verdict = ("worse" if self.is_regression else "better") if self.is_beyond else "within tolerance"
        if self.is_beyond and words.figure_named(self.name).higher_is_better is None:
            verdict = "other"
        if self.is_beyond_noise is False and abs(self.difference) > self.tolerance:
            verdict = "within noise"
        return a, b, difference, verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    a: Side
    b: Side
    rows: tuple[Row, ...]
    broken: tuple[str, ...]
    """Verdicts and checks that were well in A and are not in B, in words."""

    @property
    def regressions(self) -> list[str]:
        return [*self.broken, *(words.figure_named(row.name).title for row in self.rows if row.is_regression)]

    @property
    def has_noise(self) -> bool:
        return len(self.a.runs) > 1 and len(self.b.runs) > 1


def read_side(directory: Path) -> Side:
    """Return a run, or all runs in a directory of them. Raises `NotARun`."""
    if is_run(directory):
        return Side(directory.name, (read_run(directory),))
    if not directory.is_dir():
        raise NotARun(f"expected a run's directory or one of several runs, found no such directory: {directory}")
    runs = tuple(read_run(one) for one in sorted(directory.iterdir()) if one.is_dir() and is_run(one))
    if not runs:
        raise NotARun(f"expected a run's directory or one of several runs, found neither: {directory}")
    names = sorted({run.name for run in runs})
    if len(names) > 1:
        raise NotARun(f"expected runs of one experiment in {directory}, found those of {', '.join(names)}")
    return Side(directory.name, runs)


def compare(a: Side, b: Side, tolerances: Mapping[str, float] | None = None) -> Comparison:
    """Compare B with A. `tolerances`: the share of A by which a figure may differ, by its name."""
    names = dict.fromkeys(name for side in (a, b) for run in side.runs for name in figures_of(run))
    rows = [_row(name, a, b, (tolerances or {}).get(name, TOLERANCE_DEFAULT)) for name in names]
    return Comparison(a, b, tuple(rows), tuple(_newly_broken(a, b)))


def _row(name: str, a: Side, b: Side, tolerance: float) -> Row:
    of_a, of_b = a.values(name), b.values(name)
    noise = max(max(of_a) - min(of_a), max(of_b) - min(of_b)) if len(of_a) > 1 and len(of_b) > 1 else None
    middle = median(of_a) if of_a else None
    least = words.figure_named(name).least
    return Row(name, middle, median(of_b) if of_b else None, noise, max(tolerance * abs(middle or 0.0), least))


def _newly_broken(a: Side, b: Side) -> list[str]:
    found = []
    bad_a, bad_b = (sum(words.state_of(run.verdict) in _BAD_STATES for run in side.runs) for side in (a, b))
    if bad_b / len(b.runs) > bad_a / len(a.runs):
        codes = sorted({words.headline(run.verdict) for run in b.runs if words.state_of(run.verdict) in _BAD_STATES})
        found.append(f"verdict: {', '.join(codes)} in {bad_b} of {len(b.runs)} runs, {bad_a} of {len(a.runs)} before")
    for name in dict.fromkeys(check.name for run in b.runs if run.verdict for check in run.verdict.checks):
        shares = [_broken_share(side, name) for side in (a, b)]
        if shares[0] is not None and shares[1] is not None and shares[1] > shares[0]:
            found.append(f"{name}: broken in {shares[1]:.0%} of runs, {shares[0]:.0%} before")
    return found


def _broken_share(side: Side, name: str) -> float | None:
    held = [c.held for run in side.runs if run.verdict for c in run.verdict.checks if c.name == name]
    return held.count(False) / len(held) if held else None


def exit_code(comparison: Comparison, *, fail_on_regression: bool) -> ExitCode:
    return ExitCode.BROKEN if fail_on_regression and comparison.regressions else ExitCode.HELD


def overlaid(comparison: Comparison) -> tuple[list[Chart], Time]:
    """Return both sides' curves on one axis, whose zero is the begin of the trouble in each run."""
    sides = [
        (side, css, [(run, trigger_of(run)[0]) for run in side.runs if run.samples])
        for side, css in ((comparison.a, "side-a"), (comparison.b, "side-b"))
    ]
    shifted = [pair for _, _, runs in sides for pair in runs]
    if not shifted:
        return [], Time(0.0, 1.0)
    time = Time(min(-shift for _, shift in shifted), max(run.end_s - shift for run, shift in shifted))
    kinds: list[tuple[str, str, str, bool]] = [
        ("goodput", "Goodput", "% of what is offered", False),
        ("attempts", "Attempts", "for each request", False),
        ("delay", "p99 of delay, the slowest class", "ms, logarithmic", True),
        ("memory", "Memory of the exchange", "MB", False),
    ]
    charts = []
    for key, title, unit, is_log in kinds:
        curves = []
        for side, css, runs in sides:
            middle = _median_curve(runs, key)
            curves.append(Curve(side_label(comparison, side), css, middle))
        description = f"{comparison.a.name} and {comparison.b.name}, in s from the begin of the trouble."
        charts.append(Chart(f"both-{key}", title, unit, description, tuple(curves), 150, is_log))
    return charts, time


def side_label(comparison: Comparison, side: Side) -> str:
    letter = "A" if side is comparison.a else "B"
    return f"{letter}: {side.name}" + (f", median of {len(side.runs)}" if len(side.runs) > 1 else "")


def _median_curve(runs: Sequence[tuple[Run, float]], key: str) -> list[tuple[float, float | None]]:
    seconds: dict[int, list[float]] = {}
    for run, shift in runs:
        for sample in run.samples:
            value = _value(sample, key)
            second = round(sample.t - shift)
            seconds.setdefault(second, [])
            if value is not None:
                seconds[second].append(value)
    return [(second + 0.5, median(values) if values else None) for second, values in sorted(seconds.items())]


def _value(sample: Sample, key: str) -> float | None:
    if key == "memory":
        return sample.memory_mb or None
    if key == "delay":
        return max((delay.p99_ms for delay in sample.delays.values() if delay.count), default=None)
    if not sample.offered_per_s:
        return None
    if key == "goodput":
        return 100 * sample.goodput_per_s / sample.offered_per_s
    return sample.attempts_per_s / sample.offered_per_s


def render_comparison(comparison: Comparison) -> str:
    """Return the comparison as a page."""
    charts, time = overlaid(comparison)
    background = [lambda height: svg.moment(0.0, height, "fault-line")]
    context: dict[str, Any] = {
        "comparison": comparison,
        "sides": (("A", comparison.a), ("B", comparison.b)),
        "rows": [(words.figure_named(row.name).title, row.texts(), row) for row in comparison.rows],
        "drawn": [draw_chart(chart, time, background) for chart in charts],
        "charts_data": embedded(chart_data(charts, time.end_s, time.begin_s)),
        "headline_of": lambda run: words.headline(run.verdict),
    }
    return templates().get_template("compare.html.j2").render(context)
