"""Runs an experiment with some settings, as a process of its own, and reads its verdict."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from chaos.run.record import VERDICT_FILE, Verdict
from chaos.tune.score import FAILED, Score, score_of

SHOWN_CHARACTERS_MAX = 300
RUN_S_MAX = 900.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run: an experiment, a seed, and the values of settings that are laid over its own."""

    experiment: str
    seed: int
    values: dict[str, float]

    @property
    def name(self) -> str:
        return f"{self.experiment} seed {self.seed}"


class Evaluator(Protocol):
    """Runs jobs, one after the other or at once where there are machines for it."""

    def run(self, jobs: Sequence[Job]) -> list[Score]:
        """Return the score of each, in their order."""
        ...


class LocalEvaluator:
    """One after the other on this machine: two at once would be each other's noise."""

    def run(self, jobs: Sequence[Job]) -> list[Score]:
        return [evaluate(job) for job in jobs]


def evaluate(job: Job) -> Score:
    """Run a job here and return its score; of a run that gave no verdict one that says why."""
    with tempfile.TemporaryDirectory(prefix="evenkeel-tune-") as directory:
        out = Path(directory) / "run"
        laid_over = [f"environment.settings.{name}={value}" for name, value in job.values.items()]
        command = [sys.executable, "-m", "chaos.cli", "run", job.experiment]
        command += ["--seed", str(job.seed), "--out", str(out)]
        command += [part for change in laid_over for part in ("--set", change)]
        try:
            # The exchange under test has a Ray of its own, whatever this process is a part of.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=RUN_S_MAX, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            return Score(FAILED, failed=f"{job.name}: no verdict within {RUN_S_MAX:.0f} s")
        path = out / VERDICT_FILE
        if not path.exists():
            said = (done.stderr or done.stdout)[-SHOWN_CHARACTERS_MAX:]
            return Score(FAILED, failed=f"{job.name}: no verdict, exit code {done.returncode}: {said}")
        return score_of(msgspec.json.decode(path.read_bytes(), type=Verdict))
