"""What became of each run of a suite: it passed, failed, or did not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from chaos.run.ending import gravest_code
from chaos.run.record import VERDICT_FILE, ExitCode, Verdict


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """The run says nothing: it could not begin, was not done as written, or ended early."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `exit_code`: of the run, or what stands for it where the run has not told one."""

    experiment: str
    title: str
    seed: int
    exit_code: ExitCode
    summary: str
    duration_s: float
    directory: Path
    figures: dict[str, float] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    """Checks that did not hold, a line each."""
    output: str = ""
    """The last lines that the run has printed."""

    @property
    def result(self) -> Result:
        if self.exit_code is ExitCode.HELD:
            return Result.PASSED
        return Result.FAILED if self.exit_code is ExitCode.BROKEN else Result.ERROR


def outcome_of(
    *, experiment: str, title: str, seed: int, returned: int, duration_s: float, directory: Path, output: str
) -> Outcome:
    """Return what became of a run from what its process returned and what it has left: both must say the same."""
    verdict, problem = _read_verdict(directory / VERDICT_FILE)
    broken: tuple[str, ...] = ()
    if verdict is not None:
        broken = tuple(f"{c.name}: expected {c.wanted}, found {c.found}" for c in verdict.checks if not c.held)
    if verdict is None:
        known = returned in ExitCode._value2member_map_ and returned not in {ExitCode.HELD, ExitCode.BROKEN}
        exit_code = ExitCode(returned) if known else ExitCode.ABORTED
        summary = f"{problem}; the process returned {returned}"
    elif returned != verdict.exit_code:
        exit_code, summary = ExitCode.ABORTED, f"the process returned {returned}, its verdict says {verdict.exit_code}"
    elif returned == ExitCode.HELD and not verdict.checks:
        exit_code, summary = ExitCode.ABORTED, "the verdict says held, but nothing was checked"
    else:
        exit_code, summary = ExitCode(returned), verdict.summary
    figures = dict(verdict.figures) if verdict else {}
    return Outcome(experiment, title, seed, exit_code, summary, duration_s, directory, figures, broken, output)


def _read_verdict(path: Path) -> tuple[Verdict | None, str]:
    try:
        verdict = msgspec.json.decode(path.read_bytes(), type=Verdict)
    except OSError:
        return None, "expected a verdict, found none"
    except msgspec.MsgspecError as error:
        return None, f"the verdict cannot be read: {error}"
    if verdict.exit_code not in ExitCode._value2member_map_:
        return None, f"the verdict has an exit code that is not known: {verdict.exit_code}"
    return verdict, ""


def exit_code_of(outcomes: Sequence[Outcome]) -> ExitCode:
    """Return the gravest of all: a rollback that failed, then what says nothing, then broken, then held.

    Nothing run is nothing shown.
    """
    if not outcomes:
        return ExitCode.INVALID
    return gravest_code(outcome.exit_code for outcome in outcomes)
