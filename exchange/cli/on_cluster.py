"""`exchange up` and `exchange down` with --ray-address: an exchange on a Ray cluster that runs already."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from exchange.cli.output import console
from exchange.config import ExchangeConfig
from exchange.ray_settings import CLUSTER_RAY_ENVIRONMENT

if TYPE_CHECKING:
    from exchange.cluster import ClusterExchange


def start(ray_address: str, config: ExchangeConfig) -> None:
    """Start the exchange on a cluster unless it runs there; return when it takes orders."""
    with _connect(ray_address) as exchange:
        console.print("the exchange runs there already" if exchange.is_there else "starting the exchange")
        exchange.start(config)
        for component in exchange.status().components:
            if component.address:
                console.print(f"{component.name} serves on {component.address}")


def stop(ray_address: str, *, stop_workers: bool) -> None:
    """Stop the exchange on a cluster, cleanly."""
    with _connect(ray_address) as exchange:
        was_there = exchange.is_there
        exchange.stop(stop_workers=stop_workers)
        console.print("stopped" if was_there else "no exchange runs there")


def _connect(ray_address: str) -> ClusterExchange:
    # What is set already holds: who runs a cluster without a token says so.
    os.environ.update({name: value for name, value in CLUSTER_RAY_ENVIRONMENT.items() if name not in os.environ})
    # Ray reads it when it is imported.
    from exchange.cluster import ClusterExchange

    return ClusterExchange(ray_address)
