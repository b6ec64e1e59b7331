"""`exchange up`: an exchange in the foreground."""

from __future__ import annotations

import signal
import threading
import time

from exchange.cli.output import console
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.v1 import types_pb2

POLL_S = 0.2


def serve(config: ExchangeConfig) -> None:
    """Start the exchange, and stop it cleanly on SIGTERM or SIGINT."""
    end = threading.Event()
    on = f"{config.nodes} nodes with data in {config.data_dir}" if config.nodes > 1 else f"{config.data_dir}"
    console.print(f"starting {config.shards} shards and {config.gateways} gateways on {on}")
    exchange = LocalExchange(config)
    exchange.start(opened=False)
    try:
        # Only now: Ray sets handlers of its own when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: end.set())
        for component in exchange.status().components:
            if component.address:
                console.print(f"{component.name} serves on {component.address}")
        console.print(f"operator's key: {config.data_dir}/operator.key    stop with Ctrl-C")
        _tell_stages(exchange, end)
        end.wait()
        console.print("stopping")
    finally:
        exchange.stop()
    console.print("stopped")


def _tell_stages(exchange: LocalExchange, end: threading.Event) -> None:
    """Print the stages of shards that were away and reopen, until all are open or somebody wants them as they are."""
    told: dict[str, int] = {}
    while (shards := exchange.reopening()) != [] and not end.wait(POLL_S):
        for c in shards or ():
            # Before it was told its first stage nothing is known of the next.
            if c.next_stage_time_ns and told.get(c.name) != c.stage:
                next_s = max((c.next_stage_time_ns - time.time_ns()) / 1e9, 0.0)
                stage = types_pb2.Stage.Name(c.stage).removeprefix("STAGE_")
                console.print(f"{c.name} is {stage}, the next stage is expected in {next_s:.0f} s")
                told[c.name] = c.stage
    if told and not end.is_set():
        console.print("all markets are as they should be")
