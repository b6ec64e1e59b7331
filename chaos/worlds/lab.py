"""The exchange under test, as faults see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.fault import Target
from chaos.worlds.clocks import Clocks
from chaos.worlds.proxy import Proxy
from chaos.worlds.world import World
from exchange.client import AsyncClient


@dataclass(slots=True)
class Lab:
    """`world`: None if the lab is attached to an exchange that is not its own."""

    targets: Callable[[], Sequence[Target]]
    """The processes that the last status named."""
    operator: AsyncClient
    addresses: Sequence[str]
    """Of the gateways, as clients have them."""
    probe_key: str
    markets: Mapping[str, str]
    """Each market, and the name of its shard."""
    populations: Sequence[str]
    storm: Callable[[str, str], Awaitable[int]]
    """Has a population, or all (""), `reconnect` or `cancel_all` at once; returns how many clients did."""
    world: World | None = None
    data_dir: Path | None = None
    """With a journal in files: each machine's is below."""
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    """By gateway, if clients reach it through one."""
    clocks: Clocks | None = None
    """If the exchange was started so that they can be moved."""

    def journal_dir(self, machine: str) -> Path | None:
        """Return where the segments of a machine's journal are, its standby's as well; None: not in files."""
        if self.data_dir is None:
            return None
        directory = self.data_dir / machine.removesuffix("-standby") / "journal"
        return directory if directory.is_dir() else None

    def all_targets(self) -> list[Target]:
        unlisted = self.world.unlisted_targets() if self.world is not None else ()
        return [*self.targets(), *unlisted]

    def stoppable(self) -> list[Target]:
        """Return all of these, and what the exchange stands on: raylets, NATS servers, the GCS."""
        return [*self.all_targets(), *(self.world.underneath() if self.world is not None else ())]
