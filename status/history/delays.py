"""Delays condensed from looks: for each component and some minutes, the median and the 99th percentile."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median, quantiles

from status.levels import FUNDS, gateway_id, market_data_id, trading_id
from status.model import Latency
from status.watch.looks import Kind, Look, Result

_DAY_NS = 86_400_000_000_000
_SERIES_MAX = 288
"""Points that a board holds of a component: a day of five minutes each."""


@dataclass(frozen=True, slots=True)
class Delay:
    component: str
    begin_ns: int
    looks: int
    p50_ms: float
    p99_ms: float


class Delays:
    """Collects a bucket of time after the other."""

    def __init__(self, bucket_s: int) -> None:
        self._bucket_ns = bucket_s * 1_000_000_000
        self._samples: dict[tuple[str, int], list[float]] = {}
        self._recent: dict[str, deque[Latency]] = {}

    def see(self, look: Look) -> None:
        if look.result is not Result.OK or look.kind is Kind.STREAM:
            return
        begin_ns = look.ended_ns // self._bucket_ns * self._bucket_ns
        self._samples.setdefault((_component_of(look), begin_ns), []).append(look.latency_ms)

    def finished(self, now_ns: int) -> list[Delay]:
        """Return the buckets that are over, once each."""
        over = [key for key in self._samples if key[1] + self._bucket_ns <= now_ns]
        finished = [_condensed(*key, self._samples.pop(key)) for key in over]
        for delay in finished:
            self.add(delay)
        return finished

    def add(self, delay: Delay) -> None:
        """Of before, or just finished."""
        kept = self._recent.setdefault(delay.component, deque(maxlen=_SERIES_MAX))
        at_ns = delay.begin_ns + self._bucket_ns
        kept.append(Latency(at_ns=at_ns, p50_ms=delay.p50_ms, p99_ms=delay.p99_ms))

    def series(self, component: str, now_ns: int) -> tuple[Latency, ...]:
        """Return the last 24 hours of a component, oldest first."""
        return tuple(point for point in self._recent.get(component, ()) if point.at_ns > now_ns - _DAY_NS)


def _component_of(look: Look) -> str:
    match look.kind:
        case Kind.ORDER | Kind.CANCEL:
            return trading_id(look.instrument)
        case Kind.BOOK | Kind.STREAM:
            return market_data_id(look.instrument)
        case Kind.GATEWAY:
            return gateway_id(look.gateway)
        case Kind.ACCOUNT:
            return FUNDS


def _condensed(component: str, begin_ns: int, samples: list[float]) -> Delay:
    p50 = median(samples)
    p99 = quantiles(samples, n=100, method="inclusive")[98] if len(samples) > 1 else p50
    return Delay(component, begin_ns, len(samples), round(p50, 2), round(p99, 2))
