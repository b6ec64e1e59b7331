"""What became of each request, and what that adds up to."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from hdrh.histogram import HdrHistogram

LATENCY_MS_MAX = 120_000


class Kind(IntEnum):
    PLACE = 0
    CANCEL = 1


class Ending(IntEnum):
    ACKNOWLEDGED = 0
    """Done, and known to be."""
    REJECTED = 1
    """Definitely refused for what it is: no failure of the exchange."""
    REFUSED = 2
    """Surely not executed, for lack of room, of a stage, or of somebody who takes it."""
    UNKNOWN = 3
    """Nobody could say within its time."""
    NOT_SENT = 4
    """The load generator had too many under way."""


@dataclass(slots=True)
class Request:
    """Times in s since the load began; `done_s` is when its sender knew or gave up."""

    kind: Kind
    intended_s: float
    done_s: float = 0.0
    ending: Ending = Ending.NOT_SENT
    reason: str = ""
    late_s: float = 0.0
    """How late it was sent: what the load generator itself adds."""

    @property
    def latency_s(self) -> float:
        """From when it was meant to be sent: that it was sent late is not the exchange's merit."""
        return self.done_s - self.intended_s


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the requests that were due within a time, and of the attempts that were made in it. Rates a second."""

    offered_per_s: float
    attempts_per_s: float
    goodput_per_s: float
    """Acknowledged within the deadline of the intended time."""
    p50_ms: float
    p99_ms: float
    """Of those that were acknowledged, whenever."""
    refused: int
    unknown: int
    not_sent: int
    late_p99_ms: float
    """Of the load generator: beyond some ten, the figures are its own."""

    @property
    def amplification(self) -> float:
        return self.attempts_per_s / self.offered_per_s if self.offered_per_s else 0.0


def histogram_of(durations_s: Iterable[float]) -> HdrHistogram:
    """Return durations in µs, to three digits."""
    histogram = HdrHistogram(1, LATENCY_MS_MAX * 1_000, 3)
    for duration_s in durations_s:
        histogram.record_value(max(int(duration_s * 1e6), 1))
    return histogram


@dataclass(slots=True)
class Record:
    """All of a load. Times in s since it began."""

    deadline_s: float
    requests: list[Request] = field(default_factory=list)
    attempts: list[tuple[float, int]] = field(default_factory=list)
    """How many attempts had been made in all, looked at again and again."""

    def attempts_between(self, from_s: float, to_s: float) -> int:
        return self._attempts_by(to_s) - self._attempts_by(from_s)

    def _attempts_by(self, time_s: float) -> int:
        at = bisect_right(self.attempts, time_s, key=lambda sample: sample[0])
        return self.attempts[at - 1][1] if at else 0

    def between(self, from_s: float, to_s: float, kind: Kind | None = None) -> Summary:
        """Sum up what was due in [from_s, to_s)."""
        due = [r for r in self.requests if from_s <= r.intended_s < to_s and kind in (None, r.kind)]
        duration_s = to_s - from_s
        histogram = histogram_of(r.latency_s for r in due if r.ending == Ending.ACKNOWLEDGED)
        endings = Counter(request.ending for request in due)
        good = sum(r.ending == Ending.ACKNOWLEDGED and r.latency_s <= self.deadline_s for r in due)
        return Summary(
            offered_per_s=len(due) / duration_s,
            attempts_per_s=self.attempts_between(from_s, to_s) / duration_s,
            goodput_per_s=good / duration_s,
            p50_ms=histogram.get_value_at_percentile(50) / 1e3,
            p99_ms=histogram.get_value_at_percentile(99) / 1e3,
            refused=endings[Ending.REFUSED],
            unknown=endings[Ending.UNKNOWN],
            not_sent=endings[Ending.NOT_SENT],
            late_p99_ms=histogram_of(request.late_s for request in due).get_value_at_percentile(99) / 1e3,
        )
