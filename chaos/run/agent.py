"""Does faults on this machine."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

from chaos.experiment.model import FaultStep
from chaos.faults import catalogue
from chaos.faults.fault import Target
from chaos.faults.injection import Injection
from chaos.run.attached import AttachedExchange
from chaos.run.private import OPERATOR_TIMEOUT_S, PrivateExchange
from chaos.worlds.lab import Lab
from exchange.client import AsyncClient


class LocalAgent:
    """`exchange` must serve before the first fault; `targets`: the processes that its status named last.

    `storm` has a population of the load do something all at once.
    """

    def __init__(
        self,
        exchange: PrivateExchange | AttachedExchange,
        targets: Callable[[], Sequence[Target]],
        seed: int,
        storm: Callable[[str, str], Awaitable[int]],
    ) -> None:
        self._exchange = exchange
        self._targets = targets
        self._seed = seed
        self._storm = storm
        self._lab: Lab | None = None

    async def make(self, number: int, step: FaultStep) -> Injection:
        if self._lab is None:
            self._lab = self._make_lab()
        return catalogue.make(self._lab, step, random.Random(f"{self._seed}-{number}"))

    def _make_lab(self) -> Lab:
        exchange, furnished = self._exchange, self._exchange.furnished
        lab = Lab(
            targets=self._targets,
            operator=AsyncClient(exchange.addresses, exchange.operator_key, timeout=OPERATOR_TIMEOUT_S),
            addresses=exchange.client_addresses,
            probe_key=furnished.probe.key,
            markets=furnished.markets,
            storm=self._storm,
            populations=tuple(furnished.clients),
        )
        if isinstance(exchange, PrivateExchange):
            lab.world, lab.data_dir, lab.proxies = exchange.world, exchange.data_dir, exchange.proxies
            lab.clocks = exchange.clocks
        return lab

    async def close(self) -> None:
        if self._lab is not None:
            await self._lab.operator.aclose()
