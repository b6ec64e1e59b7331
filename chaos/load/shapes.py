"""Shapes of a load over time, by name: what a load tester is asked for without an experiment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from chaos.load.plan import Span

STEPS = 4
SPIKE_TIMES = 5.0
DAY_PARTS = 48
"""Half hours."""
DAY_LOW, DAY_PEAK = 0.4, 1.0
OPENING_HOUR, OPENING_TIMES = 13.5, 1.5
"""Of the day, UTC: the half hour in which American markets open."""
Shape = Callable[[float], tuple[Span, ...]]


def constant(duration_s: float) -> tuple[Span, ...]:
    """The rate, all the time."""
    return (_span(duration_s, 1.0),)


def steps(duration_s: float) -> tuple[Span, ...]:
    """A quarter of the rate, then half of it, and so on up to all of it: where does it bend?"""
    return tuple(_span(duration_s / STEPS, (step + 1) / STEPS) for step in range(STEPS))


def ramp(duration_s: float) -> tuple[Span, ...]:
    """From nothing to the rate in a straight line."""
    return (_span(duration_s, 0.0, 1.0),)


def spike(duration_s: float) -> tuple[Span, ...]:
    """Five times the rate in the middle fifth: does it come back?"""
    return (
        _span(duration_s * 0.4, 1.0),
        _span(duration_s * 0.2, SPIKE_TIMES),
        _span(duration_s * 0.4, 1.0),
    )


def day(duration_s: float) -> tuple[Span, ...]:
    """A day in short, from 0 to 24 h: quiet at night, a peak in the afternoon, an opening that comes at once."""
    part_s = duration_s / DAY_PARTS
    return tuple(_span(part_s, _of_day(part / 2), _of_day((part + 1) / 2)) for part in range(DAY_PARTS))


def _of_day(hour: float) -> float:
    middle, swing = (DAY_PEAK + DAY_LOW) / 2, (DAY_PEAK - DAY_LOW) / 2
    # The peak is at 15 h, the quietest hour at 3 h.
    level = middle - swing * math.cos((hour - 3.0) / 24.0 * math.tau)
    return level * (OPENING_TIMES if hour == OPENING_HOUR else 1.0)


def _span(duration_s: float, begin: float, end: float | None = None) -> Span:
    return Span(duration_s=duration_s, factor=begin, factor_to=end)


SHAPES: Mapping[str, Shape] = {"constant": constant, "steps": steps, "ramp": ramp, "spike": spike, "day": day}
