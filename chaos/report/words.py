"""What rules, levels and figures are called, and how their values are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from chaos.run.record import Check, ExitCode, Verdict

RULES = {
    "I1": "No acknowledged order is lost",
    "I2": "Each order is done once",
    "I3": "Money neither appears nor vanishes",
    "I4": "No balance is negative, and holds are what open orders need",
    "I5": "Price and time come first, before a restart and after it",
    "I6": "A replay gives the same state",
    "I7": "One writer, no gap in any sequence",
    "I8": "Nothing is filled once its cancel is acknowledged; cancels are never shed",
    "I9": "A stage does what it says, and nothing else",
    "I10": "Every request ends",
    "I11": "Goodput comes back, and retries stay within bounds",
    "I12": "The status is true",
    "I13": "Queues and memory are bounded",
}
LEVELS = {
    "recover_s": "Recovered after the trigger",
    "goodput_min": "Goodput in any 3 s",
    "p99_ms_max": "p99 of delay",
    "cancel_p99_ms_max": "p99 of cancels",
    "amplification_max": "Attempts for each request",
    "pause_s_max": "Longest pause of a market",
    "memory_growth_mb_max": "Growth of memory",
    "steady_state": "Steady state at first",
    "blast_radius": "Blast radius",
}
_SOMETIMES = "sometimes:"


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is told: its words, unit and factor, and whether more of it is better."""

    title: str
    unit: str
    higher_is_better: bool | None = False
    """None: neither is; it depends on what else was done."""
    factor: float = 1.0
    least: float = 0.0
    """Differences below are of no matter, in the figure's own unit before the factor."""


FIGURES = {
    "recover_s": Figure("Recovered", "s", least=1.0),
    "goodput": Figure("Goodput", "%", higher_is_better=True, factor=100, least=0.005),
    "amplification": Figure("Attempts per request", "×", least=0.02),
    "p99_ms": Figure("p99", "ms", least=5.0),
    "cancel_p99_ms": Figure("Cancel p99", "ms", least=5.0),
    "pause_s": Figure("Longest pause", "s", least=0.5),
    "published_s": Figure("On the status page after", "s", least=0.5),
    "announced_s": Figure("Announced after", "s", least=0.5),
    "refused": Figure("Refused", "%", higher_is_better=None, factor=100, least=0.005),
    "unknown": Figure("Unknown", "%", factor=100, least=0.005),
    "memory_mb_max": Figure("Memory, most", "MB", least=20.0),
    "memory_growth_mb": Figure("Memory, growth", "MB", least=20.0),
    "late_p99_ms": Figure("Load generator late, p99", "ms", least=20.0),
}
State = Literal["held", "broken", "deviated", "void", "unfinished"]
_VOID = {
    ExitCode.INVALID: "invalid",
    ExitCode.NO_STEADY_STATE: "no steady state",
    ExitCode.NOT_INJECTED: "fault not injected",
    ExitCode.ABORTED: "aborted",
    ExitCode.ROLLBACK_FAILED: "rollback failed",
}


def figure_named(name: str) -> Figure:
    """Return how a figure is told; one that is not known by the unit in its name."""
    if name in FIGURES:
        return FIGURES[name]
    unit = next((unit for unit in ("ms", "mb", "s") if name.endswith(f"_{unit}") or f"_{unit}_" in name), "")
    words = name.removesuffix(f"_{unit}").replace("_", " ") if unit else name.replace("_", " ")
    return Figure(words.capitalize(), unit.upper() if unit == "mb" else unit, higher_is_better="goodput" in name)


def number(value: float) -> str:
    """Return a value with three significant digits, and all those before its point."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def value_text(name: str, value: float) -> str:
    """Return a figure with its unit."""
    figure = figure_named(name)
    gap = "" if figure.unit in {"%", "×", ""} else " "
    return f"{number(value * figure.factor)}{gap}{figure.unit}"


def sentence(text: str) -> str:
    """Return a text as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def state_of(verdict: Verdict | None) -> State:
    """Return what a run has come to."""
    if verdict is None:
        return "unfinished"
    if verdict.exit_code == ExitCode.HELD:
        return "deviated" if verdict.expect == "deviate" else "held"
    return "broken" if verdict.exit_code == ExitCode.BROKEN else "void"


def headline(verdict: Verdict | None) -> str:
    """Return the verdict in one or two words."""
    state = state_of(verdict)
    if state == "unfinished" or verdict is None:
        return "No verdict"
    if state == "void":
        known = verdict.exit_code in ExitCode._value2member_map_
        why = _VOID[ExitCode(verdict.exit_code)] if known else f"exit code {verdict.exit_code}"
        return f"Says nothing: {why}"
    return {"held": "Held", "deviated": "Deviated, as expected", "broken": "Broken"}[state]


def is_rule(check: Check) -> bool:
    return check.name in RULES


def is_sometimes(check: Check) -> bool:
    return check.name.startswith(_SOMETIMES)


def title_of(check: Check) -> str:
    """Return what a check is about."""
    if is_sometimes(check):
        return check.name.removeprefix(_SOMETIMES).replace("-", " ")
    return RULES.get(check.name) or LEVELS.get(check.name) or check.name.replace("_", " ").replace(":", ": ")
