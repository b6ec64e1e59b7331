"""The rate limits of the accounts that send through this gateway."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from exchange.engine.ledger_words import Permission
from exchange.engine.words import RejectReason
from exchange.gateway.auth import Caller
from exchange.overload.account_limits import AccountLimits, RateState, Tier
from exchange.overload.classes import ShedReason
from exchange.overload.pushback import NEVER_MS, pushback_ms
from exchange.runtime.messages import ReplyStatus, SegmentReply
from exchange.settings import Settings


class Limits:
    """`tier_of` has the tier of an account. Keys of operators have no limit: what they stop must not wait."""

    def __init__(
        self,
        settings: Settings,
        tier_of: Callable[[int], int],
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._tier_of = tier_of
        self._random = random
        self._accounts = AccountLimits(settings.rate_limits, monotonic_s)
        self._is_off = settings.is_naive

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._accounts.set_limits(settings.rate_limits)
        self._is_off = settings.is_naive

    @property
    def limited(self) -> int:
        """How many commands were refused."""
        return self._accounts.limited

    def refuses(
        self, caller: Caller, orders: int, cancels: int
    ) -> tuple[SegmentReply | None, SegmentReply | None] | None:
        """Let commands through, or return the refusals of the orders and of the cancels, of which one may pass."""
        tier = self._tier(caller)
        if tier == Tier.UNLIMITED:
            return None
        refusal = self._accounts.take(caller.account, tier, orders, cancels)
        if refusal is None:
            return None
        if refusal.wait_s is None:
            detail, retry_after_ms = "more in one message than the account may send at once", NEVER_MS
        else:
            detail = f"account {caller.account} sends more than its tier {Tier(tier).name} may"
            retry_after_ms = pushback_ms(0.0, self._random, at_least_ms=refusal.wait_s * 1_000)
        reason, shed = int(RejectReason.RATE_LIMITED), str(ShedReason.RATE)
        reply = SegmentReply(int(ReplyStatus.REFUSED), reason, b"", detail, max(retry_after_ms, 0), shed)
        return reply if refusal.orders else None, reply if refusal.cancels else None

    def state(self, caller: Caller) -> RateState | None:
        """Return what a caller has left; None: it has no limit."""
        tier = self._tier(caller)
        return None if tier == Tier.UNLIMITED else self._accounts.state(caller.account, tier)

    def _tier(self, caller: Caller) -> int:
        if self._is_off or caller.may(Permission.OPERATOR):
            return int(Tier.UNLIMITED)
        return self._tier_of(caller.account)
