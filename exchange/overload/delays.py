"""How long work has waited lately, by class."""

from __future__ import annotations

from exchange.overload.classes import WorkClass

SAMPLES_MAX = 512
"""Of a class and interval; beyond them every further one takes the place of another in turn."""


class Delays:
    """The 99th percentile of each class over the last whole interval, or this one if it is higher."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        self._since_s = 0.0
        self._samples: dict[WorkClass, list[float]] = {}
        self._seen: dict[WorkClass, int] = {}
        self._last: dict[WorkClass, float] = {}

    def note(self, work_class: WorkClass, delay_s: float, now_s: float) -> None:
        self._turn(now_s)
        samples = self._samples.setdefault(work_class, [])
        seen = self._seen[work_class] = self._seen.get(work_class, 0) + 1
        if len(samples) < SAMPLES_MAX:
            samples.append(delay_s)
        else:
            samples[seen % SAMPLES_MAX] = delay_s

    def p99_ms(self, now_s: float) -> dict[int, float]:
        """Return the percentiles in milliseconds of the classes that had work."""
        self._turn(now_s)
        found = dict(self._last)
        for work_class, samples in self._samples.items():
            found[work_class] = max(found.get(work_class, 0.0), _p99(samples))
        return {int(work_class): round(delay_s * 1_000, 1) for work_class, delay_s in sorted(found.items())}

    def _turn(self, now_s: float) -> None:
        if now_s - self._since_s < self._interval_s:
            return
        is_next = now_s - self._since_s < 2 * self._interval_s
        self._last = {c: _p99(samples) for c, samples in self._samples.items()} if is_next else {}
        self._samples, self._seen, self._since_s = {}, {}, now_s


def _p99(samples: list[float]) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]
