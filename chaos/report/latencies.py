"""HDR histograms of latency as a run leaves them: a log of intervals, tagged with the class of request, in µs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from chaos.load.histograms import new_histogram

DEFAULT_CLASS = "all"


class LatencyUnreadable(ValueError):
    """A histogram log is not one."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What requests of one class took in one interval; `t` is in s since the load began."""

    kind: str
    t: float
    histogram: HdrHistogram


def read_latencies(path: Path) -> tuple[Latency, ...]:
    """Return the intervals of a log. Its timestamps count from the begin of the load, or it names
    its start, and they are absolute or count from there. Raises `LatencyUnreadable`."""
    found = []
    try:
        is_absolute = "#[StartTime" in path.read_text(encoding="utf-8")
        reader = HistogramLogReader(str(path), new_histogram())
        while (histogram := reader.get_next_interval_histogram()) is not None:
            t = histogram.get_start_time_stamp() / 1_000 - (reader.get_start_time_sec() if is_absolute else 0.0)
            found.append(Latency(histogram.get_tag() or DEFAULT_CLASS, t, histogram))
        reader.close()
    except Exception as error:  # whatever a decoder of compressed bytes raises
        raise LatencyUnreadable(f"expected an HDR histogram log, found {type(error).__name__}: {error}") from error
    return tuple(found)


def merged(latencies: Iterable[Latency]) -> HdrHistogram:
    total = new_histogram()
    for latency in latencies:
        total.add(latency.histogram)
    return total
