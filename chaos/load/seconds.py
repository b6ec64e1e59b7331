"""What a load amounts to, second by second: in each process as it goes on, and of all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from chaos.load.record import histogram_of

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
    latencies_us: dict[str, list[int]] = {}
    """By class, of what was answered, from the intended time."""
    late_us: list[int] = []
    """How late each was sent: what the load generator itself adds."""
    offered_by_market: dict[str, int] = {}
    good_by_market: dict[str, int] = {}

    @property
    def requests(self) -> int:
        return sum(self.offered.values())


def merged(parts: Sequence[LoadSecond]) -> LoadSecond:
    """Return one second of several processes as one."""
    latencies: dict[str, list[int]] = {}
    for part in parts:
        for kind, durations in part.latencies_us.items():
            latencies.setdefault(kind, []).extend(durations)
    return LoadSecond(
        t=parts[0].t,
        offered=_sum(part.offered for part in parts),
        good=sum(part.good for part in parts),
        refused=_sum(part.refused for part in parts),
        rejected=sum(part.rejected for part in parts),
        unknown=sum(part.unknown for part in parts),
        not_sent=sum(part.not_sent for part in parts),
        attempts=sum(part.attempts for part in parts),
        latencies_us=latencies,
        late_us=[late for part in parts for late in part.late_us],
        offered_by_market=_sum(part.offered_by_market for part in parts),
        good_by_market=_sum(part.good_by_market for part in parts),
    )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def percentile_ms(durations_us: Sequence[int], percent: float) -> float:
    """Return a percentile in ms, to three digits; 0 of none."""
    return float(histogram_of(us / 1e6 for us in durations_us).get_value_at_percentile(percent)) / 1e3


class Seconds:
    """Counts requests by the second in which they were due, and gives each second once it is complete."""

    def __init__(self, deadline_by_group_s: dict[str, float]) -> None:
        self._deadline_s = deadline_by_group_s
        self._seconds: dict[int, LoadSecond] = {}
        self._open: Counter[int] = Counter()
        self._next = 0

    def _at(self, t: int) -> LoadSecond | None:
        """Return a second; None if it has been told already."""
        return self._seconds.setdefault(t, LoadSecond(t=t)) if t >= self._next else None

    def due(self, at_s: float, kind: str, market: str, late_s: float) -> None:
        second = self._at(int(at_s))
        if second is not None:
            second.offered[kind] = second.offered.get(kind, 0) + 1
            second.offered_by_market[market] = second.offered_by_market.get(market, 0) + 1
            second.late_us.append(max(int(late_s * 1e6), 0))
            self._open[int(at_s)] += 1

    def not_sent(self, at_s: float) -> None:
        if (second := self._end(at_s)) is not None:
            second.not_sent += 1

    def answered(self, at_s: float, kind: str, market: str, group: str, latency_s: float, *, rejected: bool) -> None:
        """Note a definite answer about a request: done, or refused for what it is."""
        second = self._end(at_s)
        if second is None:
            return
        second.latencies_us.setdefault(kind, []).append(int(latency_s * 1e6))
        if rejected:
            second.rejected += 1
        if latency_s <= self._deadline_s[group]:
            second.good += 1
            second.good_by_market[market] = second.good_by_market.get(market, 0) + 1

    def refused(self, at_s: float, reason: str) -> None:
        if (second := self._end(at_s)) is not None:
            second.refused[reason] = second.refused.get(reason, 0) + 1

    def unknown(self, at_s: float) -> None:
        if (second := self._end(at_s)) is not None:
            second.unknown += 1

    def _end(self, at_s: float) -> LoadSecond | None:
        second = self._at(int(at_s))
        if second is not None:
            self._open[int(at_s)] -= 1
        return second

    def attempts(self, now_s: float, count: int) -> None:
        if (second := self._at(int(now_s))) is not None:
            second.attempts += count

    def complete(self, now_s: float, end_s: float) -> list[LoadSecond]:
        """Return the seconds that are over by now, in order, up to the end of the load."""
        complete = []
        while self._next + 1 <= min(now_s, end_s):
            t = self._next
            if self._open[t] and now_s < t + 1 + OPEN_S_MAX:
                break
            second = self._seconds.pop(t, None) or LoadSecond(t=t)
            second.unknown += self._open.pop(t, 0)
            complete.append(second)
            self._next += 1
        return complete
