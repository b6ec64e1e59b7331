"""An exchange that runs already, to which an experiment is attached. It stays as it is, but for what is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from chaos.experiment.model import Environment, Population
from chaos.faults.fault import Target
from chaos.run.furnish import Furnished, furnish, withdraw_keys
from chaos.run.private import OPERATOR_TIMEOUT_S, PREFIX
from chaos.run.target import TargetUnreachable, is_loopback
from exchange.client import AsyncClient, EvenkeelError

_MACHINES = ("shard", "ledger")


class AttachedExchange:
    """Furnishes it with accounts of the load's own; at the end their orders are cancelled and their keys revoked."""

    def __init__(
        self, environment: Environment, load: tuple[Population, ...], addresses: Sequence[str], operator_key: str
    ) -> None:
        self._environment = environment
        self._load = load
        self.addresses = tuple(addresses)
        self.operator_key = operator_key
        self.machines: Mapping[str, str] = {}
        self.targets: Sequence[Target] = ()
        self._furnished: Furnished | None = None

    @property
    def target(self) -> str:
        return ",".join(self.addresses)

    @property
    def client_addresses(self) -> tuple[str, ...]:
        return self.addresses

    @property
    def is_local(self) -> bool:
        return all(is_loopback(address.rpartition(":")[0]) for address in self.addresses)

    @property
    def furnished(self) -> Furnished:
        assert self._furnished is not None, "it has not started"
        return self._furnished

    async def start(self) -> None:
        try:
            async with self._operator() as operator:
                components = (await operator.status()).components
                kinds = {component.name: component.name.partition("-")[0] for component in components}
                self.machines = {name: kind for name, kind in kinds.items() if kind in _MACHINES}
                self._furnished = await furnish(operator, self._environment, self._load, prefix=PREFIX, is_ours=False)
        except EvenkeelError as error:
            raise TargetUnreachable(f"expected an exchange at {self.target}, found none to use: {error}") from error

    async def gather(self) -> None:
        """Its journals are its own."""
        await asyncio.Event().wait()

    async def stop_exchange(self) -> None:
        """It goes on."""

    async def stop(self) -> None:
        if self._furnished is None:
            return
        for credential in self._furnished.credentials:
            async with AsyncClient(self.addresses, credential.key, timeout=OPERATOR_TIMEOUT_S) as client:
                await client.cancel_all_orders()
        async with self._operator() as operator:
            await withdraw_keys(operator, self._furnished)

    def _operator(self) -> AsyncClient:
        return AsyncClient(self.addresses, self.operator_key, timeout=OPERATOR_TIMEOUT_S)
