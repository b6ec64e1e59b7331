"""`exchange up`: an exchange in the foreground."""

from __future__ import annotations

import signal
import threading

from exchange.cli.output import console
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig


def serve(config: ExchangeConfig) -> None:
    """Start the exchange, and stop it cleanly on SIGTERM or SIGINT."""
    end = threading.Event()
    on = f"{config.nodes} nodes with data in {config.data_dir}" if config.nodes > 1 else f"{config.data_dir}"
    console.print(f"starting {config.shards} shards and {config.gateways} gateways on {on}")
    with LocalExchange(config) as exchange:
        # Only now: Ray sets handlers of its own when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: end.set())
        for component in exchange.status().components:
            if component.address:
                console.print(f"{component.name} serves on {component.address}")
        console.print(f"operator's key: {config.data_dir}/operator.key    stop with Ctrl-C")
        end.wait()
        console.print("stopping")
    console.print("stopped")
