"""The commands."""

from __future__ import annotations

import typer

from chaos.cli import library
from chaos.cli.demo import demo
from chaos.cli.gate import gate
from chaos.cli.load import load
from chaos.cli.report import compare_runs, report
from chaos.cli.run import run
from chaos.cli.tune import tune
from chaos.run.record import ExitCode

EXIT_CODES = {
    ExitCode.HELD: "as expected: it held, or deviated and was to",
    ExitCode.BROKEN: "not as expected: something that was promised is broken, or nothing deviated",
    ExitCode.INVALID: "an experiment is invalid, or the command is",
    ExitCode.NO_STEADY_STATE: "no steady state to begin with: nothing was done",
    ExitCode.NOT_INJECTED: "a fault did not take effect, so the run says nothing",
    ExitCode.ABORTED: "ended early: by an abort condition, by Ctrl-C, or as the load failed",
    ExitCode.ROLLBACK_FAILED: "something could not be taken back: look after the exchange",
}

app = typer.Typer(
    help="Experiments with an exchange: load it, break it, and see what holds.\n\n"
    "    chaos list\n\n"
    "    chaos run okx-2023-07-05\n\n"
    "An experiment starts an exchange of its own, unless it attaches to one that runs. Exit codes: "
    + "; ".join(f"{int(code)} {meaning}" for code, meaning in EXIT_CODES.items())
    + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("list")(library.list_experiments)
app.command()(library.describe)
app.command()(run)
app.command()(load)
app.command()(gate)
app.command()(report)
app.command("compare")(compare_runs)
app.command()(tune)
app.command()(library.validate)
app.command()(library.schema)
app.command()(demo)
