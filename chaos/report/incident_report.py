"""The draft of an incident report, in the form in which exchanges publish theirs, from what a run has left.

What the log knows is filled in; what only a person can say is marked as a gap.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from chaos.report import words
from chaos.report.account import faults_of, figures_of, stages_of, trigger_of
from chaos.report.page import event_words
from chaos.report.reading import Run
from chaos.run.record import INCIDENT_FILE

IMPACT_GOODPUT = 0.95
"""A second in which less of what was offered was done counts as one of impact."""
_TOLD = frozenset({"fault", "rollback", "stage", "component", "abort"})
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def gap(what: str) -> str:
    """Return the mark of what only a person can write."""
    return f"[to be written: {what}]"


def plain(text: str) -> str:
    """Return text that Markdown takes as text, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def write_incident(run: Run) -> Path:
    """Write the draft into the run's directory and return its path."""
    path = run.directory / INCIDENT_FILE
    path.write_text(draft(run), encoding="utf-8")
    return path


def draft(run: Run) -> str:
    """Return the draft as Markdown."""
    title = run.experiment.title if run.experiment else run.name
    begun = run.begun_utc
    day = begun.strftime("%Y-%m-%d") if begun else gap("date")
    sections = [
        f"# Incident report: {plain(title)}",
        f"{day}. Draft, made from the log of the rehearsal {plain(run.name)}.",
        *_section("Summary", [f"{_impact_sentence(run)} {gap('who was affected, in one sentence')}"]),
        *_section("Impact", _impact(run)),
        *_section("Time line (UTC)", _timeline(run)),
        *_section("Cause", _cause(run)),
        *_section("Resolution", _resolution(run)),
        *_section("Prevention", _prevention(run)),
    ]
    if run.missing:
        sections += _section("Not known", [f"- {plain(one)}" for one in run.missing])
    return "\n\n".join(sections) + "\n"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "\n".join(lines)]


def impact_seconds(run: Run) -> list[int]:
    """Return the seconds in which goodput was below `IMPACT_GOODPUT` of what was offered."""
    return [s.t for s in run.samples if s.offered_per_s and s.goodput_per_s < IMPACT_GOODPUT * s.offered_per_s]


def _utc(run: Run, at_s: float) -> str:
    begun = run.begun_utc
    return (begun + timedelta(seconds=at_s)).strftime("%H:%M:%S") if begun else f"{at_s:.0f} s"


def _impact_sentence(run: Run) -> str:
    seconds = impact_seconds(run)
    if not run.samples:
        return gap("impact: nothing was measured")
    if not seconds:
        return "No second of the run had less than 95 % goodput."
    return (
        f"Between {_utc(run, seconds[0])} and {_utc(run, seconds[-1] + 1)} UTC, for {len(seconds)} s in all, less than"
        " 95 % of requests were done in time."
    )


def _impact(run: Run) -> list[str]:
    lines = [f"- {_impact_sentence(run)}"]
    if run.samples:
        worst = min(run.samples, key=lambda s: s.goodput_per_s / s.offered_per_s if s.offered_per_s else 1.0)
        failed = sum(max(s.offered_per_s - s.goodput_per_s, 0.0) for s in run.samples)
        refused, unknown = (sum(getattr(s, name) for s in run.samples) for name in ("refused_per_s", "unknown_per_s"))
        lines += [
            f"- At worst, {_utc(run, worst.t)}: {worst.goodput_per_s:,.0f} of {worst.offered_per_s:,.0f} requests a"
            " second.",
            f"- Requests not done in time: {failed:,.0f}; refused: {refused:,.0f}; with an unknown outcome:"
            f" {unknown:,.0f}.",
        ]
        markets = {market for s in run.samples for market in s.offered_by_market}
        harmed = [market for market in sorted(markets) if _is_harmed(run, market)]
        if markets:
            lines.append(f"- Markets: {plain(', '.join(harmed)) or 'none'} of {len(markets)}.")
    checks = run.verdict.checks if run.verdict else ()
    safe = [check for check in checks if check.name in {"I1", "I2", "I3"}]
    for check in safe:
        lines.append(f"- {words.title_of(check)}: {'held' if check.held else 'broken'} ({plain(check.found)}).")
    if not safe:
        lines.append(f"- {gap('orders and balances: the rules of safety were not checked')}")
    return [*lines, f"- {gap('customers affected, and what they were told')}"]


def _is_harmed(run: Run, market: str) -> bool:
    return any(
        s.goodput_by_market.get(market, 0.0) < IMPACT_GOODPUT * s.offered_by_market.get(market, 0.0)
        for s in run.samples
    )


def _timeline(run: Run) -> list[str]:
    rows: list[tuple[float, str]] = [(event.t, event_words(event)) for event in run.events if event.kind in _TOLD]
    seconds = impact_seconds(run)
    if seconds:
        rows.append((seconds[0], "goodput falls below 95 %"))
        if seconds[-1] < run.samples[-1].t:
            rows.append((seconds[-1] + 1, "goodput is 95 % or more from here on"))
    if not rows:
        return [gap("time line: the log has no events")]
    lines = ["| time | what |", "|---|---|"]
    lines += [f"| {_utc(run, at_s)} | {plain(what)} |" for at_s, what in sorted(rows) if at_s >= 0]
    return [*lines, f"| {gap('time')} | {gap('when the public was told, and how')} |"]


def _cause(run: Run) -> list[str]:
    faults = faults_of(run)
    lines = [
        f"- {_utc(run, fault.begin_s)}: {plain(fault.name)}{f' ({plain(fault.detail)})' if fault.detail else ''}"
        for fault in faults
    ]
    if run.samples:
        amplification = figures_of(run).get("amplification")
        highest = max(s.offered_per_s for s in run.samples)
        first = [s.offered_per_s for s in run.samples if s.t < trigger_of(run)[0]]
        if first and (usual := sum(first) / len(first)):
            lines.append(f"- Offered load: {highest / usual:.1f} times that of the steady state at most.")
        if amplification is not None:
            lines.append(f"- Attempts for each request: {amplification:.2f}.")
    return [*(lines or [gap("trigger: the log has no fault")]), f"- {gap('root cause: why it did what it did')}"]


def _resolution(run: Run) -> list[str]:
    lines = []
    for shard, spans in stages_of(run).items():
        way = ", ".join(f"{span.name} {_utc(run, span.begin_s)}" for span in spans[1:])
        if way:
            lines.append(f"- {plain(shard)}: {plain(way)}.")
    recover_s = figures_of(run).get("recover_s")
    if recover_s is not None:
        lines.append(f"- Recovered {words.number(recover_s)} s after the end of the trigger.")
    elif impact_seconds(run) and impact_seconds(run)[-1] == run.samples[-1].t:
        lines.append("- Not recovered by the end of the log.")
    return [*lines, f"- {gap('what people did, and what would have been done sooner')}"]


def _prevention(run: Run) -> list[str]:
    broken = [check for check in run.verdict.checks if not check.held] if run.verdict else []
    lines = [
        f"- {plain(words.title_of(check))}: expected {plain(check.wanted)}, found {plain(check.found)}."
        f" {gap('what prevents it, by whom and when')}"
        for check in broken
    ]
    lines = lines or [f"- {gap('what prevents it, by whom and when')}"]
    if run.manifest:
        lines.append(f"- Rehearsed by {plain(shlex.join(run.manifest.command) or run.name)}, seed {run.manifest.seed}.")
    return lines
