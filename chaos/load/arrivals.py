"""When requests come: seeded, so that the same seed gives the same times.

A process gives the times of arrivals at one a second; a profile of rates stretches and squeezes that time, so that any
process follows any profile (the time-rescaling theorem, Ogata 1988).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random

HAWKES_BRANCHING = 0.5
"""The share of requests that others have brought about: 0.8 to 0.9 is a nervous market."""
HAWKES_MEMORY = 5.0
"""How long a request brings about others, in mean intervals."""

Process = Callable[[Random], Iterator[float]]


@dataclass(frozen=True, slots=True)
class Phase:
    """A rate that holds for a time."""

    duration_s: float
    per_s: float

    def __post_init__(self) -> None:
        if not (self.duration_s > 0 and self.per_s >= 0 and math.isfinite(self.duration_s + self.per_s)):
            raise ValueError(f"expected a duration above 0 and a rate of at least 0, was {self}")


def constant(random: Random) -> Iterator[float]:
    """One a second, exactly."""
    return (float(number) for number in count(1))


def poisson(random: Random) -> Iterator[float]:
    """Independent of each other."""
    time_s = 0.0
    while True:
        time_s += random.expovariate(1.0)
        yield time_s


def hawkes(random: Random) -> Iterator[float]:
    """In bursts: each arrival makes others likelier for a while, by an exponential kernel (thinning, Ogata 1981)."""
    base, decay = 1.0 - HAWKES_BRANCHING, 1.0 / HAWKES_MEMORY
    jump = HAWKES_BRANCHING * decay
    time_s = excited = 0.0
    while True:
        bound = base + excited
        wait_s = random.expovariate(bound)
        time_s += wait_s
        excited *= math.exp(-decay * wait_s)
        if random.random() * bound <= base + excited:
            excited += jump
            yield time_s


PROCESSES: dict[str, Process] = {"constant": constant, "poisson": poisson, "hawkes": hawkes}


def arrivals(process: Process, phases: Sequence[Phase], random: Random) -> Iterator[float]:
    """Yield the times of arrivals in s, rising, until the last phase is over."""
    unit_times = process(random)
    due = next(unit_times)
    begin_s = begin = 0.0
    for phase in phases:
        end = begin + phase.duration_s * phase.per_s
        while due < end:
            yield begin_s + (due - begin) / phase.per_s
            due = next(unit_times)
        begin_s, begin = begin_s + phase.duration_s, end
