"""What the checker says: how much it looked at, rule by rule, and every violation with its evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

RULES = {
    "I1": "no acknowledged command is lost, and none that was refused was executed",
    "I2": "at most one effect per account and client order id, and per batch of a link",
    "I3": "per asset the sum changes by deposit and withdrawal alone, fees go to the house",
    "I4": "no balance is negative, holds equal what open orders need",
    "I5": "price-time priority, never crossed, no trade reversed",
    "I6": "replaying the journal gives the hashes that were told",
    "I7": "no gap, one writer per epoch, snapshot + deltas = book",
    "I8": "no fill after an acknowledged cancel, no cancel is refused for load",
    "I9": "a stage lets through only what it names",
    "I10": "every request gets its outcome within 10 s",
}
SHOWN_PER_RULE_MAX = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that does not hold. `evidence`: journal places, sequences, lines of logs."""

    rule: str
    summary: str
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join((f"{self.rule}: {self.summary}", *self.evidence))


@dataclass(slots=True)
class Findings:
    """Counts what was checked and what was found. Of each rule only the first violations are kept."""

    checked: Counter[str] = field(default_factory=Counter)
    """What was looked at, such as "I1 acknowledged commands"."""
    violations: list[Violation] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def check(self, what: str, count: int = 1) -> None:
        self.checked[what] += count

    def violate(self, rule: str, summary: str, *evidence: str) -> None:
        assert rule in RULES, rule
        self.found[rule] += 1
        if self.found[rule] <= SHOWN_PER_RULE_MAX:
            self.violations.append(Violation(rule, summary, evidence))

    def __str__(self) -> str:
        lines = [f"  {what}: {count:,}" for what, count in sorted(self.checked.items())]
        for rule, meaning in RULES.items():
            verdict = f"BROKEN, {self.found[rule]:,} times" if self.found[rule] else "holds"
            lines.append(f"{rule} ({meaning}): {verdict}")
        lines += [str(violation) for violation in self.violations]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
