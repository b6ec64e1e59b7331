"""What a load needs on an exchange: markets, and accounts with money and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.experiment.model import Environment, Market, Population
from exchange.client import AsyncClient, Permission

ASSET_SCALE = 8
RICH = "1000000000"
"""More than any load can spend: money that runs out would be a fault of its own."""
TICK_SIZE, LOT_SIZE = "0.01", "0.0001"
OPEN_ORDERS_MAX = 1_000_000
AT_ONCE_MAX = 16
PROBE = "probe"


class TargetUnsuitable(RuntimeError):
    """The exchange that an experiment is attached to lacks what the experiment names; the message says what."""

    code = "TARGET_UNSUITABLE"


@dataclass(frozen=True, slots=True)
class Credential:
    """An account of a client, and a key of it."""

    account: int
    key: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Furnished:
    markets: Mapping[str, str]
    """Each market, and its shard's name."""
    clients: Mapping[str, Sequence[Credential]]
    """Of each population, by its name."""
    probe: Credential
    """Of who looks whether orders are taken."""

    @property
    def credentials(self) -> list[Credential]:
        return [self.probe, *(client for clients in self.clients.values() for client in clients)]


async def furnish(
    operator: AsyncClient, environment: Environment, load: Sequence[Population], *, prefix: str, is_ours: bool
) -> Furnished:
    """Make what is needed. On an exchange that is not ours markets must be there. Raises `TargetUnsuitable`.

    `prefix`: of the accounts' names; the same one finds the same accounts again.
    """
    if is_ours:
        await _open(operator, environment.markets)
    markets = await _markets(operator, environment.markets)
    assets = sorted({asset for market in environment.markets for asset in market.symbol.split("-")})
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def client(name: str) -> Credential:
        async with room:
            return await _account(operator, f"{prefix}{name}", assets)

    names = {p.name: [f"{p.name}-{number}" for number in range(p.clients)] for p in load}
    probe, *made = await asyncio.gather(client(PROBE), *(client(name) for of_one in names.values() for name in of_one))
    left = iter(made)
    return Furnished(markets, {name: [next(left) for _ in of_one] for name, of_one in names.items()}, probe)


async def withdraw_keys(operator: AsyncClient, furnished: Furnished) -> None:
    """Revoke the keys that were made, so that none is left on an exchange that is not ours."""
    for credential in furnished.credentials:
        await operator.revoke_api_key(credential.key_id)


async def _open(operator: AsyncClient, markets: Sequence[Market]) -> None:
    for market in markets:
        for asset in market.symbol.split("-"):
            await operator.create_asset(asset, ASSET_SCALE)
        await operator.create_instrument(
            market.symbol,
            tick_size=TICK_SIZE,
            lot_size=LOT_SIZE,
            max_open_orders=OPEN_ORDERS_MAX,
            shard=f"shard-{market.shard}",
        )


async def _markets(operator: AsyncClient, wanted: Sequence[Market]) -> dict[str, str]:
    components = (await operator.status()).components
    found = {symbol: component.name for component in components for symbol in component.instruments}
    missing = [market.symbol for market in wanted if market.symbol not in found]
    if missing:
        known = ", ".join(sorted(found)) or "none"
        raise TargetUnsuitable(f"expected the markets {', '.join(missing)} on the exchange, found {known}")
    return {market.symbol: found[market.symbol] for market in wanted}


async def _account(operator: AsyncClient, name: str, assets: Sequence[str]) -> Credential:
    account_id = (await operator.create_account(name)).account_id
    for asset in assets:
        await operator.deposit(account_id, asset, RICH, reference=f"chaos-{account_id}-{asset}")
    key = await operator.create_api_key(account_id, [Permission.READ, Permission.TRADE])
    return Credential(account_id, key.secret, key.api_key.key_id)
