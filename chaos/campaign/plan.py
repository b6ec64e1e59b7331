"""What a load process is told: where the exchange is, who trades what, how fast; a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.load.client_log import Logged


@dataclass(frozen=True, slots=True)
class Trader:
    """One client. `by_sdk`: through the SDK's session, which sends again by itself; else over the bare stub."""

    name: str
    account: int
    key: str
    by_sdk: bool


@dataclass(frozen=True, slots=True)
class LoadPlan:
    seed: int
    addresses: tuple[str, ...]
    markets: dict[str, str]
    """Each instrument, and its shard."""
    traders: tuple[Trader, ...]
    commands_per_s: float = 1_000.0
    """Of all traders together."""
    commands_per_message: int = 5
    deadline_ms: int = 1_000

    @property
    def logged(self) -> Logged:
        return Logged({trader.name: trader.account for trader in self.traders}, self.markets)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(path: Path) -> LoadPlan:
        fields = json.loads(path.read_text())
        fields["traders"] = tuple(Trader(**trader) for trader in fields["traders"])
        fields["addresses"] = tuple(fields["addresses"])
        return LoadPlan(**fields)
