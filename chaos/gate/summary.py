"""The outcomes of a suite as Markdown, for the summary of a pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chaos.gate.outcome import Outcome, Result
from chaos.report import words
from chaos.report.incident_report import plain
from chaos.run.record import ExitCode

FIGURES = ("recover_s", "goodput", "cancel_p99_ms", "amplification")
SUMMARY_BYTES_MAX = 1_000_000
"""GitHub takes 1 MiB a step."""
_SUMMARY_CHARACTERS_MAX = 300
_MARKS = {Result.PASSED: "✅", Result.FAILED: "❌", Result.ERROR: "⚠️"}


def count_text(outcomes: Sequence[Outcome]) -> str:
    """Return how many passed, failed and said nothing."""
    counts = Counter(outcome.result for outcome in outcomes)
    return (
        f"{counts[Result.PASSED]} of {len(outcomes)} passed, {counts[Result.FAILED]} failed,"
        f" {counts[Result.ERROR]} said nothing"
    )


def markdown_of(suite: str, outcomes: Sequence[Outcome], exit_code: ExitCode) -> str:
    """Return the summary, of at most `SUMMARY_BYTES_MAX`: lines that have no room are counted."""
    mark = "✅" if exit_code is ExitCode.HELD else "❌"
    titles = [words.figure_named(name).title for name in FIGURES]
    head = [
        f"## {mark} chaos gate: {plain(suite)}",
        "",
        f"{count_text(outcomes)}. Exit code {int(exit_code)} ({exit_code.name}).",
        "",
        f"| | experiment | seed | result | {' | '.join(titles)} | s | summary |",
        f"|---|---|--:|---|{'--:|' * len(titles)}--:|---|",
    ]
    body = [_row(outcome) for outcome in outcomes]
    # What went wrong, below the table.
    for outcome in outcomes:
        if outcome.broken:
            body += ["", f"**{plain(outcome.experiment)}**, seed {outcome.seed}:", ""]
            body += [f"- {_short(line)}" for line in outcome.broken]
    return _within(head, body)


def _row(outcome: Outcome) -> str:
    figures = [words.value_text(name, outcome.figures[name]) if name in outcome.figures else "" for name in FIGURES]
    return (
        f"| {_MARKS[outcome.result]} | {plain(outcome.experiment)} | {outcome.seed} | {outcome.exit_code.name}"
        f" | {' | '.join(figures)} | {outcome.duration_s:.0f} | {_short(outcome.summary)} |"
    )


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return plain(flat if len(flat) <= _SUMMARY_CHARACTERS_MAX else flat[: _SUMMARY_CHARACTERS_MAX - 1] + "…")


def _within(head: Sequence[str], body: Sequence[str]) -> str:
    lines, size = list(head), sum(len(line.encode()) + 1 for line in head)
    for number, line in enumerate(body):
        size += len(line.encode()) + 1
        if size > SUMMARY_BYTES_MAX - 200:
            lines += ["", f"{len(body) - number} more lines: see the reports."]
            break
        lines.append(line)
    return "\n".join(lines) + "\n"
