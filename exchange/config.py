"""How an exchange is run: typed, frozen, units in the names. Every default is explained where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from exchange.settings import Settings

if TYPE_CHECKING:
    from exchange.runtime.journal.nats_settings import NatsSettings

JOURNALS = ("file", "nats")


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
    # Every gateway listens on `port`, as each is on a machine of its own; nodes that share one need a port for each.
    same_port: bool = False
    # One book is one core's work, so more shards than cores only help to keep markets apart.
    shards: int = 2
    gateways: int = 1
    # Ray nodes that are started on this machine; with one, everything is on it.
    nodes: int = 1
    # Where the machines' journals are: "file", on one machine, or "nats", on servers that outlive any machine of ours.
    journal: str = "file"
    # None with the journal "nats": three servers of our own on this machine, for development.
    nats: NatsSettings | None = None
    # A second process for each machine, which takes over within a second. Without it, a machine that is lost has to be
    # started and to replay.
    standbys: bool = True
    # Replaying this many commands takes about 1 s here, and a snapshot as much time of another core.
    snapshot_every_commands: int = 100_000
    # A gateway that starts takes a dump of each shard. One of so many open orders takes the shard 10 ms; one of more is
    # made by a forked process, which the shard stops for no longer than that.
    dump_at_once_orders_max: int = 10_000
    # An audit reads all balances and open orders: a second of the auditor's time for a million of them, and the fork of
    # a shard that has so many. What breaks meanwhile is found by the next one at the latest.
    audit_interval_s: float = 30.0
    # Trading goes on without a supervisor, but what is lost together with it waits for the next one.
    supervisor_dead_after_ms: int = 1_500
    # What an exchange starts with for the first time; from then on `exchange config` changes them.
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("shards", 1, 64),
            ("gateways", 1, 64),
            ("nodes", 1, 64),
            ("snapshot_every_commands", 1_000, 1_000_000_000),
            ("dump_at_once_orders_max", 0, 1_000_000_000),
            ("audit_interval_s", 1, 86_400),
            ("supervisor_dead_after_ms", 100, 600_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigInvalid(f"{name}: expected {low} to {high}, was {value}")
        if self.same_port and (not self.port or self.gateways > self.nodes):
            found = f"port {self.port}, {self.gateways} gateways and {self.nodes} nodes"
            raise ConfigInvalid(f"same_port: expected a port, and a node for each gateway, was {found}")
        if self.journal not in JOURNALS:
            raise ConfigInvalid(f"journal: expected one of {', '.join(JOURNALS)}, was {self.journal!r}")

    @property
    def machine_names(self) -> list[str]:
        return ["ledger", *self.shard_names]

    @property
    def shard_names(self) -> list[str]:
        return [f"shard-{number}" for number in range(self.shards)]

    @property
    def gateway_names(self) -> list[str]:
        return [f"gateway-{number}" for number in range(self.gateways)]
