"""Markets and accounts with money, for tests on a real exchange."""

from __future__ import annotations

from collections.abc import Mapping

from exchange.client import Client, Permission

SCALES = {"BTC": 8, "ETH": 8, "USDT": 6}
RICH = {"BTC": "100000", "ETH": "100000", "USDT": "1000000000"}


def open_market(
    operator: Client, symbol: str, *, shard: str = "", maker_fee_ppm: int = 0, taker_fee_ppm: int = 0
) -> None:
    """Create an instrument, and its assets if they are not there."""
    for asset in symbol.split("-"):
        operator.create_asset(asset, SCALES[asset])
    operator.create_instrument(
        symbol,
        tick_size="0.01",
        lot_size="0.0001",
        max_quantity=1_000,
        maker_fee_ppm=maker_fee_ppm,
        taker_fee_ppm=taker_fee_ppm,
        shard=shard,
    )


def open_rich_account(operator: Client, name: str, deposits: Mapping[str, str] = RICH) -> tuple[int, str]:
    """Return the number of an account that has money, a new one the first time, and a new key to read and trade."""
    account = operator.create_account(name).account_id
    known = {asset.symbol for asset in operator.assets()}
    for asset, amount in deposits.items():
        if asset in known:
            operator.deposit(account, asset, amount, reference=f"{name}-{asset}")
    return account, operator.create_api_key(account, [Permission.READ, Permission.TRADE]).secret
