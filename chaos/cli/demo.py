"""`chaos demo`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.cli.progress import progress_for, show_verdict
from chaos.demo import NAIVE, STAGED, Outcome, moral, side_by_side
from chaos.experiment import library
from chaos.report.page import write_report
from chaos.report.reading import read_run
from chaos.run.directory import default_directory
from chaos.run.ending import gravest_code
from chaos.run.record import ExitCode
from chaos.run.session import RunOptions, run_experiment

WORKERS = 1
_SCENE = """\
On 2023-07-05 a routine restart of one server took a large exchange down for 100 minutes: it came back into more load
than it could take, and everybody who got no answer asked again. Here it is in small, twice, each time with an exchange
of its own. Its capacity is {capacity} commands a second, and {load:.0%} of that is offered. Then the load doubles, and
the shard restarts.
"""


def demo(
    out: Annotated[Path | None, typer.Option(help="Directory for both runs.", show_default=False)] = None,
) -> int:
    """The outage of 2023-07-05 in small: without the policies it stays down, with them it comes back. Five minutes."""
    console = Console()
    sources = [library.load(name) for name in (NAIVE, STAGED)]
    experiment = sources[0].experiment
    capacity_per_s = experiment.environment.capacity_per_s or 1
    offered = sum(population.per_s for population in experiment.load if population.behaviour != "crowd")
    console.print(_SCENE.format(capacity=capacity_per_s, load=offered / capacity_per_s), soft_wrap=True)
    outcomes, reports = [], []
    for source, words in zip(sources, ("First with every policy off", "Now with its policies on"), strict=True):
        console.rule(f"[bold]{words}")
        directory = default_directory(source.name) if out is None else out / source.name
        options = RunOptions(
            directory=directory,
            seed=source.experiment.seed,
            workers=WORKERS,
            keep_history=False,
            attachment=None,
            command=("chaos", *sys.argv[1:]),
        )
        progress = progress_for(console, source.name, source.experiment)
        with progress.showing():
            verdict = asyncio.run(run_experiment(source, options, progress))
        show_verdict(console, verdict, str(directory))
        run = read_run(directory)
        outcomes.append(Outcome(source.experiment, verdict, run.samples, run.events))
        reports.append(write_report(run))
        if verdict.exit_code not in {ExitCode.HELD, ExitCode.BROKEN}:
            return verdict.exit_code
    table = Table("", "without the policies", "with them", title="The same restart into the same load")
    for row in side_by_side(*outcomes):
        table.add_row(*row)
    console.print()
    console.print(table)
    codes = [ExitCode(outcome.verdict.exit_code) for outcome in outcomes]
    code = gravest_code(codes)
    style = "bold green" if code is ExitCode.HELD else "bold red"
    console.print(Text(moral(*(outcome.verdict for outcome in outcomes)), style=style), soft_wrap=True)
    for report in reports:
        console.print(f"report: {report.absolute()}", soft_wrap=True)
    return int(code)
