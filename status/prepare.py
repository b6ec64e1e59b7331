"""What the service needs on an exchange: an account of its own with a little money, and a key to trade with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exchange.client import AccountTier, Client, Number, Permission, new_reference

ACCOUNT = "evenkeel-status"


@dataclass(frozen=True, slots=True)
class Prepared:
    account_id: int
    key_file: Path
    deposited: tuple[str, ...]
    """Assets."""


def prepare(operator: Client, key_file: Path, amount: Number, say: Callable[[str], None]) -> Prepared:
    """Create the account, put money in it for each asset that markets are quoted in, and write a key if there is none.

    A repeat tops up the money, as after new markets were created, and keeps the key that is there.
    """
    account = operator.create_account(ACCOUNT)
    # What is refused because we ask too often says nothing of the exchange.
    operator.set_account_tier(account.account_id, AccountTier.UNLIMITED)
    say(f"account {account.account_id} ({ACCOUNT})")
    assets = tuple(dict.fromkeys(instrument.quote_asset for instrument in operator.instruments()))
    for asset in assets:
        operator.deposit(account.account_id, asset, amount, reference=f"status-{new_reference()}")
        say(f"deposited {amount} {asset}")
    if key_file.exists():
        say(f"key kept: {key_file}")
    else:
        key = operator.create_api_key(account.account_id, [Permission.READ, Permission.TRADE])
        write_private(key_file, key.secret)
        say(f"key {key.api_key.key_id} written: {key_file}")
    return Prepared(account.account_id, key_file, assets)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.new")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    aside.replace(path)
