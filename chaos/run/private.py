"""An exchange of an experiment's own: started for it on this machine, and gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import msgspec

from chaos.experiment.model import Environment, Population
from chaos.faults.fault import Target
from chaos.invariants.history import History
from chaos.run.furnish import Furnished, furnish
from chaos.run.public import PublicStatus
from chaos.run.record import HISTORY
from chaos.worlds.clocks import Clocks
from chaos.worlds.nodes_world import NodesWorld
from chaos.worlds.proxy import Proxy
from chaos.worlds.world import LocalWorld, World
from exchange.client import AsyncClient
from exchange.config import ExchangeConfig
from exchange.settings_text import parse_settings

DATA, CLOCKS = "data", "clocks"
"""Beside the history, which holds links to its files."""
PREFIX = "chaos-"
OPERATOR_TIMEOUT_S = 10.0


def config_of(environment: Environment, data_dir: Path) -> ExchangeConfig:
    """Return how the exchange of an experiment is run."""
    settings = {"profile": environment.profile, **environment.settings}
    if environment.capacity_per_s is not None:
        settings["service_time_us"] = 1_000_000 // environment.capacity_per_s
    return ExchangeConfig(
        data_dir=data_dir,
        port=0,
        shards=environment.shards,
        gateways=environment.gateways,
        nodes=environment.nodes,
        journal=environment.journal,
        standbys=environment.standbys,
        settings=parse_settings(msgspec.toml.encode(settings).decode()),
    )


class PrivateExchange:
    """Starts and furnishes it; keeps the history of its journals."""

    def __init__(
        self,
        environment: Environment,
        load: tuple[Population, ...],
        directory: Path,
        *,
        clocks_move: bool = False,
    ) -> None:
        self._environment = environment
        self._load = load
        self._directory = directory
        config = config_of(environment, directory / DATA)
        self.world: World = LocalWorld(config) if environment.nodes == 1 else NodesWorld(config)
        self._furnished: Furnished | None = None
        self._history: History | None = None
        self.proxies: dict[str, Proxy] = {}
        self.clocks = Clocks(directory / CLOCKS) if clocks_move else None
        self._public = PublicStatus(directory) if environment.status_page else None

    @property
    def target(self) -> str:
        return "private"

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.world.addresses

    @property
    def client_addresses(self) -> tuple[str, ...]:
        """Where the load reaches the gateways: through proxies, if faults are to be done to its links."""
        return tuple(proxy.address for proxy in self.proxies.values()) or self.addresses

    @property
    def operator_key(self) -> str:
        return self.world.operator_key

    @property
    def data_dir(self) -> Path | None:
        return self._directory / DATA if self._environment.nodes == 1 else None

    @property
    def targets(self) -> list[Target]:
        """Processes that belong to it and that its status does not name."""
        return self._public.targets if self._public is not None else []

    @property
    def machines(self) -> Mapping[str, str]:
        return self.world.machines

    @property
    def is_local(self) -> bool:
        return True

    @property
    def furnished(self) -> Furnished:
        assert self._furnished is not None, "it has not started"
        return self._furnished

    @property
    def history(self) -> History:
        assert self._history is not None, "it has not started"
        return self._history

    async def start(self) -> None:
        with self.clocks.preloaded() if self.clocks is not None else nullcontext():
            await asyncio.to_thread(self.world.start)
        self._history = self.world.history(self._directory / HISTORY)
        async with AsyncClient(self.addresses, self.operator_key, timeout=OPERATOR_TIMEOUT_S) as operator:
            self._furnished = await furnish(operator, self._environment, self._load, prefix=PREFIX, is_ours=True)
        if self._environment.links == "proxied":
            for number, address in enumerate(self.addresses):
                self.proxies[f"gateway-{number}"] = proxy = Proxy(address, number)
                await proxy.start()
        if self._public is not None:
            await self._public.start(self.addresses, self.operator_key)

    async def gather(self) -> None:
        await self.history.run()

    async def stop_exchange(self) -> None:
        try:
            if self._public is not None:
                await self._public.settle()
                await self._public.keep()
                await self._public.stop()
        finally:
            await asyncio.to_thread(self.world.stop_exchange)
            if self._history is not None:
                await self._history.finish()

    async def stop(self) -> None:
        if self._public is not None:
            await self._public.stop()
        for proxy in self.proxies.values():
            await proxy.close()
        await asyncio.to_thread(self.world.stop)
        for part in (DATA, CLOCKS):
            shutil.rmtree(self._directory / part, ignore_errors=True)
