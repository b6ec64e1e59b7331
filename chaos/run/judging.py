"""Checks the whole of a run, once it is over: the rules on the history, what was promised, what really happened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from chaos.experiment.model import Experiment
from chaos.invariants.checker import check_history
from chaos.invariants.findings import RULES, Findings
from chaos.invariants.history import kept_history
from chaos.run.answers import read_answers
from chaos.run.background import in_background
from chaos.run.furnish import Furnished
from chaos.run.levels import Seen, check_levels, check_rules, figures_of
from chaos.run.load import logged_of
from chaos.run.parts import Judgement
from chaos.run.public import PUBLIC
from chaos.run.published import check_public, read_logged, read_public
from chaos.run.published import figures_of as published_figures
from chaos.run.record import HISTORY, LOGS, MANIFEST_FILE, STATUS_LOG, Check, Event, Manifest, Sample
from chaos.run.sometimes import SupervisorEvent, Witness, check_sometimes
from chaos.run.truth import check_status
from chaos.worlds.health import EVENTS_FILE

EVIDENCE_MAX = 5
KINDS = {"shard": "shard", "ledger": "ledger", "supervisor": "control"}


class Exchange(Protocol):
    @property
    def machines(self) -> Mapping[str, str]:
        """Each machine's kind; those whose journals are in the history."""
        ...

    @property
    def furnished(self) -> Furnished: ...


class WholeRun:
    def __init__(self, experiment: Experiment, exchange: Exchange) -> None:
        self._experiment = experiment
        self._exchange = exchange

    async def judge(self, directory: Path, samples: Sequence[Sample], events: Sequence[Event]) -> Judgement:
        return await in_background(lambda: self._judge(directory, samples, events))

    def _judge(self, directory: Path, samples: Sequence[Sample], events: Sequence[Event]) -> Judgement:
        experiment, furnished = self._experiment, self._exchange.furnished
        manifest = msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
        logged = logged_of(experiment, furnished)
        answers = read_answers(directory / LOGS, logged.accounts, manifest.begun_monotonic_ns)
        nodes = read_nodes(directory / STATUS_LOG)
        seen = Seen(samples, events, answers, dict(furnished.markets), nodes)
        checks: list[Check] = []
        if any((directory / HISTORY).iterdir()):
            history = kept_history(directory / HISTORY)
            findings = check_history(history, self._exchange.machines, logged, directory / LOGS, directory / STATUS_LOG)
            checks += checks_of(findings, experiment)
        checks += check_rules(experiment, seen)
        if "I12" in experiment.invariants:
            checks.append(check_status(seen))
        figures = figures_of(experiment, seen)
        if (directory / PUBLIC).is_dir():
            public, begun_ns = read_public(directory / PUBLIC), manifest.begun_monotonic_ns
            checks.append(check_public(seen, public, read_logged(directory / EVENTS_FILE), begun_ns))
            figures |= published_figures(seen, public, begun_ns)
        checks += check_levels(experiment, seen)
        told = read_told(directory / EVENTS_FILE)
        checks += check_sometimes(experiment.sometimes, Witness(seen, told))
        return Judgement(merged(checks), figures)


def merged(checks: Sequence[Check]) -> list[Check]:
    """Return one check for each name: a rule that is looked at from several sides holds if all of them hold."""
    by_name: dict[str, Check] = {}
    for check in checks:
        known = by_name.get(check.name)
        if known is None:
            by_name[check.name] = check
            continue
        # What is broken is named first.
        first, second = (known, check) if check.held or not known.held else (check, known)
        by_name[check.name] = Check(
            name=check.name,
            held=known.held and check.held,
            wanted=f"{first.wanted}; {second.wanted}",
            found=f"{first.found}; {second.found}",
            looked_at=known.looked_at + check.looked_at,
            evidence=(*first.evidence, *second.evidence)[:EVIDENCE_MAX],
        )
    return list(by_name.values())


def checks_of(findings: Findings, experiment: Experiment) -> list[Check]:
    """Return a check of each rule that the experiment names and that the history shows."""
    checks = []
    for rule, meaning in RULES.items():
        if rule not in experiment.invariants:
            continue
        looked_at = sum(count for what, count in findings.checked.items() if what.startswith(f"{rule} "))
        broken = findings.found[rule]
        evidence = [str(violation) for violation in findings.violations if violation.rule == rule]
        checks.append(
            Check(
                name=rule,
                held=not broken and looked_at > 0,
                wanted=meaning,
                found=f"broken {broken:,} times"
                if broken
                else f"{looked_at:,} looked at"
                if looked_at
                else "nothing to look at",
                looked_at=looked_at,
                evidence=tuple(evidence[:EVIDENCE_MAX]),
            )
        )
    return checks


def read_nodes(path: Path) -> dict[str, str]:
    """Return the node of each gateway, by its address."""
    if not path.exists():
        return {}
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return {line["address"]: line["node"] for line in lines if line["address"]}


def read_told(path: Path) -> list[SupervisorEvent]:
    """Return what the supervisors said."""
    if not path.exists():
        return []
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return [SupervisorEvent(line["kind"], line["component"], line["detail"]) for line in lines]
