"""HDR histograms of latency: exact to three digits, of a fixed size, mergeable, in the form that other tools read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hdrh.histogram import HdrHistogram

LATENCY_US_MAX = 120_000_000
DIGITS = 3
US_PER_MS = 1_000.0
_HEADER = """#[Histogram log format version 1.2]
#[latency from the intended time of sending, in us, by class of request]
#[StartTime: 0.000 (seconds since epoch), of the load]
"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
"""


def new_histogram() -> HdrHistogram:
    """Return an empty one, in µs."""
    return HdrHistogram(1, LATENCY_US_MAX, DIGITS)


def record(histogram: HdrHistogram, duration_s: float) -> None:
    """Add a duration; one that is longer than all that counts is the longest that does."""
    histogram.record_value(min(max(int(duration_s * 1e6), 1), LATENCY_US_MAX))


def encoded(histogram: HdrHistogram) -> str:
    """Return it in the form that all HDR libraries read: compressed, in base64."""
    return str(histogram.encode(), "ascii")


def decoded(parts: Iterable[str]) -> HdrHistogram:
    """Return one histogram of several encoded ones; of none: an empty one."""
    histogram = new_histogram()
    for part in parts:
        histogram.decode_and_add(part)
    return histogram


def percentile_ms(histogram: HdrHistogram, percent: float) -> float:
    """Return a percentile in ms; 0 of an empty one."""
    return float(histogram.get_value_at_percentile(percent)) / US_PER_MS if histogram.total_count else 0.0


def max_ms(histogram: HdrHistogram) -> float:
    return float(histogram.get_max_value()) / US_PER_MS if histogram.total_count else 0.0


class HistogramLog:
    """A `.hlog` file: a line for each interval and tag, maxima in ms, times in s since the load began."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="ascii")
        self._file.write(_HEADER)

    def write(self, from_s: float, histograms: Mapping[str, str]) -> None:
        """Add the encoded histograms of one second."""
        for tag, text in sorted(histograms.items()):
            peak_ms = max_ms(decoded([text]))
            self._file.write(f"Tag={tag},{from_s:.3f},1.000,{peak_ms:.3f},{text}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
