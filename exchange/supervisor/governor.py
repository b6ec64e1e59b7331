"""When a component that was lost is started again, and when no more, lest restarts be the next outage (P13).

The first loss costs nothing. Those after it within a minute wait longer and longer. What came up and was lost again too
often in a minute is parked until a person lets it go. What does not even come up takes no work and disturbs nobody: it
is tried again for as long as it takes, as the journal's servers, say, may be back.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from random import Random

from exchange.settings import Governor

BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
JITTER = 0.5
"""So much less it may be, so that what was lost together does not come back together."""
WINDOW_S = 60.0


class RestartGovernor:
    """Components by their names. `random` spreads what waits."""

    def __init__(self, settings: Callable[[], Governor], random: Random) -> None:
        self._settings = settings
        self._random = random
        self._lost_s: defaultdict[str, deque[tuple[float, bool]]] = defaultdict(deque)
        """When it was lost during the last minute, and whether it had come up."""
        self._failures: defaultdict[str, int] = defaultdict(int)
        """Losses since it was up last."""

    def note_lost(self, name: str, now_s: float, *, was_up: bool) -> float:
        """Count a loss; return after how many seconds the next start is due."""
        lost = self._lost_s[name]
        while lost and lost[0][0] < now_s - WINDOW_S:
            lost.popleft()
        level = max(len(lost), self._failures[name])
        lost.append((now_s, was_up))
        self._failures[name] += 1
        backoff_s = min(BACKOFF_S[min(level, len(BACKOFF_S) - 1)], self._settings().backoff_max_ms / 1_000)
        return backoff_s * (1 - JITTER * self._random.random())

    def refuses(self, name: str) -> str:
        """Return why a component is to be parked, "" if it is not."""
        restarts = sum(was_up for _, was_up in self._lost_s[name])
        limit = self._settings().restarts_per_min_max
        if restarts <= limit:
            return ""
        return f"lost {restarts} times within a minute after it had come up, expected at most {limit}"

    def note_up(self, name: str) -> None:
        """Forget the starts that failed before."""
        self._failures.pop(name, None)

    def forget(self, name: str) -> None:
        """Begin anew with a component."""
        self._failures.pop(name, None)
        self._lost_s.pop(name, None)
