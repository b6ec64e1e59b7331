"""How late this service itself runs, so that its own trouble is not taken for that of the exchange."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_TICK_S = 0.05
_KEPT = 400
"""Twenty seconds: longer than any look."""


class Lateness:
    """Sleeps briefly, again and again, and notes how much longer each sleep took than it was meant to."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._late: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asleep = loop.time()
            await asyncio.sleep(_TICK_S)
            self.note(self._clock_ns(), (loop.time() - asleep - _TICK_S) * 1_000)

    def note(self, at_ns: int, late_ms: float) -> None:
        self._late.append((at_ns, late_ms))

    def worst_ms(self, begun_ns: int, ended_ns: int) -> float:
        """Return the worst of a span. A sleep that ended just after it was late within it."""
        margin_ns = int(2 * _TICK_S * 1e9)
        worst = [late for at, late in self._late if begun_ns <= at <= ended_ns + margin_ns]
        # A loop that stands still notes nothing: the silence since the last note counts, too.
        last_ns = self._late[-1][0] if self._late else ended_ns
        silent_ms = (ended_ns - last_ns) / 1e6 - _TICK_S * 1_000
        return max([silent_ms, 0.0, *worst])
