"""Where a run leaves what it leaves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import yaml

from chaos.experiment import document
from chaos.experiment.library import Source
from chaos.run.record import EXPERIMENT_FILE, HISTORY, LOGS

RUNS = Path("chaos-runs")


class DirectoryNotEmpty(FileExistsError):
    """A run would be laid over what is there."""

    code = "OUT_NOT_EMPTY"


def default_directory(name: str, now: datetime | None = None) -> Path:
    """Return the directory of a run that begins now: a name that sorts by time."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    return RUNS / f"{name}-{moment}"


def check_is_new(directory: Path) -> None:
    """Raise `DirectoryNotEmpty` if a run cannot have it."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DirectoryNotEmpty(f"expected a new directory or an empty one for the run, found {directory} with files")


def make_directory(directory: Path, source: Source, seed: int) -> None:
    """Make a run's directory, with the experiment as it is run. Raises `DirectoryNotEmpty`."""
    check_is_new(directory)
    for part in (LOGS, HISTORY):
        (directory / part).mkdir(parents=True)
    (directory / EXPERIMENT_FILE).write_text(_as_run(source, seed), encoding="utf-8")


def _as_run(source: Source, seed: int) -> str:
    """Return the file as it was written if it was run so, with its comments; else what was made of it."""
    if not source.changes and seed == source.experiment.seed:
        return source.text
    values = document.parse(source.text).values
    document.lay_over(values, {**source.changes, "seed": seed})
    return f"# {source.name}, changed on the command line.\n" + yaml.safe_dump(values, sort_keys=False)
