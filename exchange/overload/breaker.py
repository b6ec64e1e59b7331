"""A gateway that asks a shard less, the more of it the shard refuses (Google SRE book, "Handling Overload")."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

PROBE_S = 1.0
"""One request in this time goes through, however bad it looks."""
BUCKETS = 10


class Breaker:
    """Refuses with probability max(0, (requests - factor x accepts) / (requests + 1)), counted over a window.

    What was refused here counts as a request. A probe that is accepted ends the memory: what refused everything takes
    again. Should it not, that is learnt anew within a few requests.
    """

    def __init__(self, accepts_factor: float, window_s: float, random: Callable[[], float]) -> None:
        self._factor = accepts_factor
        self._bucket_s = window_s / BUCKETS
        self._random = random
        self._buckets: deque[_Bucket] = deque()
        self._requests = 0
        self._accepts = 0
        """Of all buckets together."""
        self._next_probe_s = 0.0
        self._is_probing = False

    def refusal_probability(self, now_s: float) -> float:
        """Return which part of what comes is refused here."""
        horizon_s = now_s - self._bucket_s * BUCKETS
        while self._buckets and self._buckets[0].since_s <= horizon_s:
            self._drop_oldest()
        return max(0.0, (self._requests - self._factor * self._accepts) / (self._requests + 1))

    def lets_through(self, now_s: float) -> bool:
        """Whether to ask the shard; `on_answers` is to follow."""
        probability = self.refusal_probability(now_s)
        if probability <= 0 or self._random() >= probability:
            return True
        if now_s >= self._next_probe_s:
            self._next_probe_s = now_s + PROBE_S
            self._is_probing = True
            return True
        self._count(1, 0, now_s)
        return False

    def on_answers(self, requests: int, accepts: int, now_s: float) -> None:
        """The shard has answered so many requests, and done so many of them."""
        if accepts and self._is_probing:
            self.reset()
        self._count(requests, accepts, now_s)

    def reset(self) -> None:
        """Forget everything: the shard has another host, or takes again."""
        self._buckets.clear()
        self._requests = self._accepts = 0
        self._is_probing = False

    def _count(self, requests: int, accepts: int, now_s: float) -> None:
        if not self._buckets or now_s - self._buckets[-1].since_s >= self._bucket_s:
            if len(self._buckets) == BUCKETS:
                self._drop_oldest()
            self._buckets.append(_Bucket(now_s))
        bucket = self._buckets[-1]
        bucket.requests += requests
        bucket.accepts += accepts
        self._requests += requests
        self._accepts += accepts

    def _drop_oldest(self) -> None:
        bucket = self._buckets.popleft()
        self._requests -= bucket.requests
        self._accepts -= bucket.accepts


@dataclass(slots=True)
class _Bucket:
    since_s: float
    requests: int = 0
    accepts: int = 0
