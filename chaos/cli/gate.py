"""`chaos gate`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.gate.junit import junit_of
from chaos.gate.outcome import Outcome, Result, exit_code_of
from chaos.gate.runs import Planned, not_run, plan_of, run_all
from chaos.gate.suite import suite_of
from chaos.gate.summary import FIGURES, count_text, markdown_of
from chaos.report import words
from chaos.report.incident_report import write_incident
from chaos.report.page import write_report
from chaos.report.reading import is_run, read_run
from chaos.run.directory import check_is_new, default_directory
from chaos.run.record import REPORT_FILE, ExitCode

_STYLES = {Result.PASSED: "green", Result.FAILED: "bold red", Result.ERROR: "bold yellow"}


def gate(
    suite: Annotated[str, typer.Option(help="ci, all, incidents, or another tag (`chaos list --tags`).")] = "ci",
    seeds: Annotated[int, typer.Option(help="How many seeds of each experiment.", min=1, max=1_000)] = 1,
    junit: Annotated[Path | None, typer.Option(help="File for the outcomes as JUnit XML.", dir_okay=False)] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="File to append a summary to, such as $GITHUB_STEP_SUMMARY.", dir_okay=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the runs.", show_default=False)] = None,
) -> int:
    """Run a suite of experiments for a pipeline, one after the other, and exit with the gravest of their codes.

    A run that did not run counts as an error, never as a success.
    """
    console = Console()
    begun = datetime.now(UTC)
    planned = plan_of(suite_of(suite), seeds, out or default_directory(f"gate-{suite}"))
    for one in planned:
        check_is_new(one.directory)
    total_s = sum(one.source.experiment.duration_s for one in planned)
    console.print(f"{suite}: {len(planned)} runs, {total_s / 60:.0f} minutes of load", highlight=False)
    outcomes: list[Outcome] = []

    def tell(one: Planned) -> None:
        console.print(Text(f"{len(outcomes) + 1}/{len(planned)}  {one.name} …", style="dim"), soft_wrap=True)

    try:
        for outcome in run_all(planned, begun=tell):
            outcomes.append(outcome)
            words_of = f"{outcome.result.value}: {outcome.exit_code.name}: {outcome.summary}"
            console.print(Text(f"     {words_of}", style=_STYLES[outcome.result]), soft_wrap=True)
            _write_report(console, outcome)
    finally:
        # Also when this ends early: what was run is told, and what was not.
        outcomes += [not_run(one, "not run: the gate has failed") for one in planned[len(outcomes) :]]
        exit_code = exit_code_of(outcomes)
        if junit is not None:
            junit.parent.mkdir(parents=True, exist_ok=True)
            junit.write_bytes(junit_of(suite, outcomes, begun))
        if markdown is not None:
            markdown.parent.mkdir(parents=True, exist_ok=True)
            with markdown.open("a", encoding="utf-8") as file:
                file.write(markdown_of(suite, outcomes, exit_code))
    _show(console, outcomes, exit_code)
    return int(exit_code)


def _write_report(console: Console, outcome: Outcome) -> None:
    """Write a run's report. What is wrong with a report is no verdict on the exchange, so it is only told."""
    if not is_run(outcome.directory):
        return
    try:
        run = read_run(outcome.directory)
        write_report(run)
        write_incident(run)
    except (OSError, ValueError) as error:
        console.print(Text(f"     no report: {error}", style="yellow"), soft_wrap=True)


def _show(console: Console, outcomes: list[Outcome], exit_code: ExitCode) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("EXPERIMENT", no_wrap=True)
    table.add_column("RESULT", no_wrap=True)
    for name in FIGURES:
        table.add_column(words.figure_named(name).title.upper(), justify="right", no_wrap=True)
    table.add_column("REPORT", overflow="fold")
    for outcome in outcomes:
        figures = [words.value_text(name, outcome.figures[name]) if name in outcome.figures else "" for name in FIGURES]
        page = outcome.directory / REPORT_FILE
        table.add_row(
            f"{outcome.experiment} ({outcome.seed})",
            Text(outcome.exit_code.name, style=_STYLES[outcome.result]),
            *figures,
            str(page) if page.is_file() else "",
        )
    (console if console.is_terminal else Console(width=200)).print(table)
    style = "bold green" if exit_code is ExitCode.HELD else "bold red"
    console.print(Text(f"{count_text(outcomes)}: {exit_code.name}", style=style), soft_wrap=True)
