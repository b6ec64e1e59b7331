"""Rate limits of accounts, by tier: a bucket for orders, and one for cancels ten times as big."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from exchange.overload.token_bucket import TokenBucket
from exchange.settings import RateLimit, RateLimits

CANCELS_FACTOR = 10
"""Cancels reduce risk, so their limit is there against abuse alone."""
ACCOUNTS_KEPT_MAX = 100_000


class Tier(IntEnum):
    """Numbers as in `admin.proto`."""

    STANDARD = 1
    MAKER = 2
    UNLIMITED = 3
    """For operators, and for measurements."""


class RateState(NamedTuple):
    """What a client is told of its limit: orders a second, orders that it could send at once, seconds until full."""

    limit_per_s: int
    remaining: int
    reset_s: float


class Refusal(NamedTuple):
    """Which of them exceed the limit, and when the same would be let through; None: never, it is more than may come
    at once."""

    orders: bool
    cancels: bool
    wait_s: float | None


class _Buckets(NamedTuple):
    limit: RateLimit
    orders: TokenBucket
    cancels: TokenBucket


class AccountLimits:
    """The buckets of the accounts that have sent something lately."""

    def __init__(self, limits: RateLimits, monotonic_s: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic_s = monotonic_s
        self._buckets: dict[int, _Buckets] = {}
        self.limited = 0
        """Commands that were refused."""

    def set_limits(self, limits: RateLimits) -> None:
        """Go on with others; a bucket whose limit has changed begins anew."""
        self._limits = limits

    def take(self, account: int, tier: int, orders: int, cancels: int) -> Refusal | None:
        """Let orders and cancels through, or say which of the two is too much. Each goes as a whole or not at all."""
        buckets = self._of(account, tier)
        if buckets is None:
            return None
        now_s = self._monotonic_s()
        orders_pass = not orders or buckets.orders.take(orders, now_s)
        cancels_pass = not cancels or buckets.cancels.take(cancels, now_s)
        if orders_pass and cancels_pass:
            return None
        waits = []
        if not orders_pass:
            self.limited += orders
            waits.append(buckets.orders.wait_s(orders, now_s))
        if not cancels_pass:
            self.limited += cancels
            waits.append(buckets.cancels.wait_s(cancels, now_s))
        known = [wait_s for wait_s in waits if wait_s is not None]
        return Refusal(not orders_pass, not cancels_pass, max(known) if len(known) == len(waits) else None)

    def state(self, account: int, tier: int) -> RateState | None:
        """Return what is left to an account; None: it has no limit."""
        buckets = self._of(account, tier)
        if buckets is None:
            return None
        tokens = buckets.orders.tokens(self._monotonic_s())
        reset_s = (buckets.limit.burst - tokens) / buckets.limit.orders_per_s
        return RateState(buckets.limit.orders_per_s, int(tokens), reset_s)

    def _of(self, account: int, tier: int) -> _Buckets | None:
        if tier == Tier.UNLIMITED:
            return None
        limit = self._limits.maker if tier == Tier.MAKER else self._limits.standard
        buckets = self._buckets.pop(account, None)
        if buckets is None or buckets.limit != limit:
            now_s = self._monotonic_s()
            buckets = _Buckets(
                limit,
                TokenBucket(limit.orders_per_s, limit.burst, now_s),
                TokenBucket(limit.orders_per_s * CANCELS_FACTOR, limit.burst * CANCELS_FACTOR, now_s),
            )
        # Last come, last to go.
        self._buckets[account] = buckets
        if len(self._buckets) > ACCOUNTS_KEPT_MAX:
            del self._buckets[next(iter(self._buckets))]
        return buckets
