"""What the ledger can be told to do, and what it answers and tells; numbers as in `admin.proto` and `account.proto`."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from exchange.engine.channel import AskFunds, FundsAnswer, ReturnFunds
from exchange.engine.money import Asset


class Permission(IntEnum):
    READ = 1
    TRADE = 2
    TRANSFER = 3
    OPERATOR = 4


class AccountTier(IntEnum):
    """How much an account may send; gateways hold it to that."""

    STANDARD = 1
    MAKER = 2
    UNLIMITED = 3


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
    FUNDS_UNAVAILABLE = 18
    TIER_INVALID = 19


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


class SetTier(NamedTuple):
    """Give an account another tier."""

    account: int
    tier: int


class EndWaits(NamedTuple):
    """Let waits end that have lasted long enough at the record's time."""


LedgerCommand = (
    CreateAccount
    | CreateApiKey
    | RevokeApiKey
    | CreateAsset
    | Deposit
    | Withdraw
    | Transfer
    | AskFunds
    | ReturnFunds
    | EndWaits
    | SetTier
)


class Account(NamedTuple):
    account: int
    name: str
    create_time_ns: int
    tier: int = int(AccountTier.STANDARD)


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
    """One change of what an account has. `available`: in the ledger afterwards, apart from what is in shards;
    `counterparty`: the other side of a transfer, else 0.
    """

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
    ESCROW = 5
    ANSWER = 6
    RECALL = 7
    SETTLED = 8


class AccountChanged(NamedTuple):
    """An account is new, or has another tier."""

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


class Moved(NamedTuple):
    """Money of an account that went to a shard (`change` > 0) or came from it, with the shard's message `n`.

    `available`: what is left in the ledger.
    """

    shard: str
    n: int
    account: int
    asset: str
    change: int
    available: int


class AnswerMade(NamedTuple):
    """The answer to a shard's message that had to wait."""

    shard: str
    n: int
    status: int
    amount: int


class RecallMade(NamedTuple):
    """A shard is to give back: the fields of `RecallFunds`."""

    shard: str
    m: int
    low: int
    account: int
    asset: str
    amount: int


class MoveSettled(NamedTuple):
    """What became of a withdrawal or transfer that had to wait, the command `n`: a refusal (0: done), its entry."""

    n: int
    refusal: int
    entry: LedgerEntry | None


class ChannelEvent(NamedTuple):
    kind: int
    sequence: int
    body: Moved | AnswerMade | RecallMade | MoveSettled


LedgerEvent = AccountChanged | ApiKeyChanged | AssetCreated | EntryMade | ChannelEvent


class LedgerResult(NamedTuple):
    """`account`: that the command made, found or concerned; `entry`: of a movement, the payer's of a transfer.

    `answer`: to a shard. `waits`: 0, or the sequence by which a `MoveSettled` will tell what became of it.
    """

    sequence: int
    refusal: int
    account: int
    entry: LedgerEntry | None = None
    duplicate: bool = False
    answer: FundsAnswer | None = None
    waits: int = 0
