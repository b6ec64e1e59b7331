"""Runs experiments one after the other, each as a process of its own, which no other run can take down."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.experiment.library import Source
from chaos.gate.outcome import Outcome, outcome_of
from chaos.run.record import ExitCode

CHAOS = (sys.executable, "-m", "chaos.cli")
OUTPUT_LINES_MAX = 40
MARGIN_S = 300.0
"""For what is around the load of a run: starting an exchange, checking the history."""
STOP_S = 60.0
OUTPUT_FILE = "output.log"


@dataclass(frozen=True, slots=True)
class Planned:
    """A run to be done."""

    source: Source
    seed: int
    directory: Path

    @property
    def name(self) -> str:
        return f"{self.source.name}, seed {self.seed}"


def plan_of(sources: Sequence[Source], seeds: int, out: Path) -> list[Planned]:
    """Return the runs of a suite: each experiment with its own seed and those that follow it."""
    return [
        Planned(source, seed, out / (source.name if seeds == 1 else f"{source.name}-seed-{seed}"))
        for source in sources
        for seed in range(source.experiment.seed, source.experiment.seed + seeds)
    ]


def run_all(
    planned: Sequence[Planned],
    *,
    command: Sequence[str] = (),
    margin_s: float = MARGIN_S,
    begun: Callable[[Planned], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Yield what becomes of each run. After Ctrl-C, or a rollback that failed, the rest is not run, and says so.

    `command`: stands for `chaos`, if given.
    """
    stopped = ""
    command = command or CHAOS
    for one in planned:
        if stopped:
            yield not_run(one, stopped)
            continue
        begun(one)
        outcome, is_interrupted = _run(one, command, margin_s)
        yield outcome
        if is_interrupted:
            stopped = "not run: interrupted"
        elif outcome.exit_code is ExitCode.ROLLBACK_FAILED:
            stopped = f"not run: what {one.name} did could not be taken back"


def not_run(one: Planned, why: str) -> Outcome:
    return Outcome(one.source.name, one.source.experiment.title, one.seed, ExitCode.ABORTED, why, 0.0, one.directory)


def _run(one: Planned, command: Sequence[str], margin_s: float) -> tuple[Outcome, bool]:
    one.directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the directory until the run is over, because the run wants an empty one.
    log = one.directory.with_name(f"{one.directory.name}.{OUTPUT_FILE}")
    arguments = [*command, "run", str(one.source.path), "--seed", str(one.seed), "--out", str(one.directory)]
    begin_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        returned, ended = _wait(process, one.source.experiment.duration_s + margin_s)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-OUTPUT_LINES_MAX:]
    if one.directory.is_dir():
        log.replace(one.directory / OUTPUT_FILE)
    outcome = outcome_of(
        experiment=one.source.name,
        title=one.source.experiment.title,
        seed=one.seed,
        returned=returned,
        duration_s=time.monotonic() - begin_s,
        directory=one.directory,
        output="\n".join([*lines, *([f"gate: {ended}"] if ended else [])]),
    )
    return outcome, ended == "interrupted"


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[int, str]:
    """Wait for a process. If it is interrupted or takes too long, end it so that it can take back what it did."""
    try:
        return process.wait(timeout_s), ""
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        ended = f"took more than {timeout_s:.0f} s"
    except KeyboardInterrupt:
        # A terminal has told the run as well; it is told again for those who interrupt the gate alone.
        process.send_signal(signal.SIGINT)
        ended = "interrupted"
    try:
        process.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    return int(ExitCode.ABORTED), ended
