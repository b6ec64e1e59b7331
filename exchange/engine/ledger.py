"""The ledger machine: accounts and API keys, as a deterministic function of its commands.

Funds come to live here too. Keys are known by their hash alone; ids and hashes come in with the commands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Any, NamedTuple

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
API_KEYS_PER_ACCOUNT_MAX = 100


class Permission(IntEnum):
    READ = 1
    TRADE = 2
    TRANSFER = 3
    OPERATOR = 4


class LedgerRefusal(IntEnum):
    """Why a ledger command was refused; 0 is none."""

    NONE = 0
    NAME_INVALID = 1
    ACCOUNT_UNKNOWN = 2
    PERMISSIONS_INVALID = 3
    KEY_EXISTS = 4
    KEY_UNKNOWN = 5
    TOO_MANY_KEYS = 6


class CreateAccount(NamedTuple):
    """A repeat with a known name answers with the account that has it."""

    name: str


class CreateApiKey(NamedTuple):
    """`key_hash`: SHA-256 of the whole key, in hexadecimal."""

    account: int
    key_id: str
    key_hash: str
    permissions: tuple[int, ...]


class RevokeApiKey(NamedTuple):
    key_id: str


LedgerCommand = CreateAccount | CreateApiKey | RevokeApiKey


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


class LedgerEventKind(IntEnum):
    ACCOUNT = 1
    API_KEY = 2


class AccountCreated(NamedTuple):
    kind: int
    sequence: int
    account: Account


class ApiKeyChanged(NamedTuple):
    kind: int
    sequence: int
    api_key: ApiKey


LedgerEvent = AccountCreated | ApiKeyChanged


class LedgerResult(NamedTuple):
    """`account`: the account that the command made, found or concerned."""

    sequence: int
    refusal: int
    account: int


class LedgerApplied(NamedTuple):
    results: list[LedgerResult]
    events: list[LedgerEvent]


class Ledger:
    """Accounts by id and by name, API keys by id."""

    VERSION = 1

    def __init__(self) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.accounts: dict[int, Account] = {}
        self.account_ids: dict[str, int] = {}
        self.api_keys: dict[str, ApiKey] = {}
        self._keys_of_account: dict[int, int] = {}

    def apply(self, time_ns: int, batch: Sequence[LedgerCommand]) -> LedgerApplied:
        """Apply commands in order at one time (ns since the epoch)."""
        self.time_ns = max(self.time_ns, time_ns)
        applied = LedgerApplied([], [])
        for command in batch:
            self.sequence += 1
            if isinstance(command, CreateAccount):
                result = self._create_account(command, applied.events)
            elif isinstance(command, CreateApiKey):
                result = self._create_api_key(command, applied.events)
            else:
                result = self._revoke_api_key(command, applied.events)
            applied.results.append(result)
        return applied

    def next_timer_ns(self) -> int | None:
        """The ledger has no timers yet."""
        return None

    def _create_account(self, command: CreateAccount, events: list[LedgerEvent]) -> LedgerResult:
        known = self.account_ids.get(command.name)
        if known is not None:
            return LedgerResult(self.sequence, LedgerRefusal.NONE, known)
        if not _NAME.fullmatch(command.name):
            return LedgerResult(self.sequence, LedgerRefusal.NAME_INVALID, 0)
        account = Account(len(self.accounts) + 1, command.name, self.time_ns)
        self.accounts[account.account] = account
        self.account_ids[account.name] = account.account
        events.append(AccountCreated(int(LedgerEventKind.ACCOUNT), self.sequence, account))
        return LedgerResult(self.sequence, LedgerRefusal.NONE, account.account)

    def _create_api_key(self, command: CreateApiKey, events: list[LedgerEvent]) -> LedgerResult:
        account = command.account
        permissions = tuple(sorted({int(p) for p in command.permissions}))
        refusal = LedgerRefusal.NONE
        if account not in self.accounts:
            refusal = LedgerRefusal.ACCOUNT_UNKNOWN
        elif not permissions or not all(Permission.READ <= p <= Permission.OPERATOR for p in permissions):
            refusal = LedgerRefusal.PERMISSIONS_INVALID
        elif command.key_id in self.api_keys:
            refusal = LedgerRefusal.KEY_EXISTS
        elif self._keys_of_account.get(account, 0) >= API_KEYS_PER_ACCOUNT_MAX:
            refusal = LedgerRefusal.TOO_MANY_KEYS
        if refusal:
            return LedgerResult(self.sequence, refusal, account)
        api_key = ApiKey(command.key_id, account, command.key_hash, permissions, self.time_ns, False)
        self.api_keys[api_key.key_id] = api_key
        self._keys_of_account[account] = self._keys_of_account.get(account, 0) + 1
        events.append(ApiKeyChanged(int(LedgerEventKind.API_KEY), self.sequence, api_key))
        return LedgerResult(self.sequence, LedgerRefusal.NONE, account)

    def _revoke_api_key(self, command: RevokeApiKey, events: list[LedgerEvent]) -> LedgerResult:
        api_key = self.api_keys.get(command.key_id)
        if api_key is None:
            return LedgerResult(self.sequence, LedgerRefusal.KEY_UNKNOWN, 0)
        if not api_key.revoked:
            self._keys_of_account[api_key.account] -= 1
            api_key = self.api_keys[command.key_id] = api_key._replace(revoked=True)
            events.append(ApiKeyChanged(int(LedgerEventKind.API_KEY), self.sequence, api_key))
        return LedgerResult(self.sequence, LedgerRefusal.NONE, api_key.account)

    def state(self) -> tuple[Any, ...]:
        """Return the whole state as nested tuples."""
        return self.sequence, self.time_ns, list(self.accounts.values()), list(self.api_keys.values())

    @classmethod
    def restore(cls, state: Sequence[Any]) -> Ledger:
        """Return a ledger in a state that `state` gave."""
        ledger = cls()
        ledger.sequence, ledger.time_ns, accounts, api_keys = state
        for row in accounts:
            account = Account(*row)
            ledger.accounts[account.account] = account
            ledger.account_ids[account.name] = account.account
        for key_id, account_id, key_hash, permissions, create_time_ns, revoked in api_keys:
            api_key = ApiKey(key_id, account_id, key_hash, tuple(permissions), create_time_ns, revoked)
            ledger.api_keys[key_id] = api_key
            ledger._keys_of_account[account_id] = ledger._keys_of_account.get(account_id, 0) + (not revoked)
        return ledger

    def state_hash(self) -> bytes:
        """Return the hash of the state."""
        return blake2b(repr(self.state()).encode(), digest_size=16).digest()
