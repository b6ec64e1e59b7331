"""How long a market took no new order around a fault, as its clients saw it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from chaos.campaign.plan import LoadPlan
from chaos.load.client_log import ACKNOWLEDGED, read_lines


def longest_pauses(plan: LoadPlan, logs: Path, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Return for each span (from, to, in monotonic ns) the longest time without a new order in any market, in s.

    An order counts from when its answer came; the pause that is under way at the end of a span counts to its own end.
    """
    answered = acknowledged_times(plan, logs)
    pauses = []
    for start_ns, end_ns in spans:
        longest = 0
        for times in answered.values():
            at = max(bisect_left(times, start_ns) - 1, 0)
            while at + 1 < len(times) and times[at] < end_ns:
                longest = max(longest, times[at + 1] - times[at])
                at += 1
        pauses.append(longest / 1e9)
    return pauses


def acknowledged_times(plan: LoadPlan, logs: Path) -> dict[str, list[int]]:
    """Return for each market when new orders were acknowledged, in order, in monotonic ns."""
    answered: dict[str, list[int]] = defaultdict(list)
    for trader in plan.traders:
        for line, _ in read_lines(logs / f"{trader.name}.log"):
            if line["e"] == "out" and line["k"] == "place" and line["o"] == ACKNOWLEDGED and not line["dup"]:
                answered[line["sym"]].append(line["t"])
    for times in answered.values():
        times.sort()
    return answered
