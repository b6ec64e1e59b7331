"""When the supervisor that stands by is to be started on another node: Ray starts it again where it was, or nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from exchange.supervisor.component import Node

PATIENCE_S = 30.0
"""A node that is started again by then gets it back. So long after the loss of one, a core has nothing else to do."""


class StandbyPlace:
    """Watches where the supervisor that stands by is, for the active one."""

    def __init__(self, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._last = ""
        """Where it was when it was last heard, or is being started."""
        self._bad_since_s: float | None = None

    def see(self, active: str, standby: str, nodes: Sequence[Node], drained: Collection[str]) -> str:
        """Return the id of the node on which to start it, "" as long as it is well where it is, or may come back.

        `active` and `standby` are the ids of the nodes of the two, the latter "" while it does not answer. It moves if
        its node is gone, or is that of the active one, which must not take both along; never to that one.
        """
        self._last = standby or self._last
        is_gone = not standby and all(node.id != self._last for node in nodes)
        free = [node.id for node in nodes if node.id != active and node.name not in drained]
        if not free or not (is_gone or standby == active):
            self._bad_since_s = None
            return ""
        now_s = self._monotonic_s()
        if self._bad_since_s is None:
            self._bad_since_s = now_s
        if now_s - self._bad_since_s < PATIENCE_S:
            return ""
        # It takes its time to start there.
        self._last, self._bad_since_s = free[0], None
        return free[0]
