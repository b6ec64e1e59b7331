"""How well a run went, as one number: less is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from chaos.run.record import ExitCode, Verdict

SAFETY = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10")
NEVER_S = 60.0
"""What a recovery that never came counts."""
FAILED = 10.0
"""Of a run that said nothing: the worst that a storm can do is about 3."""


@dataclass(frozen=True, slots=True)
class Score:
    """Of one run: `value`, and the rules of safety that were broken, which no value makes good."""

    value: float
    broken: tuple[str, ...] = ()
    failed: str = ""
    """Why there is no verdict, if there is none."""

    @property
    def is_allowed(self) -> bool:
        return not self.broken and not self.failed


def score_of(verdict: Verdict) -> Score:
    """Return (1 - goodput) + 0.5 (1 - cancels served) + 0.1 p99 in s + 0.01 time to recover in s."""
    if verdict.exit_code not in (ExitCode.HELD, ExitCode.BROKEN):
        return Score(FAILED, failed=verdict.summary)
    figures = verdict.figures
    value = (
        (1.0 - figures.get("goodput", 0.0))
        + 0.5 * (1.0 - figures.get("cancels_served", 0.0))
        + 0.1 * figures.get("p99_ms", 0.0) / 1e3
        + 0.01 * figures.get("recover_s", NEVER_S)
    )
    broken = tuple(check.name for check in verdict.checks if check.name in SAFETY and not check.held)
    return Score(value, broken)


def worst(scores: Sequence[Score]) -> Score:
    """Return what a configuration is worth: the worst of its runs, with all that they broke."""
    value = max(score.value for score in scores)
    broken = tuple(sorted({name for score in scores for name in score.broken}))
    return Score(value, broken, next((score.failed for score in scores if score.failed), ""))


@dataclass(frozen=True, slots=True)
class Gain:
    """What a candidate gains over the defaults, on the same storms and seeds; above 0: it is better."""

    default: tuple[float, ...]
    candidate: tuple[float, ...]
    noise: float
    """The spread of the defaults' own scores when the same run is made again."""

    @property
    def mean(self) -> float:
        return fmean(a - b for a, b in zip(self.default, self.candidate, strict=True))

    @property
    def spread(self) -> float:
        return pstdev([a - b for a, b in zip(self.default, self.candidate, strict=True)])

    @property
    def is_beyond_noise(self) -> bool:
        """Whether it is more than twice what comes by chance, as a mean over these runs."""
        return self.mean > 2.0 * max(self.noise, self.spread) / math.sqrt(len(self.default))
