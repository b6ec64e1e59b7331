"""Durations as HDR histograms."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

LATENCY_MS_MAX = 120_000


def histogram_of(durations_s: Iterable[float]) -> HdrHistogram:
    """Return durations in µs, to three digits."""
    histogram = HdrHistogram(1, LATENCY_MS_MAX * 1_000, 3)
    for duration_s in durations_s:
        histogram.record_value(max(int(duration_s * 1e6), 1))
    return histogram
