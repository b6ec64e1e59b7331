"""When a component that was lost is started again."""

from __future__ import annotations

from exchange.supervisor.component import Component

# Between starts that failed. A component that came up and died later is started again at once.
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


class RestartGovernor:
    """Spaces the starts of a component that keeps failing to come up."""

    def note_lost(self, component: Component, now_s: float) -> None:
        """Count a loss, and set when the next start is due."""
        component.next_start_s = now_s + BACKOFF_S[min(component.failures, len(BACKOFF_S) - 1)]
        component.failures += 1

    def note_up(self, component: Component) -> None:
        """Forget what failed before."""
        component.failures = 0
