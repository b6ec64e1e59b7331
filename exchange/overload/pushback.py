"""When a client that was refused shall come back."""

from __future__ import annotations

from collections.abc import Callable

LEAST_MS = 200
NEVER_MS = -1


def pushback_ms(
    backlog_ms: float,
    random: Callable[[], float],
    *,
    stage_opens_in_ms: float = 0.0,
    at_least_ms: float = 0.0,
) -> int:
    """Return when to come back: as late as the longest reason asks, spread so that not all come at once.

    `at_least_ms` is known exactly, as a rate limit is: to come sooner would be of no use.
    """
    spread_ms = (0.5 + random()) * max(LEAST_MS, backlog_ms, stage_opens_in_ms)
    return int(max(spread_ms, at_least_ms * (1 + random() / 2)))


def trailer_ms(retry_after_ms: int, remaining_ms: float | None) -> int:
    """Return what gRPC's own retry is told: not to wait where that would outlive the deadline.

    It would end as a bare DEADLINE_EXCEEDED at the client, and the true reason would be lost. None: no deadline.
    """
    fits = retry_after_ms >= 0 and (remaining_ms is None or retry_after_ms < remaining_ms)
    return retry_after_ms if fits else NEVER_MS
