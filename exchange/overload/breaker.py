"""A gateway that asks a shard less, the more of it the shard refuses (Google SRE book, "Handling Overload")."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

PROBE_S = 1.0
"""One request in this time goes through, however bad it looks."""
BUCKETS = 10


class Breaker:
    """Refuses with probability max(0, (requests - factor x accepts) / (requests + 1)), counted over a window.

    A probe that is accepted ends the memory: what refused everything takes again. Should it not, that is learnt anew
    within a few requests.
    """

    def __init__(self, accepts_factor: float, window_s: float, random: Callable[[], float]) -> None:
        self._factor = accepts_factor
        self._bucket_s = window_s / BUCKETS
        self._random = random
        self._buckets: deque[list[float]] = deque(maxlen=BUCKETS)
        """(since, requests, accepts)"""
        self._next_probe_s = 0.0
        self._is_probing = False

    def refusal_probability(self, now_s: float) -> float:
        horizon_s = now_s - self._bucket_s * BUCKETS
        while self._buckets and self._buckets[0][0] <= horizon_s:
            self._buckets.popleft()
        requests = sum(bucket[1] for bucket in self._buckets)
        accepts = sum(bucket[2] for bucket in self._buckets)
        return max(0.0, (requests - self._factor * accepts) / (requests + 1))

    def lets_through(self, now_s: float) -> bool:
        """Count a request, and say whether to ask the shard."""
        probability = self.refusal_probability(now_s)
        self._bucket(now_s)[1] += 1
        if probability <= 0 or self._random() >= probability:
            return True
        if now_s >= self._next_probe_s:
            self._next_probe_s = now_s + PROBE_S
            self._is_probing = True
            return True
        return False

    def on_accept(self, now_s: float) -> None:
        """The shard has done what it was asked."""
        if self._is_probing:
            self.reset()
        self._bucket(now_s)[2] += 1

    def reset(self) -> None:
        """Forget everything: the shard has another host."""
        self._buckets.clear()
        self._is_probing = False

    def _bucket(self, now_s: float) -> list[float]:
        if not self._buckets or now_s - self._buckets[-1][0] >= self._bucket_s:
            self._buckets.append([now_s, 0, 0])
        return self._buckets[-1]
