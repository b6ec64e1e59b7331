"""`exchange top`: the exchange live in a terminal, also while what it looks through is being replaced."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from rich.live import Live

from exchange.cli.errors import CommandFailed
from exchange.cli.output import console, plain
from exchange.cli.top_view import INSTRUMENTS_MAX, Look, Screen
from exchange.client import Client, EvenkeelError, Ticker

CALL_TIMEOUT_S = 1.0
RECONNECT_AFTER_S = 3.0
"""Without an answer for so long: the gateway may have another address by now."""


class Top:
    """Looks again and again. `connect` makes a client, for these addresses of gateways too."""

    def __init__(
        self, connect: Callable[[list[str]], Client], *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._monotonic_s = monotonic_s
        self._client: Client | None = None
        self._addresses: list[str] = []
        self._heard_s = monotonic_s()
        self._screen = Screen("", None, None)

    def look(self) -> Screen:
        """Return what there is to show now; who does not answer is told on it, over what was seen last."""
        try:
            self._see()
        except EvenkeelError as error:
            silent_s = self._monotonic_s() - self._heard_s
            trouble = f"no answer for {silent_s:.0f} s, trying again: {' '.join(str(error).split())}"
            self._screen = Screen(self._screen.address, self._screen.before, self._screen.now, trouble)
            if silent_s > RECONNECT_AFTER_S:
                self.close()
        return self._screen

    def _see(self) -> None:
        if self._client is None:
            self._client = self._connect(self._addresses)
        client = self._client
        status = client.status(timeout=CALL_TIMEOUT_S)
        events = client.events(timeout=CALL_TIMEOUT_S)
        symbols = [symbol for component in status.components for symbol in component.instruments]
        tickers = tuple(filter(None, (self._ticker(client, symbol) for symbol in symbols[:INSTRUMENTS_MAX])))
        self._heard_s = self._monotonic_s()
        look = Look(self._heard_s, status, events, tickers)
        self._screen = Screen(client.address, self._screen.now, look)
        # The one that works comes first, so that nothing changes while it does.
        known = (c.address for c in status.components if c.address)
        self._addresses = sorted(known, key=lambda address: address != client.address)

    def _ticker(self, client: Client, symbol: str) -> Ticker | None:
        try:
            return client.ticker(symbol, timeout=CALL_TIMEOUT_S)
        except EvenkeelError:
            # A gateway that has just started has no copy of the shard yet: the rest is worth showing.
            return None

    def close(self) -> None:
        """Let go of the connection; the next look makes another, where the exchange is found then."""
        if self._client is not None:
            self._client.close()
            self._client = None


def show_once(top: Top, interval_s: float, as_json: bool) -> None:
    """Print one screen; rates need two looks. Raises `CommandFailed`."""
    screen = top.look()
    if screen.now is not None:
        time.sleep(interval_s)
        screen = top.look()
    if screen.now is None:
        raise CommandFailed("NO_ANSWER", screen.trouble)
    if as_json:
        print(json.dumps(plain(screen), indent=2))
    else:
        console.print(screen)


def run(top: Top, interval_s: float) -> None:
    """Show it until Ctrl-C."""
    with Live(top.look(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(top.look(), refresh=True)
            time.sleep(interval_s)
