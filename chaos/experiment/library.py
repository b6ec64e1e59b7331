"""Finds and reads experiments: those that are shipped, by name, and those in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from chaos.experiment import document
from chaos.experiment.document import DocumentInvalid, format_path
from chaos.experiment.model import Experiment
from chaos.experiment.validation import Problem, problems_of

SUFFIX = ".yaml"
SHIPPED = Path(str(resources.files("chaos") / "experiments"))
INCIDENTS = SHIPPED / "incidents"
STORMS = SHIPPED / "storms"


class ExperimentInvalid(ValueError):
    """A file is no experiment that can be run. The message has a line for each problem: where, expected, found."""

    code = "EXPERIMENT_INVALID"

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ExperimentUnknown(LookupError):
    """No experiment of that name is shipped, and there is no such file."""

    code = "EXPERIMENT_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Source:
    """An experiment, and where it was read."""

    name: str
    path: Path
    text: str
    """As it was written: its comments say what it rehearses."""
    experiment: Experiment
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What was laid over it, by path."""

    @property
    def is_incident(self) -> bool:
        return self.experiment.incident is not None

    @property
    def sha256(self) -> str:
        """Of what it says, whatever its comments and its layout are."""
        return hashlib.sha256(msgspec.json.encode(self.experiment, order="sorted")).hexdigest()


def shipped() -> dict[str, Path]:
    """Return the experiments that come with this package, by name."""
    return {path.stem: path for where in (SHIPPED, INCIDENTS, STORMS) for path in sorted(where.glob(f"*{SUFFIX}"))}


def find(name_or_file: str) -> Path:
    """Return the file of an experiment: a name without a suffix is of a shipped one. Raises `ExperimentUnknown`."""
    if name_or_file in (known := shipped()):
        return known[name_or_file]
    path = Path(name_or_file)
    if path.is_file():
        return path
    near = get_close_matches(name_or_file, known, 1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise ExperimentUnknown(
        f"expected a file or the name of an experiment, found {name_or_file!r}{hint}: `chaos list` shows them"
    )


def load(name_or_file: str, changes: Mapping[str, Any] | None = None) -> Source:
    """Find and read an experiment. Raises `ExperimentUnknown`, `ExperimentInvalid`."""
    return read(find(name_or_file), changes)


def read(path: Path, changes: Mapping[str, Any] | None = None) -> Source:
    """Read a file; `changes` are laid over it, by path ("environment.profile"). Raises `ExperimentInvalid`."""
    try:
        text = path.read_text(encoding="utf-8")
        parsed = document.parse(text)
        document.lay_over(parsed.values, changes or {})
    except (OSError, UnicodeDecodeError, DocumentInvalid) as error:
        raise ExperimentInvalid([f"{path}: {error}"]) from error
    try:
        experiment = msgspec.convert(parsed.values, Experiment)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        at = document.parse_path(where.removesuffix("`"))
        raise ExperimentInvalid([_line(path, parsed, Problem(at, what))]) from error
    problems = list(problems_of(experiment, path.parent))
    if problems:
        raise ExperimentInvalid(_line(path, parsed, problem) for problem in problems)
    return Source(path.stem, path, text, experiment, changes or {})


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an experiment's file."""
    described = msgspec.json.schema(Experiment)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Evenkeel experiment", **described}


def _line(path: Path, parsed: document.Document, problem: Problem) -> str:
    where = format_path(problem.path)
    return f"{path}:{parsed.line_of(problem.path)}: {where}{': ' if where else ''}{problem.what}"
