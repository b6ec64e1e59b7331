"""`chaos run`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from chaos.cli.on_cluster import run_there
from chaos.cli.progress import progress_for, show_verdict
from chaos.experiment import library
from chaos.experiment.library import Source
from chaos.run.directory import default_directory
from chaos.run.ending import gravest_code
from chaos.run.record import ExitCode, Verdict
from chaos.run.session import Attachment, RunOptions, run_experiment
from chaos.run.target import check_targets

WORKERS_DEFAULT = 1


def run(
    experiments: Annotated[list[str], typer.Argument(help="Names of experiments, or files; one after the other.")],
    seed: Annotated[
        int | None, typer.Option(help="Instead of the experiment's own. The same one does the same.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the run; of several runs, where theirs are.", show_default=False)
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="PATH=VALUE laid over the file: environment.profile=naive.")
    ] = None,
    keep_history: Annotated[
        bool, typer.Option("--keep-history", help="Keep journals even if all held: they are large.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that send the load.", min=1)] = WORKERS_DEFAULT,
    attach: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT of a gateway of an exchange that runs; once for each. Without: one is started."),
    ] = None,
    operator_key_file: Annotated[
        Path | None, typer.Option(help="Where the operator's key of that exchange is.", exists=True, dir_okay=False)
    ] = None,
    i_own_this_target: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT as after --attach: this exchange is mine to harm. Needed outside this machine."),
    ] = None,
    ray: Annotated[
        str, typer.Option(help="HOST:PORT of a Ray cluster's GCS: direct from there, with an agent on each node.")
    ] = "",
    director_node: Annotated[
        str, typer.Option(help="Of that cluster, where the director sits; without, the first that no fault names.")
    ] = "",
) -> int:
    """Run experiments: each with an exchange of its own, or attached to one that runs.

    Ctrl-C takes everything back. Ends with 0 if all went as expected, else with the gravest exit code (`chaos --help`).
    """
    sources = [library.load(name, _parsed(changes or ())) for name in experiments]
    attachment = _attachment(attach, operator_key_file, i_own_this_target)
    if ray and attachment is None:
        raise typer.BadParameter("expected --attach with it: the exchange on the cluster", param_hint="--ray")
    console = Console()
    verdicts: list[Verdict] = []
    for source in sources:
        directory = _directory(out, source, several=len(sources) > 1)
        options = RunOptions(
            directory=directory,
            seed=source.experiment.seed if seed is None else seed,
            workers=workers,
            keep_history=keep_history,
            attachment=attachment,
            command=("chaos", *sys.argv[1:]),
        )
        verdicts.append(_run(console, source, options, ray, director_node))
        if verdicts[-1].exit_code in {ExitCode.ABORTED, ExitCode.ROLLBACK_FAILED}:
            # Somebody wants it to end, or to look after it first.
            break
    return int(gravest_code([ExitCode(verdict.exit_code) for verdict in verdicts]))


def _run(console: Console, source: Source, options: RunOptions, ray: str, director_node: str) -> Verdict:
    progress = progress_for(console, source.name, source.experiment)
    with progress.showing():
        if ray:
            verdict = run_there(ray, source, options, progress, director_node)
        else:
            verdict = asyncio.run(run_experiment(source, options, progress))
    show_verdict(console, verdict, str(options.directory))
    return verdict


def _directory(out: Path | None, source: Source, *, several: bool) -> Path:
    if out is None:
        return default_directory(source.name)
    return out / source.name if several else out


def _parsed(changes: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Return what is laid over an experiment: each value as YAML has it."""
    parsed = {}
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected PATH=VALUE, was {change!r}", param_hint="--set")
        try:
            parsed[path] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"expected a value as YAML has it, was {value!r}", param_hint="--set") from error
    return parsed


def _attachment(attach: list[str] | None, key_file: Path | None, owned: list[str] | None) -> Attachment | None:
    if not attach:
        return None
    check_targets(attach, owned or ())
    if key_file is None:
        raise typer.BadParameter(
            "expected the file of the operator's key with --attach", param_hint="--operator-key-file"
        )
    return Attachment(tuple(attach), key_file.read_text(encoding="utf-8").strip())
