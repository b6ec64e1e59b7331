"""The mutation check: `python -m chaos.mutants [NAME…]` plants each bug and runs the scenario that is to find it.

Prints a table of bug, rule, finder and what was found, and fails if a bug was not. `--all` runs each finder without a
bug first: it must find nothing then.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from chaos.mutants.bugs import BUGS, CAMPAIGN, Bug
from chaos.mutants.planting import environment_with
from chaos.run.record import VERDICT_FILE, Verdict

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
    broken, ended = _broken(bug.finder, directory, environment_with(bug.name))
    took_s = time.monotonic() - started_s
    own = [rule for rule in broken if rule in bug.rules]
    others = tuple(rule for rule in broken if rule not in bug.rules)
    return Outcome(bug, own[0] if own else "", broken[own[0]] if own else "", others, took_s, ended)


def _broken(finder: str, directory: Path, environment: dict[str, str]) -> tuple[dict[str, str], str]:
    """Return what a finder says is broken, each with the first evidence, and how it ended."""
    if finder == CAMPAIGN:
        options = ("--world", "file", "--faults", "3", "--rate", "300", "--keep", str(directory))
        printed = _run("chaos.campaign", *options, environment=environment, out=directory.with_suffix(".out"))
        rules = re.findall(r"^(I\d+) \(.*: BROKEN", printed, re.MULTILINE)
        evidence = {rule: re.search(rf"^{rule}: (.*)", printed, re.MULTILINE) for rule in rules}
        return {rule: match[1] if match else "" for rule, match in evidence.items()}, printed.strip()[-200:]
    out = directory.with_suffix(".out")
    _run("chaos.cli", "run", finder, "--out", str(directory), "--keep-history", environment=environment, out=out)
    try:
        verdict = msgspec.json.decode((directory / VERDICT_FILE).read_bytes(), type=Verdict)
    except FileNotFoundError:
        return {}, f"no verdict; see {out}"
    broken = [check for check in verdict.checks if not check.held and check.looked_at]
    return {check.name: (check.evidence or (check.found,))[0] for check in broken}, verdict.summary


def _run(module: str, *options: str, environment: dict[str, str], out: Path) -> str:
    """Run a program to its end and return what it has printed."""
    with out.open("w") as file:
        command = [sys.executable, "-m", module, *options]
        subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=RUN_S_MAX, check=False)
    return out.read_text(errors="replace")


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
        broken, ended = _broken(finder, directory / f"without-{finder}", dict(os.environ))
        missed |= bool(broken)
        print(f"without a bug, {finder}: {', '.join(broken) or 'nothing broken'} ({ended})", flush=True)
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
