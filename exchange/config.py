"""How an exchange is run: typed, frozen, units in the names. Every default is explained where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class ConfigInvalid(ValueError):
    """A value is outside its range; the message says which, what was expected and what was found."""

    code = "CONFIG_INVALID"


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """An exchange on one machine.

    `data_dir` holds everything that survives a restart: a journal and snapshots per machine, the operator's key.
    """

    data_dir: Path = Path("evenkeel-data")
    host: str = "127.0.0.1"
    # The first gateway listens here, the next ones on the ports after it; 0 takes any free ones.
    port: int = 7700
    # One book is one core's work, so more shards than cores only help to keep markets apart.
    shards: int = 2
    # Ray nodes. More than one on a single machine are for trying out what happens when one is lost.
    nodes: int = 1
    gateways: int = 1
    # Replaying this many commands takes about 4 s here; a snapshot costs a second process that long.
    snapshot_every_commands: int = 500_000
    # A gateway that starts takes a dump of each shard. One of so many open orders takes the shard 10 ms; one of more is
    # made by a forked process, which the shard stops for no longer than that.
    dump_at_once_orders_max: int = 10_000
    # An audit reads all balances and open orders: a second of the auditor's time for a million of them, and the fork of
    # a shard that has so many. What breaks meanwhile is found by the next one at the latest.
    audit_interval_s: float = 30.0
    # How long a process may leave a ping unanswered. Generous while a slow disk or a busy machine is the likelier
    # cause; a process that died is noticed at once.
    suspect_after_ms: int = 500
    dead_after_ms: int = 10_000

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("shards", 1, 64),
            ("nodes", 1, 16),
            ("gateways", 1, 64),
            ("snapshot_every_commands", 1_000, 1_000_000_000),
            ("dump_at_once_orders_max", 0, 1_000_000_000),
            ("audit_interval_s", 1, 86_400),
            ("suspect_after_ms", 50, 60_000),
            ("dead_after_ms", 100, 600_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigInvalid(f"{name}: expected {low} to {high}, was {value}")

    @property
    def shard_names(self) -> list[str]:
        return [f"shard-{number}" for number in range(self.shards)]

    @property
    def gateway_names(self) -> list[str]:
        return [f"gateway-{number}" for number in range(self.gateways)]
