"""`chaos report` and `chaos compare`: what runs have left, as people read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.report import words
from chaos.report.comparison import Comparison, compare, exit_code, read_side, render_comparison
from chaos.report.incident_report import write_incident
from chaos.report.page import write_report
from chaos.report.reading import read_run
from chaos.run.record import ExitCode

_STYLES = {"worse": "bold red", "better": "green"}


def report(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.")],
    previous: Annotated[
        Path | None,
        typer.Option(help="Run to lay beside it. Without: the last one of the same experiment that lies beside it."),
    ] = None,
) -> int:
    """Write report.html and incident.md into each run's directory. What is missing there is said in them."""
    before = read_run(previous) if previous else None
    console = Console(soft_wrap=True)
    for run in [read_run(directory) for directory in runs]:
        page = write_report(run, before)
        incident = write_incident(run)
        console.print(Text(f"{run.name}: {words.headline(run.verdict)}"))
        for missing in run.missing:
            console.print(Text(f"  not read: {missing}", style="yellow"))
        console.print(Text(f"  {page}\n  {incident}"))
    return int(ExitCode.HELD)


def compare_runs(
    a: Annotated[Path, typer.Argument(help="Directory of a run, or of several runs of one experiment.")],
    b: Annotated[Path, typer.Argument(help="What is compared with it.")],
    html: Annotated[Path | None, typer.Option(help="File for the comparison as a page.", dir_okay=False)] = None,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit with 1 if B is worse beyond tolerance and noise.")
    ] = False,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="FIGURE=PERCENT of A by which a figure may differ: goodput=2. Without: 10 each."),
    ] = None,
) -> int:
    """Lay two runs side by side, or two sets of runs: figures, and whether they differ beyond the noise."""
    comparison = compare(read_side(a), read_side(b), _tolerances(tolerance or ()))
    _show(Console(), comparison)
    if html is not None:
        html.write_text(render_comparison(comparison), encoding="utf-8")
        Console(soft_wrap=True).print(Text(str(html)))
    return int(exit_code(comparison, fail_on_regression=fail_on_regression))


def _tolerances(given: list[str] | tuple[()]) -> dict[str, float]:
    tolerances = {}
    for one in given:
        name, _, percent = one.partition("=")
        try:
            share = float(percent) / 100
        except ValueError:
            share = -1.0
        if not name or not 0 <= share < float("inf"):
            raise typer.BadParameter(
                f"expected FIGURE=PERCENT, such as goodput=2, was {one!r}", param_hint="--tolerance"
            )
        tolerances[name] = share
    return tolerances


def _show(console: Console, comparison: Comparison) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("FIGURE", "A", "B", "DIFFERENCE", "THAT IS"):
        table.add_column(title, justify="left" if title in {"FIGURE", "THAT IS"} else "right", no_wrap=True)
    for row in comparison.rows:
        *cells, verdict = row.texts()
        table.add_row(words.figure_named(row.name).title, *cells, Text(verdict, style=_STYLES.get(verdict, "dim")))
    (console if console.is_terminal else Console(width=160)).print(table)
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        verdicts = ", ".join(dict.fromkeys(words.headline(run.verdict) for run in side.runs))
        console.print(Text(f"{letter}: {side.name}, {len(side.runs)} run(s): {verdicts}"), soft_wrap=True)
        for missing in dict.fromkeys(missing for run in side.runs for missing in run.missing):
            console.print(Text(f"   not read: {missing}", style="yellow"), soft_wrap=True)
    if not comparison.has_noise:
        console.print(Text("One run on a side: the noise is not known.", style="yellow"), soft_wrap=True)
    regressions = comparison.regressions
    told = f"B is worse: {'; '.join(regressions)}" if regressions else "B is no worse"
    console.print(Text(told, style="bold red" if regressions else "bold green"), soft_wrap=True)
