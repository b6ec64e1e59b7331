"""What a load amounts to, second by second: in each process as it goes on, and of all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from hdrh.histogram import HdrHistogram

from chaos.load.histograms import decoded, encoded, new_histogram, record

OPEN_S_MAX = 15.0
"""A second is told once all of its requests have ended, or after so long: what is open then is unknown."""


class LoadSecond(msgspec.Struct, kw_only=True):
    """Requests that were due in one second, and the attempts that were made in it. Counts."""

    t: int
    offered: dict[str, int] = {}
    """By class: `place`, `cancel`, `amend`, `query`."""
    good: int = 0
    """Acknowledged within the deadline of the intended time; of queries, answered."""
    refused: dict[str, int] = {}
    """By reason: surely not executed, for lack of room, of a stage, or of somebody who takes it."""
    rejected: int = 0
    """Refused for what they are: no failure of the exchange."""
    unknown: int = 0
    not_sent: int = 0
    attempts: int = 0
    latencies: dict[str, str] = {}
    """By class, of what was answered, from the intended time: encoded histograms in µs."""
    late: str = ""
    """How late requests were sent, likewise: what the load generator itself adds."""
    offered_by_market: dict[str, int] = {}
    good_by_market: dict[str, int] = {}

    @property
    def requests(self) -> int:
        return sum(self.offered.values())


def merged(parts: Sequence[LoadSecond]) -> LoadSecond:
    """Return one second of several processes as one, or several seconds as one: `t` is that of the first."""
    kinds = sorted({kind for part in parts for kind in part.latencies})
    return LoadSecond(
        t=parts[0].t,
        offered=_sum(part.offered for part in parts),
        good=sum(part.good for part in parts),
        refused=_sum(part.refused for part in parts),
        rejected=sum(part.rejected for part in parts),
        unknown=sum(part.unknown for part in parts),
        not_sent=sum(part.not_sent for part in parts),
        attempts=sum(part.attempts for part in parts),
        latencies={
            kind: _merged_histogram([part.latencies[kind] for part in parts if kind in part.latencies])
            for kind in kinds
        },
        late=_merged_histogram([part.late for part in parts if part.late]),
        offered_by_market=_sum(part.offered_by_market for part in parts),
        good_by_market=_sum(part.good_by_market for part in parts),
    )


def _merged_histogram(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else encoded(decoded(parts)) if parts else ""


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


@dataclass(slots=True)
class _Open:
    """A second that is not complete."""

    second: LoadSecond
    latencies: dict[str, HdrHistogram] = field(default_factory=dict)
    late: HdrHistogram = field(default_factory=new_histogram)
    under_way: int = 0

    def close(self) -> LoadSecond:
        second = self.second
        second.unknown += self.under_way
        second.latencies = {kind: encoded(histogram) for kind, histogram in self.latencies.items()}
        second.late = encoded(self.late) if self.late.total_count else ""
        return second


class Seconds:
    """Counts requests by the second in which they were due, and gives each second once it is complete."""

    def __init__(self, deadline_by_group_s: Mapping[str, float]) -> None:
        self._deadline_s = deadline_by_group_s
        self._seconds: dict[int, _Open] = {}
        self._next = 0

    def _at(self, t: int) -> _Open | None:
        """Return a second; None if it has been told already."""
        at = self._seconds.get(t)
        if at is None and t >= self._next:
            at = self._seconds[t] = _Open(LoadSecond(t=t))
        return at

    def due(self, at_s: float, kind: str, market: str) -> None:
        if (at := self._at(int(at_s))) is None:
            return
        second = at.second
        second.offered[kind] = second.offered.get(kind, 0) + 1
        second.offered_by_market[market] = second.offered_by_market.get(market, 0) + 1
        at.under_way += 1

    def sent(self, at_s: float, late_s: float) -> None:
        """Note how long after its time a request was begun, or given up."""
        if (at := self._at(int(at_s))) is not None:
            record(at.late, late_s)

    def not_sent(self, at_s: float) -> None:
        if (at := self._end(at_s)) is not None:
            at.second.not_sent += 1

    def answered(self, at_s: float, kind: str, market: str, group: str, latency_s: float, *, rejected: bool) -> None:
        """Note a definite answer about a request: done, or refused for what it is."""
        if (at := self._end(at_s)) is None:
            return
        second = at.second
        histogram = at.latencies.get(kind)
        if histogram is None:
            histogram = at.latencies[kind] = new_histogram()
        record(histogram, latency_s)
        if rejected:
            second.rejected += 1
        if latency_s <= self._deadline_s[group]:
            second.good += 1
            second.good_by_market[market] = second.good_by_market.get(market, 0) + 1

    def refused(self, at_s: float, reason: str) -> None:
        if (at := self._end(at_s)) is not None:
            at.second.refused[reason] = at.second.refused.get(reason, 0) + 1

    def unknown(self, at_s: float) -> None:
        if (at := self._end(at_s)) is not None:
            at.second.unknown += 1

    def _end(self, at_s: float) -> _Open | None:
        at = self._at(int(at_s))
        if at is not None:
            at.under_way -= 1
        return at

    def attempts(self, now_s: float, count: int) -> None:
        if (at := self._at(int(now_s))) is not None:
            at.second.attempts += count

    def complete(self, now_s: float, end_s: float) -> list[LoadSecond]:
        """Return the seconds that are over by now, in order, up to the end of the load."""
        complete = []
        while self._next + 1 <= min(now_s, end_s):
            t = self._next
            at = self._seconds.get(t) or _Open(LoadSecond(t=t))
            if at.under_way and now_s < t + 1 + OPEN_S_MAX:
                break
            self._seconds.pop(t, None)
            complete.append(at.close())
            self._next += 1
        return complete
