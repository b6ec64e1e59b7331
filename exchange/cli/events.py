"""`exchange events`: what happened to the components."""

from __future__ import annotations

import time

from exchange.cli.output import show, show_line
from exchange.client import Client

COLUMNS = ("time_ns", "kind", "component", "incarnation", "epoch", "node", "detail")
POLL_INTERVAL_S = 0.5


def show_events(client: Client, limit: int, as_json: bool) -> None:
    """Print the newest events, oldest first."""
    show(client.events()[-limit:], COLUMNS, as_json)


def follow_events(client: Client, limit: int, as_json: bool) -> None:
    """Print the newest events and then each new one, until interrupted.

    A new supervisor counts from 1 again: then all that it has is new.
    """
    shown, after = limit, 0
    while True:
        events = client.events()
        if events and events[-1].sequence < after:
            after = 0
        for event in [event for event in events if event.sequence > after][-shown:]:
            show_line(event, COLUMNS, as_json)
            after = event.sequence
        shown = len(events) + 1
        time.sleep(POLL_INTERVAL_S)
