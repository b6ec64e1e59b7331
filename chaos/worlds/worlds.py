"""The exchanges that campaigns are run on, by name."""

from __future__ import annotations

from pathlib import Path

from chaos.worlds.nodes_world import NodesWorld
from chaos.worlds.world import LocalWorld, World
from exchange.config import ExchangeConfig
from exchange.settings import Recovery, Settings, Stages, restarting_freely

WORLDS = ("file", "nodes")
"""One node with journals in files; three nodes with journals on NATS servers."""


_QUICKLY = Recovery(cancel_only_ms=100, post_only_ms=100, ramp_ms=300, healthy_ms=100)
SETTINGS = restarting_freely(
    Settings(stages=Stages(warm=_QUICKLY, cold=_QUICKLY, regresses_max=100, regress_window_ms=1_000))
)
"""Short stages: long enough for the load to meet each of them (I9), too short to hide how long a takeover takes. Nobody
is parked, and no shard waits for a person after it was overloaded thrice: the faults are on purpose.
"""


def make_world(name: str, data_dir: Path) -> World:
    """Return an exchange that is not started yet."""
    if name == "file":
        return LocalWorld(
            ExchangeConfig(data_dir=data_dir, port=0, gateways=2, snapshot_every_commands=5_000, settings=SETTINGS)
        )
    return NodesWorld(
        ExchangeConfig(
            data_dir=data_dir, nodes=3, gateways=3, journal="nats", snapshot_every_commands=5_000, settings=SETTINGS
        )
    )
