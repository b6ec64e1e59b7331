"""What an account has, and how it came and went. Amounts are Decimals."""

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import overload

from exchange.client._enums import EntryType
from exchange.client._numbers import from_amount, from_time_ns
from exchange.v1 import account_pb2, admin_pb2

_REFERENCE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def new_reference() -> str:
    """32 hexadecimal digits, different each time."""
    return uuid.uuid4().hex


def check_reference(reference: str) -> str:
    """Itself. Raises ValueError for one that the exchange would not take."""
    if not _REFERENCE.fullmatch(reference):
        raise ValueError(f"reference: expected 1 to 64 characters of [A-Za-z0-9_.:-], was {reference!r}")
    return reference


@dataclass(frozen=True, slots=True)
class Asset:
    """What accounts hold, and instruments trade against each other."""

    symbol: str
    scale: int
    """Digits after the point that an amount may have."""

    @classmethod
    def from_proto(cls, message: account_pb2.Asset) -> "Asset":
        return cls(message.symbol, message.scale)


@dataclass(frozen=True, slots=True)
class Balance:
    asset: str
    available: Decimal
    """May be withdrawn or transferred now."""

    @classmethod
    def from_proto(cls, message: account_pb2.Balance) -> "Balance":
        return cls(message.asset, from_amount(message.available))


@dataclass(frozen=True, slots=True)
class Balances(Sequence[Balance]):
    """Of each asset that the account ever had, by name: a sequence of them, as of one moment."""

    rows: tuple[Balance, ...]
    sequence: int
    """The ledger's history up to here is in them: `stream_balances(after=sequence)` goes on from it."""

    def available(self, asset: str) -> Decimal:
        """Of one asset; 0 if the account never had it."""
        return next((row.available for row in self.rows if row.asset == asset), Decimal(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Balance]:
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> Balance: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Balance, ...]: ...

    def __getitem__(self, index: int | slice) -> Balance | tuple[Balance, ...]:
        return self.rows[index]

    @classmethod
    def from_proto(cls, message: account_pb2.GetBalancesResponse) -> "Balances":
        return cls(tuple(Balance.from_proto(row) for row in message.balances), message.sequence)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One change of one balance."""

    entry_id: int
    """Counts the entries of the ledger."""
    account_id: int
    asset: str
    type: EntryType
    change: Decimal
    """What was added; negative if it was taken."""
    available: Decimal
    """Afterwards."""
    reference: str
    counterparty_id: int | None
    """The account on the other side of a transfer; None for all else."""
    time_ns: int
    sequence: int
    """Position of the command in the ledger's history; all entries of one command have the same."""

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: account_pb2.LedgerEntry) -> "LedgerEntry":
        return cls(
            entry_id=message.entry_id,
            account_id=message.account_id,
            asset=message.asset,
            type=EntryType(message.type),
            change=from_amount(message.change),
            available=from_amount(message.available),
            reference=message.reference,
            counterparty_id=message.counterparty_id or None,
            time_ns=message.time_ns,
            sequence=message.sequence,
        )


@dataclass(frozen=True, slots=True)
class EntryResult:
    """What became of a deposit, a withdrawal or a transfer."""

    entry: LedgerEntry
    """Of a transfer: that of the account that paid."""
    duplicate: bool
    """The reference was known: nothing was done this time, and `entry` is the first one."""

    @classmethod
    def from_proto(
        cls, message: account_pb2.TransferResponse | admin_pb2.DepositResponse | admin_pb2.WithdrawResponse
    ) -> "EntryResult":
        return cls(LedgerEntry.from_proto(message.entry), message.duplicate)


@dataclass(frozen=True, slots=True)
class BalanceUpdate:
    """What a stream of balances tells at a time."""

    balances: tuple[Balance, ...]
    """As they are now: first of all each that the account has, then those that `entries` changed."""
    entries: tuple[LedgerEntry, ...]
    """What happened, oldest first."""
    sequence: int
    """The ledger's history up to here is in it: `stream_balances(after=sequence)` goes on from it."""


@dataclass(frozen=True, slots=True)
class Fee:
    """What trading an instrument costs, in 1/1,000,000 of price times quantity, in the quote asset."""

    instrument: str
    maker_fee_ppm: int
    """Negative: it is paid to the account."""
    taker_fee_ppm: int

    @classmethod
    def from_proto(cls, message: account_pb2.Fee) -> "Fee":
        return cls(message.instrument, message.maker_fee_ppm, message.taker_fee_ppm)
