"""What the ledger can be told to do, and what it answers and tells; numbers as in `admin.proto` and `account.proto`."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from exchange.engine.money import Asset


class Permission(IntEnum):
    READ = 1
    TRADE = 2
    TRANSFER = 3
    OPERATOR = 4


class EntryType(IntEnum):
    DEPOSIT = 1
    WITHDRAWAL = 2
    TRANSFER = 3


class LedgerRefusal(IntEnum):
    """Why a ledger command was refused; 0 is none."""

    NONE = 0
    NAME_INVALID = 1
    ACCOUNT_UNKNOWN = 2
    PERMISSIONS_INVALID = 3
    KEY_EXISTS = 4
    KEY_UNKNOWN = 5
    TOO_MANY_KEYS = 6
    EXPIRE_TIME_INVALID = 7
    ADDRESS_INVALID = 8
    ASSET_INVALID = 9
    ASSET_EXISTS = 10
    ASSET_UNKNOWN = 11
    AMOUNT_INVALID = 12
    AMOUNT_TOO_LARGE = 13
    REFERENCE_INVALID = 14
    REFERENCE_REUSED = 15
    TRANSFER_TO_SELF = 16
    INSUFFICIENT_FUNDS = 17


class CreateAccount(NamedTuple):
    """A repeat with a known name answers with the account that has it."""

    name: str


class CreateApiKey(NamedTuple):
    """`key_hash`: SHA-256 of the whole key, in hexadecimal. `expire_time_ns` 0: never; no `allowed_ips`: any."""

    account: int
    key_id: str
    key_hash: str
    permissions: tuple[int, ...]
    expire_time_ns: int = 0
    allowed_ips: tuple[str, ...] = ()


class RevokeApiKey(NamedTuple):
    key_id: str


class CreateAsset(NamedTuple):
    """The same asset again changes nothing."""

    symbol: str
    scale: int


class Deposit(NamedTuple):
    """`amount` in units of the asset's scale. A repeat of the reference is answered with the first entry."""

    account: int
    asset: str
    amount: int
    reference: str


class Withdraw(NamedTuple):
    """As `Deposit`, the other way."""

    account: int
    asset: str
    amount: int
    reference: str


class Transfer(NamedTuple):
    """From one account to another; the reference is unique among the transfers of the one that pays."""

    account: int
    to_account: int
    asset: str
    amount: int
    reference: str


LedgerCommand = CreateAccount | CreateApiKey | RevokeApiKey | CreateAsset | Deposit | Withdraw | Transfer


class Account(NamedTuple):
    account: int
    name: str
    create_time_ns: int


class ApiKey(NamedTuple):
    key_id: str
    account: int
    key_hash: str
    permissions: tuple[int, ...]
    create_time_ns: int
    revoked: bool
    expire_time_ns: int = 0
    allowed_ips: tuple[str, ...] = ()


class LedgerEntry(NamedTuple):
    """One change of one balance. `available`: afterwards; `counterparty`: the other side of a transfer, else 0."""

    entry_id: int
    account: int
    asset: str
    type: int
    change: int
    available: int
    reference: str
    counterparty: int
    time_ns: int
    sequence: int


class LedgerEventKind(IntEnum):
    ACCOUNT = 1
    API_KEY = 2
    ASSET = 3
    ENTRY = 4


class AccountCreated(NamedTuple):
    kind: int
    sequence: int
    account: Account


class ApiKeyChanged(NamedTuple):
    kind: int
    sequence: int
    api_key: ApiKey


class AssetCreated(NamedTuple):
    kind: int
    sequence: int
    asset: Asset


class EntryMade(NamedTuple):
    kind: int
    sequence: int
    entry: LedgerEntry


LedgerEvent = AccountCreated | ApiKeyChanged | AssetCreated | EntryMade


class LedgerResult(NamedTuple):
    """`account`: that the command made, found or concerned; `entry`: of a movement, the payer's of a transfer."""

    sequence: int
    refusal: int
    account: int
    entry: LedgerEntry | None = None
    duplicate: bool = False
