"""What an account has, in the ledger and in all its markets: one balance for each asset.

Ledger and shards are asked at different moments, and money may be on its way between them. Each counts what went from
one to the other: `out` in the ledger's books less `received` in the shard's is what is under way as these two moments
see it, so that the sum is right whatever moved in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exchange.engine.channel import HOUSE
from exchange.gateway.ledger import LedgerReplica
from exchange.gateway.links import Link
from exchange.runtime.messages import pack, unpack
from exchange.runtime.peers import PeerUnavailable

LEDGER = "ledger"


@dataclass(slots=True)
class AccountBalance:
    """Units of one asset. `held`: by open orders, by instrument."""

    available: int = 0
    held: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.available + sum(self.held.values())


@dataclass(slots=True)
class AccountBalances:
    """By asset, and the shards that could not be asked: what the account has there is not in it."""

    of: dict[str, AccountBalance]
    unavailable: list[str]
    sequences: dict[str, int]
    """Up to where the history of the ledger, and of each shard that was asked, is in it."""


def shards_of(account: int, ledger: LedgerReplica) -> list[str]:
    """Return the shards where the account has been."""
    return [shard for shard, accounts in ledger.out.items() if account == HOUSE or account in accounts]


async def balances_of(account: int, ledger: LedgerReplica, links: Mapping[str, Link]) -> AccountBalances:
    """Ask every shard where the account has been."""
    shards = shards_of(account, ledger)
    # The ledger's side as of one moment, before the shards are asked.
    sequences = {LEDGER: ledger.sequence}
    balances = {asset: AccountBalance(units) for asset, units in ledger.balances.get(account, {}).items()}
    out = {shard: dict(ledger.out[shard].get(account, {})) for shard in shards}
    answers = await asyncio.gather(*(_ask(links.get(shard), account) for shard in shards))
    unavailable = [shard for shard, answer in zip(shards, answers, strict=True) if answer is None]
    for shard, answer in zip(shards, answers, strict=True):
        if answer is None:
            continue
        sequences[shard], rows = answer
        under_way = out[shard]
        for asset, available, received, held in rows:
            balance = balances.setdefault(asset, AccountBalance())
            balance.available += available + under_way.pop(asset, 0) - received
            balance.held.update((symbol, units) for symbol, units in held if units)
        for asset, units in under_way.items():
            balances.setdefault(asset, AccountBalance()).available += units
    return AccountBalances(dict(sorted(balances.items())), unavailable, sequences)


async def _ask(link: Link | None, account: int) -> tuple[int, list[Any]] | None:
    if link is None or link.peer is None:
        return None
    try:
        sequence, rows = unpack(await link.peer.query(pack(("escrow", account))))
    except PeerUnavailable:
        return None
    return sequence, rows
