"""Who has how much here, and how it came to be: double entry, each change with the reference it was asked for under."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from exchange.engine.ledger_words import EntryType, LedgerEntry, LedgerRefusal
from exchange.engine.money import AMOUNT_MAX, Asset

ENTRIES_KEPT = 1_000_000
"""Of all accounts together. As long as an entry is kept, a repeat of its reference is known as one."""
_REFERENCE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

_Key = tuple[int, int, str]
"""Type of the entry, account (0 where references are unique for all), reference."""


class Balances:
    """Assets, what of them each account has in the ledger, and the newest entries. It refuses or does, never half."""

    def __init__(self) -> None:
        self.assets: dict[str, Asset] = {}
        self.available: dict[int, dict[str, int]] = {}
        """By account, then asset; an asset that the account once had stays, with 0."""
        self.supply: dict[str, int] = {}
        """Of each asset: what came in less what went out. All balances, and what is in shards, make this (I3)."""
        self.entries: deque[LedgerEntry] = deque()
        self.last_entry_id = 0
        self._of_account: dict[int, deque[LedgerEntry]] = {}
        self._by_reference: dict[_Key, LedgerEntry] = {}

    def create_asset(self, asset: Asset) -> LedgerRefusal:
        """Add an asset; the same one again changes nothing."""
        if not asset.is_valid:
            return LedgerRefusal.ASSET_INVALID
        known = self.assets.setdefault(asset.symbol, asset)
        return LedgerRefusal.NONE if known == asset else LedgerRefusal.ASSET_EXISTS

    def known(self, entry_type: EntryType, account: int, reference: str) -> LedgerEntry | None:
        """Return the entry that was made under a reference."""
        return self._by_reference.get(_key(entry_type, account, reference))

    def refuse(self, asset: str, amount: int, reference: str) -> LedgerRefusal:
        """Return why no movement could be like this, whosever it is."""
        if not _REFERENCE.fullmatch(reference):
            return LedgerRefusal.REFERENCE_INVALID
        if asset not in self.assets:
            return LedgerRefusal.ASSET_UNKNOWN
        if amount <= 0:
            return LedgerRefusal.AMOUNT_INVALID
        return LedgerRefusal.AMOUNT_TOO_LARGE if amount > AMOUNT_MAX else LedgerRefusal.NONE

    def deposit(
        self, account: int, asset: str, amount: int, reference: str, sequence: int, time_ns: int
    ) -> LedgerEntry | LedgerRefusal:
        """Let money come in."""
        supply = self.supply.get(asset, 0) + amount
        if supply > AMOUNT_MAX:
            return LedgerRefusal.AMOUNT_TOO_LARGE
        self.supply[asset] = supply
        return self._enter(account, asset, EntryType.DEPOSIT, amount, reference, 0, sequence, time_ns)

    def withdraw(
        self, account: int, asset: str, amount: int, reference: str, sequence: int, time_ns: int
    ) -> LedgerEntry | LedgerRefusal:
        """Let money go out that the account has available."""
        if self.of(account, asset) < amount:
            return LedgerRefusal.INSUFFICIENT_FUNDS
        self.supply[asset] -= amount
        return self._enter(account, asset, EntryType.WITHDRAWAL, -amount, reference, 0, sequence, time_ns)

    def transfer(
        self, account: int, to_account: int, asset: str, amount: int, reference: str, sequence: int, time_ns: int
    ) -> tuple[LedgerEntry, LedgerEntry] | LedgerRefusal:
        """Move money between accounts; the first entry is that of the one who pays."""
        if self.of(account, asset) < amount:
            return LedgerRefusal.INSUFFICIENT_FUNDS
        return (
            self._enter(account, asset, EntryType.TRANSFER, -amount, reference, to_account, sequence, time_ns),
            self._enter(to_account, asset, EntryType.TRANSFER, amount, reference, account, sequence, time_ns),
        )

    def move_out(self, account: int, asset: str, amount: int) -> int:
        """Take what a shard gets for an account, or with `amount` < 0 put what it gives back; return what is left.

        No entry is made: it is the account's money before and after.
        """
        balances = self.available.setdefault(account, {})
        balances[asset] = left = balances.get(asset, 0) - amount
        return left

    def of(self, account: int, asset: str) -> int:
        """Return what an account has available of an asset."""
        return self.available.get(account, {}).get(asset, 0)

    def entries_of(self, account: int, asset: str, before_entry_id: int, limit: int) -> list[LedgerEntry]:
        """Return an account's entries before one (0: all), newest first; of one asset, or of all if that is empty."""
        rows: Iterator[LedgerEntry] = (
            entry
            for entry in reversed(self._of_account.get(account, ()))
            if (not before_entry_id or entry.entry_id < before_entry_id) and (not asset or entry.asset == asset)
        )
        return list(islice(rows, limit))

    def _enter(
        self,
        account: int,
        asset: str,
        entry_type: EntryType,
        change: int,
        reference: str,
        counterparty: int,
        sequence: int,
        time_ns: int,
    ) -> LedgerEntry:
        balances = self.available.setdefault(account, {})
        available = balances[asset] = balances.get(asset, 0) + change
        self.last_entry_id += 1
        entry = LedgerEntry(
            self.last_entry_id,
            account,
            asset,
            int(entry_type),
            change,
            available,
            reference,
            counterparty,
            time_ns,
            sequence,
        )
        self._keep(entry)
        while len(self.entries) > ENTRIES_KEPT:
            oldest = self.entries.popleft()
            self._of_account[oldest.account].popleft()
            if _names(oldest):
                del self._by_reference[_key(EntryType(oldest.type), oldest.account, oldest.reference)]
        return entry

    def _keep(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)
        self._of_account.setdefault(entry.account, deque()).append(entry)
        if _names(entry):
            self._by_reference[_key(EntryType(entry.type), entry.account, entry.reference)] = entry

    def state(self) -> tuple[Any, ...]:
        """Return all of it as nested tuples."""
        return (
            [tuple(asset) for asset in self.assets.values()],
            [(account, list(balances.items())) for account, balances in self.available.items()],
            list(self.supply.items()),
            self.last_entry_id,
            [tuple(entry) for entry in self.entries],
        )

    def load(self, state: Sequence[Any]) -> None:
        """Take a state that `state` gave."""
        assets, available, supply, self.last_entry_id, entries = state
        self.assets = {symbol: Asset(symbol, scale) for symbol, scale in assets}
        self.available = {account: dict(map(tuple, balances)) for account, balances in available}
        self.supply = dict(map(tuple, supply))
        for row in entries:
            self._keep(LedgerEntry(*row))

    def validate(self, out: dict[str, int]) -> None:
        """Check what must hold between commands; AssertionError says what does not. `out`: of each asset, in shards."""
        totals = {asset: out.get(asset, 0) for asset in self.supply}
        for account, balances in self.available.items():
            for asset, units in balances.items():
                assert units >= 0, f"account {account} has {units} {asset}"
                totals[asset] += units
        assert totals == self.supply, f"balances make {totals}, deposits less withdrawals {self.supply}"
        kept = sum(map(len, self._of_account.values()))
        assert kept == len(self.entries), f"{len(self.entries)} entries, {kept} found by account"


def _names(entry: LedgerEntry) -> bool:
    """Whether a repeat of the entry's reference is answered with it: of a transfer, it is the payer's."""
    return entry.type != EntryType.TRANSFER or entry.change < 0


def _key(entry_type: EntryType, account: int, reference: str) -> _Key:
    return int(entry_type), account if entry_type == EntryType.TRANSFER else 0, reference
