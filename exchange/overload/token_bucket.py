"""A token bucket: so much at once, so much a second in the long run."""

from __future__ import annotations


class TokenBucket:
    """Begins full. In any window of t seconds it lets through at most `burst + rate_per_s * t`."""

    __slots__ = ("_tokens", "_updated_s", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._tokens = burst
        self._updated_s = now_s

    def tokens(self, now_s: float) -> float:
        """Return what could be taken now."""
        elapsed_s = max(now_s - self._updated_s, 0.0)
        self._updated_s = max(now_s, self._updated_s)
        self._tokens = min(self._tokens + elapsed_s * self.rate_per_s, self.burst)
        return self._tokens

    def take(self, amount: float, now_s: float) -> bool:
        """Take all of it or nothing."""
        if self.tokens(now_s) < amount:
            return False
        self._tokens -= amount
        return True

    def wait_s(self, amount: float, now_s: float) -> float | None:
        """Return how long until that much is there; None: never, it is more than the bucket holds."""
        if amount > self.burst:
            return None
        return max(amount - self.tokens(now_s), 0.0) / self.rate_per_s
