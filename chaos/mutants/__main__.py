"""The mutation check: `python -m chaos.mutants [NAME…]` plants each bug and runs the scenario that is to find it.

Prints a table of bug, rule, finder and what was found, and fails if a bug was not. `--all` runs each finder without a
bug first: it must find nothing then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from chaos.mutants.bugs import BUGS, Bug
from chaos.mutants.planting import environment_with
from chaos.run.record import EVENTS_FILE, VERDICT_FILE, Event, Verdict, read_lines

RUN_S_MAX = 600.0


class Outcome(NamedTuple):
    """What a run with a bug has shown. `found`: the broken rule, and what was said of it; empty: none of its own."""

    bug: Bug
    found: str
    evidence: str
    others: tuple[str, ...]
    """What else was broken."""
    took_s: float
    ended: str


def run_with(bug: Bug, directory: Path) -> Outcome:
    """Run the finder of a bug with it."""
    started_s = time.monotonic()
    verdict = _run(bug.finder, directory, environment_with(bug.name))
    took_s = time.monotonic() - started_s
    if verdict is None:
        return Outcome(bug, "", "", (), took_s, f"no verdict; see {directory}")
    broken = [check for check in verdict.checks if not check.held and check.looked_at]
    own = [check for check in broken if check.name in bug.rules]
    others = tuple(check.name for check in broken if check.name not in bug.rules)
    if not own:
        return Outcome(bug, "", "", others, took_s, verdict.summary)
    return Outcome(bug, own[0].name, (own[0].evidence or (own[0].found,))[0], others, took_s, verdict.summary)


def _run(finder: str, directory: Path, environment: dict[str, str]) -> Verdict | None:
    command = [sys.executable, "-m", "chaos.cli", "run", finder, "--out", str(directory), "--keep-history"]
    with directory.with_suffix(".out").open("w") as out:
        subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT, timeout=RUN_S_MAX, check=False)
    try:
        return msgspec.json.decode((directory / VERDICT_FILE).read_bytes(), type=Verdict)
    except FileNotFoundError:
        return None


def found_live_s(directory: Path, rules: tuple[str, ...]) -> float | None:
    """Return when a rule was first seen broken while the run went on; None: only afterwards."""
    events = read_lines(directory / EVENTS_FILE, Event)
    ended = (e for e in events if e.kind == "check" and e.what == "broken" and e.name in rules)
    return next((event.t for event in ended), None)


def table(outcomes: list[Outcome]) -> str:
    """Return a row for each bug, as Markdown."""
    lines = ["| bug | what it does | finder | rule | found as | after |", "|---|---|---|---|---|---|"]
    for o in outcomes:
        found = o.evidence.splitlines()[0].replace("|", "\\|")[:160] if o.found else f"NOT FOUND: {o.ended[:120]}"
        also = f" (also {', '.join(o.others)})" if o.others else ""
        row = f"`{o.bug.name}`", o.bug.what, f"`{o.bug.finder}`", (o.found or "–") + also, found, f"{o.took_s:.0f} s"
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BUGS)}; none: all")
    parser.add_argument("--keep", type=Path, help="a directory that keeps the runs")
    parser.add_argument("--all", action="store_true", help="run the finders without a bug first")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - BUGS.keys())
    if unknown:
        parser.error(f"expected names of bugs, found {', '.join(unknown)}: choose from {', '.join(BUGS)}")
    directory = options.keep or Path(tempfile.mkdtemp(prefix="evenkeel-mutants-"))
    directory.mkdir(parents=True, exist_ok=True)
    bugs = [BUGS[name] for name in options.names] or list(BUGS.values())
    missed = False
    for finder in sorted({bug.finder for bug in bugs}) if options.all else ():
        verdict = _run(finder, directory / f"without-{finder}", dict(os.environ))
        summary = "no verdict" if verdict is None else verdict.summary
        missed |= verdict is None or bool(verdict.exit_code)
        print(f"without a bug, {finder}: {summary}", flush=True)
    outcomes = []
    for bug in bugs:
        outcomes.append(run_with(bug, directory / bug.name))
        last = outcomes[-1]
        print(
            f"{bug.name}: {last.found or 'NOT FOUND'} after {last.took_s:.0f} s: {last.evidence or last.ended}",
            flush=True,
        )
    print(table(outcomes))
    return 1 if missed or not all(outcome.found for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
