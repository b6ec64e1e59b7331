"""The ledger machine: accounts, API keys, and money that is in no shard, as a deterministic function of its commands.

Keys are known by their hash alone; ids and hashes come in with the commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

from exchange.engine.balances import Balances
from exchange.engine.channel import AskFunds, FundsAnswer, ReturnFunds
from exchange.engine.grants import Grants
from exchange.engine.ledger_words import (
    Account,
    AccountChanged,
    AccountTier,
    ApiKey,
    ApiKeyChanged,
    AssetCreated,
    ChannelEvent,
    CreateAccount,
    CreateApiKey,
    CreateAsset,
    Deposit,
    EndWaits,
    EntryMade,
    EntryType,
    LedgerCommand,
    LedgerEntry,
    LedgerEvent,
    LedgerEventKind,
    LedgerRefusal,
    LedgerResult,
    MoveSettled,
    Permission,
    RevokeApiKey,
    SetTier,
    Transfer,
    Withdraw,
)
from exchange.engine.money import Asset

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
API_KEYS_PER_ACCOUNT_MAX = 100
ALLOWED_IPS_MAX = 32


class LedgerApplied(NamedTuple):
    results: list[LedgerResult]
    events: list[LedgerEvent]


class Ledger:
    """Accounts by id and by name, API keys by id, balances, what is out in shards, movements that wait for that."""

    VERSION = 6

    def __init__(self) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.accounts: dict[int, Account] = {}
        self.account_ids: dict[str, int] = {}
        self.api_keys: dict[str, ApiKey] = {}
        self.balances = Balances()
        self.grants = Grants(self.balances, self._emit, self._on_move)
        self.moves: dict[int, Withdraw | Transfer] = {}
        """Movements that wait for money to come back from shards, by the sequence of their command."""
        self._move_names: dict[tuple[bool, int, str], int] = {}
        self._keys_of_account: dict[int, int] = {}
        self._events: list[LedgerEvent] = []
        self._handlers: dict[type, Callable[[Any], LedgerResult]] = {
            CreateAccount: self._create_account,
            CreateApiKey: self._create_api_key,
            RevokeApiKey: self._revoke_api_key,
            CreateAsset: self._create_asset,
            Deposit: self._deposit,
            Withdraw: self._withdraw,
            Transfer: self._transfer,
            AskFunds: lambda command: self._answered(self.grants.ask(command, self.time_ns)),
            ReturnFunds: lambda command: self._answered(self.grants.take_back(command, self.time_ns)),
            EndWaits: self._end_waits,
            SetTier: self._set_tier,
        }

    def apply(self, time_ns: int, batch: Sequence[LedgerCommand]) -> LedgerApplied:
        """Apply commands in order at one time (ns since the epoch)."""
        self.time_ns = max(self.time_ns, time_ns)
        events: list[LedgerEvent] = []
        results: list[LedgerResult] = []
        self._events = events
        for command in batch:
            self.sequence += 1
            results.append(self._handlers[type(command)](command))
            self.grants.settle(self.time_ns)
        return LedgerApplied(results, events)

    def next_timer_ns(self) -> int | None:
        """When somebody has waited long enough for money to come back, or None."""
        return self.grants.next_timer_ns()

    # ---------------------------------------------------------------- accounts and keys

    def _create_account(self, command: CreateAccount) -> LedgerResult:
        known = self.account_ids.get(command.name)
        if known is not None:
            return self._done(known)
        if not _NAME.fullmatch(command.name):
            return self._refuse(LedgerRefusal.NAME_INVALID)
        account = Account(len(self.accounts) + 1, command.name, self.time_ns)
        self.account_ids[account.name] = account.account
        return self._enter_account(account)

    def _set_tier(self, command: SetTier) -> LedgerResult:
        account = self.accounts.get(command.account)
        if account is None:
            return self._refuse(LedgerRefusal.ACCOUNT_UNKNOWN, command.account)
        if not AccountTier.STANDARD <= command.tier <= AccountTier.UNLIMITED:
            return self._refuse(LedgerRefusal.TIER_INVALID, command.account)
        if account.tier == command.tier:
            return self._done(account.account)
        return self._enter_account(account._replace(tier=command.tier))

    def _enter_account(self, account: Account) -> LedgerResult:
        self.accounts[account.account] = account
        self._events.append(AccountChanged(int(LedgerEventKind.ACCOUNT), self.sequence, account))
        return self._done(account.account)

    def _create_api_key(self, command: CreateApiKey) -> LedgerResult:
        account = command.account
        permissions = tuple(sorted({int(p) for p in command.permissions}))
        refusal = LedgerRefusal.NONE
        if account not in self.accounts:
            refusal = LedgerRefusal.ACCOUNT_UNKNOWN
        elif not permissions or not all(Permission.READ <= p <= Permission.OPERATOR for p in permissions):
            refusal = LedgerRefusal.PERMISSIONS_INVALID
        elif command.expire_time_ns and command.expire_time_ns <= self.time_ns:
            refusal = LedgerRefusal.EXPIRE_TIME_INVALID
        elif len(command.allowed_ips) > ALLOWED_IPS_MAX or not all(map(_is_network, command.allowed_ips)):
            refusal = LedgerRefusal.ADDRESS_INVALID
        elif command.key_id in self.api_keys:
            refusal = LedgerRefusal.KEY_EXISTS
        elif self._keys_of_account.get(account, 0) >= API_KEYS_PER_ACCOUNT_MAX:
            refusal = LedgerRefusal.TOO_MANY_KEYS
        if refusal:
            return self._refuse(refusal, account)
        self._enter_key(
            ApiKey(
                command.key_id,
                account,
                command.key_hash,
                permissions,
                self.time_ns,
                False,
                command.expire_time_ns,
                tuple(command.allowed_ips),
            )
        )
        self._keys_of_account[account] = self._keys_of_account.get(account, 0) + 1
        return self._done(account)

    def _revoke_api_key(self, command: RevokeApiKey) -> LedgerResult:
        api_key = self.api_keys.get(command.key_id)
        if api_key is None:
            return self._refuse(LedgerRefusal.KEY_UNKNOWN)
        if not api_key.revoked:
            self._keys_of_account[api_key.account] -= 1
            self._enter_key(api_key._replace(revoked=True))
        return self._done(api_key.account)

    def _enter_key(self, api_key: ApiKey) -> None:
        self.api_keys[api_key.key_id] = api_key
        self._events.append(ApiKeyChanged(int(LedgerEventKind.API_KEY), self.sequence, api_key))

    # ---------------------------------------------------------------- money

    def _create_asset(self, command: CreateAsset) -> LedgerResult:
        asset = Asset(*command)
        is_new = asset.symbol not in self.balances.assets
        refusal = self.balances.create_asset(asset)
        if refusal:
            return self._refuse(refusal)
        if is_new:
            self._events.append(AssetCreated(int(LedgerEventKind.ASSET), self.sequence, asset))
        return self._done(0)

    def _deposit(self, command: Deposit) -> LedgerResult:
        refused = self._repeat_or_refuse(command, EntryType.DEPOSIT, command.amount, 0)
        if refused is not None:
            return refused
        return self._entered(command.account, self.balances.deposit(*command, self.sequence, self.time_ns))

    def _withdraw(self, command: Withdraw) -> LedgerResult:
        refused = self._repeat_or_refuse(command, EntryType.WITHDRAWAL, -command.amount, 0)
        return refused or self._wait_or_move(command)

    def _transfer(self, command: Transfer) -> LedgerResult:
        refused = self._repeat_or_refuse(command, EntryType.TRANSFER, -command.amount, command.to_account)
        if refused is not None:
            return refused
        if command.to_account not in self.accounts:
            return self._refuse(LedgerRefusal.ACCOUNT_UNKNOWN, command.to_account)
        if command.to_account == command.account:
            return self._refuse(LedgerRefusal.TRANSFER_TO_SELF, command.account)
        return self._wait_or_move(command)

    def _wait_or_move(self, command: Withdraw | Transfer) -> LedgerResult:
        """Move the money now, or when enough has come back from shards. What open orders hold there stays there."""
        account, asset, amount = command.account, command.asset, command.amount
        n = self._move_names.get(_name_of(command))
        if n is not None:
            same = self.moves[n] == command
            return (
                self._done(account)._replace(waits=n) if same else self._refuse(LedgerRefusal.REFERENCE_REUSED, account)
            )
        in_line = (account, asset) in self.grants.lines
        enough = self.balances.of(account, asset) >= amount
        if not in_line and (enough or not self.grants.is_out(account)):
            return self._move(command)
        self._enter_move(self.sequence, command)
        self.grants.wait_for_move(self.sequence, account, asset, amount, self.time_ns)
        return self._done(account)._replace(waits=self.sequence)

    def _enter_move(self, n: int, command: Withdraw | Transfer) -> None:
        self.moves[n] = command
        self._move_names[_name_of(command)] = n

    def _move(self, command: Withdraw | Transfer) -> LedgerResult:
        if isinstance(command, Withdraw):
            return self._entered(command.account, self.balances.withdraw(*command, self.sequence, self.time_ns))
        entries = self.balances.transfer(*command, self.sequence, self.time_ns)
        return self._entered(command.account, *(entries if isinstance(entries, tuple) else (entries,)))

    def _on_move(self, n: int, served: bool | None) -> None:
        """Tell what became of a movement that has waited."""
        command = self.moves.pop(n)
        del self._move_names[_name_of(command)]
        if served is None:
            result = self._refuse(LedgerRefusal.FUNDS_UNAVAILABLE, command.account)
        else:
            result = self._move(command)
        self._emit(LedgerEventKind.SETTLED, MoveSettled(n, result.refusal, result.entry))

    def _end_waits(self, _: EndWaits) -> LedgerResult:
        self.grants.expire(self.time_ns)
        return self._done(0)

    def _answered(self, answer: FundsAnswer) -> LedgerResult:
        return self._done(0)._replace(answer=answer)

    def _emit(self, kind: LedgerEventKind, body: Any) -> None:
        self._events.append(ChannelEvent(int(kind), self.sequence, body))

    def _repeat_or_refuse(
        self, command: Deposit | Withdraw | Transfer, entry_type: EntryType, change: int, counterparty: int
    ) -> LedgerResult | None:
        """Answer a reference that is known with its first entry, if it asks for the same; None: go on."""
        first = self.balances.known(entry_type, command.account, command.reference)
        if first is not None:
            asked = (command.account, command.asset, change, counterparty)
            if (first.account, first.asset, first.change, first.counterparty) != asked:
                return self._refuse(LedgerRefusal.REFERENCE_REUSED, command.account)
            return self._done(command.account)._replace(entry=first, duplicate=True)
        refusal = self.balances.refuse(command.asset, command.amount, command.reference)
        if not refusal and command.account not in self.accounts:
            refusal = LedgerRefusal.ACCOUNT_UNKNOWN
        return self._refuse(refusal, command.account) if refusal else None

    def _entered(self, account: int, *entries: LedgerEntry | LedgerRefusal) -> LedgerResult:
        first = entries[0]
        if isinstance(first, LedgerRefusal):
            return self._refuse(first, account)
        for entry in entries:
            assert isinstance(entry, tuple)
            self.grants.mark(entry.account, entry.asset)
            self._events.append(EntryMade(int(LedgerEventKind.ENTRY), self.sequence, entry))
        return self._done(account)._replace(entry=first)

    # ---------------------------------------------------------------- results, state

    def _done(self, account: int) -> LedgerResult:
        return LedgerResult(self.sequence, int(LedgerRefusal.NONE), account)

    def _refuse(self, refusal: LedgerRefusal, account: int = 0) -> LedgerResult:
        return LedgerResult(self.sequence, int(refusal), account)

    def state(self) -> tuple[Any, ...]:
        """Return the whole state as nested tuples."""
        accounts, api_keys = list(self.accounts.values()), list(self.api_keys.values())
        moves = [(n, isinstance(command, Transfer), tuple(command)) for n, command in self.moves.items()]
        money = self.balances.state(), self.grants.state(), moves
        return self.sequence, self.time_ns, accounts, api_keys, money

    @classmethod
    def restore(cls, state: Sequence[Any]) -> Ledger:
        """Return a ledger in a state that `state` gave."""
        ledger = cls()
        ledger.sequence, ledger.time_ns, accounts, api_keys, (balances, grants, moves) = state
        for row in accounts:
            account = Account(*row)
            ledger.accounts[account.account] = account
            ledger.account_ids[account.name] = account.account
        for row in api_keys:
            api_key = api_key_of(row)
            ledger.api_keys[api_key.key_id] = api_key
            kept = ledger._keys_of_account.get(api_key.account, 0)
            ledger._keys_of_account[api_key.account] = kept + (not api_key.revoked)
        ledger.balances.load(balances)
        ledger.grants.load(grants)
        for n, is_transfer, row in moves:
            ledger._enter_move(n, Transfer(*row) if is_transfer else Withdraw(*row))
        return ledger

    def validate(self) -> None:
        """Check what must hold between commands; AssertionError says what does not."""
        self.balances.validate({asset: self.grants.total_out(asset) for asset in self.balances.supply})
        self.grants.validate()
        assert sorted(self.moves) == sorted(w.n for line in self.grants.lines.values() for w in line if not w.shard)
        assert set(self.balances.available) <= set(self.accounts), "an account has money and does not exist"


def _name_of(command: Withdraw | Transfer) -> tuple[bool, int, str]:
    """Return what a movement's reference must be unique by."""
    is_transfer = isinstance(command, Transfer)
    return is_transfer, command.account if is_transfer else 0, command.reference


def api_key_of(row: Sequence[Any]) -> ApiKey:
    """Return a key from its row, whose parts may have become lists on the way."""
    key = ApiKey(*row)
    return key._replace(permissions=tuple(key.permissions), allowed_ips=tuple(key.allowed_ips))


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
