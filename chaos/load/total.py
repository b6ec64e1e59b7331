"""What a whole load amounts to, and whether the generator kept its own schedule."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from chaos.load.histograms import decoded, max_ms, percentile_ms
from chaos.load.seconds import LoadSecond, merged

LATE_P99_MS_MAX = 2.0
"""Beyond, the generator's own lateness is a part of what it measures."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of what was answered, from the intended time of sending."""

    count: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """Of some seconds; rates are means over them."""

    seconds: int
    offered_per_s: float
    attempts_per_s: float
    goodput_per_s: float
    rejected: int
    refused: dict[str, int]
    unknown: int
    not_sent: int
    latencies: dict[str, Latency]
    """By class of request, and of `all`."""
    late_p99_ms: float
    late_max_ms: float
    late_p99_ms_max: float
    """What was asked of the generator."""

    @property
    def kept_schedule(self) -> bool:
        return self.not_sent == 0 and self.late_p99_ms <= self.late_p99_ms_max

    @property
    def statement(self) -> str:
        """A sentence on how far the figures are those of the target."""
        if self.kept_schedule:
            return f"the generator kept its schedule: {self.late_p99_ms:.2f} ms late at p99"
        return (
            f"the generator did NOT keep its schedule: expected at most {self.late_p99_ms_max:g} ms late at p99 and all"
            f" sent, was {self.late_p99_ms:.2f} ms and {self.not_sent} not sent: the latencies are its own as well;"
            " take more --workers on more cores, or a lower --rate"
        )


def total_of(seconds: Sequence[LoadSecond], late_p99_ms_max: float = LATE_P99_MS_MAX) -> Total:
    """Sum seconds up; at least one."""
    whole = merged(seconds)
    late = decoded([whole.late] if whole.late else [])
    latencies = {kind: latency_of([text]) for kind, text in sorted(whole.latencies.items())}
    return Total(
        seconds=len(seconds),
        offered_per_s=whole.requests / len(seconds),
        attempts_per_s=whole.attempts / len(seconds),
        goodput_per_s=whole.good / len(seconds),
        rejected=whole.rejected,
        refused=whole.refused,
        unknown=whole.unknown,
        not_sent=whole.not_sent,
        latencies={**latencies, "all": latency_of(list(whole.latencies.values()))},
        late_p99_ms=percentile_ms(late, 99.0),
        late_max_ms=max_ms(late),
        late_p99_ms_max=late_p99_ms_max,
    )


def latency_of(encoded: Sequence[str]) -> Latency:
    histogram = decoded(encoded)
    return Latency(
        count=int(histogram.total_count),
        p50_ms=percentile_ms(histogram, 50.0),
        p99_ms=percentile_ms(histogram, 99.0),
        p999_ms=percentile_ms(histogram, 99.9),
        max_ms=max_ms(histogram),
    )
