"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from chaos.experiment.model import Incident
from chaos.report import words
from chaos.report.account import faults_of, figures_of, latency_rows, phases_of, trigger_of
from chaos.report.percentiles import percentile_plot
from chaos.report.reading import Run, previous_of
from chaos.report.timeline import Chart, charts_of, timeline_of
from chaos.report.told import told_rows
from chaos.run.record import REPORT_FILE, Check, Event

TILES = ("recover_s", "goodput", "p99_ms", "cancel_p99_ms", "pause_s", "amplification")
EVENTS_SHOWN_MAX = 400
_CHECK_KINDS = frozenset({"check", "sometimes"})


@cache
def templates() -> Environment:
    """Return the templates; whatever they are given is escaped."""
    environment = Environment(
        loader=PackageLoader("chaos.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": words.number, "markup": Markup, "title_of": words.title_of}
    environment.globals["include_raw"] = _raw
    return environment


def _raw(name: str) -> Markup:
    """Return a file of ours as it is: styles and scripts."""
    environment = templates()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def embedded(data: object) -> Markup:
    """Return JSON that may stand in a script element, whatever text is in it."""
    encoded = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return Markup(encoded)


@dataclass(frozen=True, slots=True)
class Change:
    """A line of what is not as it was in the run before."""

    what: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """A line of a published time line, and where ours was at the same mark."""

    utc: str
    what: str
    ours: str


def write_report(run: Run, previous: Run | None = None) -> Path:
    """Write the page into the run's directory, beside the run before if there is one, and return its path."""
    path = run.directory / REPORT_FILE
    path.write_text(render(run, previous or previous_of(run)), encoding="utf-8")
    return path


def render(run: Run, previous: Run | None = None) -> str:
    """Return the page of a run as HTML."""
    verdict, figures = run.verdict, figures_of(run)
    checks = verdict.checks if verdict else ()
    context: dict[str, Any] = {
        "run": run,
        "title": run.experiment.title if run.experiment else run.name,
        "state": words.state_of(verdict),
        "headline": words.headline(verdict),
        "summary": words.sentence(verdict.summary)
        if verdict
        else "The run has left no verdict: it was cut short, or it goes on.",
        "tiles": _tiles(run, figures),
        "facts": _facts(run),
        "drawn": timeline_of(run),
        "charts_data": embedded(chart_data(charts_of(run), run.end_s)),
        "events": [event for event in run.events if event.kind not in _CHECK_KINDS][:EVENTS_SHOWN_MAX],
        "events_left": max(0, sum(e.kind not in _CHECK_KINDS for e in run.events) - EVENTS_SHOWN_MAX),
        "levels": [check for check in checks if not words.is_rule(check) and not words.is_sometimes(check)],
        "rules": sorted((check for check in checks if words.is_rule(check)), key=_rule_number),
        "sometimes": [check for check in checks if words.is_sometimes(check)],
        "latencies": latency_rows(run),
        "percentiles": percentile_plot(run),
        "incident": run.experiment.incident if run.experiment else None,
        "incident_rows": incident_rows(run),
        "told": told_rows(run),
        "previous": previous,
        "changes": changes_since(previous, run) if previous else [],
        "figure_changes": figure_changes(previous, run) if previous else [],
        "command": shlex.join(run.manifest.command) if run.manifest else "",
        "utc_at": lambda at_s: utc_at(run, at_s),
        "words_of": event_words,
    }
    return templates().get_template("report.html.j2").render(context)


def chart_data(charts: Sequence[Chart], end_s: float, begin_s: float = 0.0) -> dict[str, Any]:
    """Return what the script needs to tell the values under the cursor."""
    return {
        "begin": begin_s,
        "end": end_s,
        "charts": {
            chart.key: [
                {"name": c.name, "css": c.css, "points": [[t, None if v is None else round(v, 2)] for t, v in c.points]}
                for c in chart.curves
            ]
            for chart in charts
        },
    }


def utc_at(run: Run, at_s: float) -> str:
    """Return the UTC time of a moment of a run, or "" if it is not known."""
    begun = run.begun_utc
    return (begun + timedelta(seconds=at_s)).strftime("%H:%M:%S") if begun else ""


def event_words(event: Event) -> str:
    """Return an event as a line of text."""
    target = f" {event.target}" if event.target else ""
    return f"{event.name}{target} {event.what}" + (f": {event.detail}" if event.detail else "")


def _tiles(run: Run, figures: dict[str, float]) -> list[tuple[str, str]]:
    tiles = [
        (words.figure_named(name).title, words.value_text(name, figures[name])) for name in TILES if name in figures
    ]
    checks = run.verdict.checks if run.verdict else ()
    if "recover_s" not in figures and any(check.name == "recover_s" and not check.held for check in checks):
        return [(words.figure_named("recover_s").title, "no"), *tiles]
    return tiles


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = [("Experiment", run.name)]
    if (begun := run.begun_utc) is not None:
        facts.append(("Begun", _utc(begun)))
    facts.append(("Length", f"{run.end_s:.0f} s"))
    if run.manifest:
        facts.append(("Seed", str(run.manifest.seed)))
        if version := run.manifest.versions.get("evenkeel"):
            facts.append(("Evenkeel", version))
        if run.manifest.cores:
            facts.append(("Machine", f"{run.manifest.cores} cores"))
        facts.append(("Exchange", run.manifest.target))
    return facts


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _rule_number(check: Check) -> int:
    return int(check.name[1:])


def incident_rows(run: Run) -> list[TimelineRow]:
    """Return the published time line of the incident that a run acted out, with ours at its marks."""
    incident: Incident | None = run.experiment.incident if run.experiment else None
    if incident is None:
        return []
    begin_s, end_s = trigger_of(run)
    recover_s = figures_of(run).get("recover_s")
    faults = ", ".join(f"{fault.begin_s:.0f} s: {fault.name}" for fault in faults_of(run))
    ours = {
        "trigger": faults or f"{begin_s:.0f} s: the trouble begins",
        "trigger-end": f"{end_s:.0f} s: the trigger is over",
    }
    if recover_s is not None and math.isfinite(recover_s):
        ours["recovered"] = f"{end_s + recover_s:.0f} s: recovered, {words.number(recover_s)} s after the trigger"
    else:
        ours["recovered"] = f"not recovered by {run.end_s:.0f} s" if run.verdict else "not known"
    return [TimelineRow(one.utc, one.what, ours.get(one.mark, "")) for one in incident.timeline]


def changes_since(before: Run, now: Run) -> list[Change]:
    """Return what was not the same in two runs: versions, configuration, schedule, what they ran on, verdict."""
    changes = []
    if before.manifest and now.manifest:
        old, new = before.manifest, now.manifest
        pairs = [
            (f"version of {n}", old.versions.get(n, "none"), new.versions.get(n, "none"))
            for n in dict.fromkeys((*old.versions, *new.versions))
        ]
        pairs += [
            ("configuration", old.configuration_sha256[:12], new.configuration_sha256[:12]),
            ("schedule", old.schedule_sha256[:12], new.schedule_sha256[:12]),
            ("seed", str(old.seed), str(new.seed)),
            ("cores", str(old.cores), str(new.cores)),
            ("exchange", old.target, new.target),
        ]
        changes = [Change(*pair) for pair in pairs if pair[1] != pair[2]]
    if words.headline(before.verdict) != words.headline(now.verdict):
        changes.append(Change("verdict", words.headline(before.verdict), words.headline(now.verdict)))
    phases = ["–".join((p.name, f"{p.end_s - p.begin_s:.0f} s")) for p in phases_of(before)]
    if phases != (new_phases := ["–".join((p.name, f"{p.end_s - p.begin_s:.0f} s")) for p in phases_of(now)]):
        changes.append(Change("phases", ", ".join(phases), ", ".join(new_phases)))
    return changes


def figure_changes(before: Run, now: Run) -> list[Change]:
    """Return the figures of both runs."""
    old, new = figures_of(before), figures_of(now)
    return [
        Change(
            words.figure_named(name).title,
            words.value_text(name, old[name]) if name in old else "–",
            words.value_text(name, new[name]) if name in new else "–",
        )
        for name in dict.fromkeys((*new, *old))
    ]
