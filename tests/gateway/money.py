"""Money for shards that no ledger stands behind."""

from __future__ import annotations

from exchange.engine.shard import Shard

RICH = 10**60


def rich_shard(*assets: str, accounts: tuple[int, ...] = (1, 2, 3)) -> Shard:
    """Return a new shard where accounts have so much of each asset that money is no matter."""
    shard = Shard()
    for account in accounts:
        for asset in assets:
            shard.funds.endow(account, asset, RICH)
    return shard
