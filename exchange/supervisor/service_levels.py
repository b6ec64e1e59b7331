"""How well a group of processes serves: read from their vitals, summed up over a window of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, median
from typing import Any, NamedTuple

from exchange.supervisor.component import Component

SAMPLES_MAX = 256
CONFIDENCE = 0.99
_Z = NormalDist().inv_cdf(CONFIDENCE)
_ORDER_CLASSES = (1, 2, 3)
"""Control goes ahead of everything, and nobody is promised anything for queries."""


Part = tuple[str, ...]
"""What serves: a machine or a gateway by its name, or the link of a gateway to a machine by both names."""


class Reading(NamedTuple):
    """Of one part: the p99 of the delay of the last interval, and counts since its process began."""

    p99_ms: float = 0.0
    asked: int = 0
    refused: int = 0


class Levels(NamedTuple):
    """What clients got within a window: the usual p99 of the slowest, and the share that was refused."""

    p99_ms: float = 0.0
    asked: int = 0
    refused: int = 0

    @property
    def refused_share(self) -> float:
        return self.refused / self.asked if self.asked else 0.0

    @property
    def refused_share_min(self) -> float:
        """What is refused of all that could be asked, at least: the lower bound of Wilson's interval, one-sided."""
        if not self.asked:
            return 0.0
        share, spread = self.refused_share, _Z * _Z / self.asked
        deviation = _Z * sqrt(share * (1 - share) / self.asked + spread / (4 * self.asked))
        return max(0.0, (share + spread / 2 - deviation) / (1 + spread))


class Samples:
    """Readings by part, for a while. `keep_s` is how far back one can look."""

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s
        self._every_s = keep_s / (SAMPLES_MAX - 2)
        self._rows: deque[tuple[float, Mapping[Part, Reading]]] = deque(maxlen=SAMPLES_MAX)

    def add(self, now_s: float, readings: Mapping[Part, Reading]) -> None:
        if not self._rows or now_s - self._rows[-1][0] >= self._every_s:
            self._rows.append((now_s, readings))

    def copy(self) -> Samples:
        """Return what there is now."""
        samples = Samples(self.keep_s)
        samples._rows.extend(self._rows)
        return samples

    def levels(self, is_meant: Callable[[Part], bool], since_s: float) -> Levels:
        """Return what the parts that are meant have done since then; nothing where nothing is known."""
        rows = [
            {part: reading for part, reading in row.items() if is_meant(part)}
            for time_s, row in self._rows
            if time_s >= since_s
        ]
        if not rows:
            return Levels()
        p99_ms = median(max((reading.p99_ms for reading in row.values()), default=0.0) for row in rows)
        parts = {part: None for row in rows for part in row}
        asked, refused = (sum(_grown(rows, part, count) for part in parts) for count in ("asked", "refused"))
        return Levels(p99_ms, asked, refused)


def read(components: Iterable[Component]) -> dict[Part, Reading]:
    """Return a reading of each machine, gateway and link, from the vitals of the processes that serve."""
    readings: dict[Part, Reading] = {}
    for component in components:
        load = component.vitals.get("load") or {}
        if component.is_gateway:
            readings[component.name,] = Reading(0.0, load.get("commands", 0), load.get("rate_limited", 0))
            for machine, link in load.get("links", {}).items():
                shed = sum(n for reasons in link.get("shed", {}).values() for n in reasons.values())
                readings[component.name, machine] = Reading(_p99_of(link), shed, shed)
        elif component.machine and not component.is_standby:
            # What was late was admitted, too.
            shed = load.get("shed", 0)
            readings[component.machine,] = Reading(
                _p99_of(load), load.get("admitted", 0) + shed, load.get("late", 0) + shed
            )
    return readings


def losses_of(components: Iterable[Component]) -> dict[str, int]:
    """Return how often each gateway, and each machine or its standby, was lost since this supervisor became active."""
    losses: dict[str, int] = {}
    for component in components:
        losses[component.serves] = losses.get(component.serves, 0) + component.losses
    return losses


def _p99_of(load: Mapping[str, Any]) -> float:
    delays = load.get("delay_ms", {})
    return max((float(delays.get(number, 0.0)) for number in _ORDER_CLASSES), default=0.0)


def _grown(rows: Sequence[Mapping[Part, Reading]], part: Part, count: str) -> int:
    """Return by how much a count grew; it begins at 0 again with each process."""
    counts = [getattr(row[part], count) for row in rows if part in row]
    return sum(after - before if after >= before else after for before, after in pairwise(counts))
