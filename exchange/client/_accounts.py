"""What an account has, and how it came and went. Amounts are Decimals."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import overload

from exchange.client._enums import BalanceChangeReason, EntryType
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
    """What an account has of an asset, wherever it is: in the ledger and in all markets."""

    asset: str
    available: Decimal
    """May be traded with, withdrawn or transferred now."""
    held: Decimal = Decimal(0)
    """Bound by open orders."""
    total: Decimal = Decimal(0)
    """Both together."""
    markets: Mapping[str, Decimal] = field(default_factory=dict)
    """What is held, by instrument."""

    @classmethod
    def from_proto(cls, message: account_pb2.Balance) -> "Balance":
        return cls(
            message.asset,
            from_amount(message.available),
            from_amount(message.held),
            from_amount(message.total),
            {market.instrument: from_amount(market.held) for market in message.markets},
        )


@dataclass(frozen=True, slots=True)
class Balances(Sequence[Balance]):
    """Of each asset that the account ever had, by name: a sequence of them."""

    rows: tuple[Balance, ...]
    sequences: Mapping[str, int] = field(default_factory=dict)
    """"ledger" and each shard -> up to where its history is in them: `stream_balances(after=sequences)` goes on."""
    unavailable_shards: tuple[str, ...] = ()
    """Could not be asked: what the account has there is in no balance."""

    def of(self, asset: str) -> Balance:
        """That of one asset; of 0 if the account never had it."""
        return next((row for row in self.rows if row.asset == asset), Balance(asset, Decimal(0)))

    def available(self, asset: str) -> Decimal:
        """Of one asset; 0 if the account never had it."""
        return self.of(asset).available

    def held(self, asset: str) -> Decimal:
        """Of one asset, by open orders; 0 if the account never had it."""
        return self.of(asset).held

    def total(self, asset: str) -> Decimal:
        """Of one asset, available and held; 0 if the account never had it."""
        return self.of(asset).total

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
        return cls(
            tuple(Balance.from_proto(row) for row in message.balances),
            dict(message.sequences),
            tuple(message.unavailable_shards),
        )


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A deposit or a withdrawal, or one side of a transfer."""

    entry_id: int
    """Counts the entries of the ledger."""
    account_id: int
    asset: str
    type: EntryType
    change: Decimal
    """What was added; negative if it was taken."""
    available: Decimal
    """What lay in the ledger afterwards, apart from what is in markets."""
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
class BalanceChange:
    """An account has more or less of an asset in total. That some of it gets held, or free, is no change."""

    source: str
    """"ledger", or the shard where the trade was."""
    sequence: int
    """Position of the command in the history of the source."""
    asset: str
    change: Decimal
    """What was added; negative if it was taken."""
    reason: BalanceChangeReason
    time_ns: int
    entry_id: int | None = None
    """This and the next two: of the ledger, as in its LedgerEntry."""
    reference: str = ""
    counterparty_id: int | None = None
    instrument: str = ""
    """This and the next: of a trade or its fee."""
    trade_id: int | None = None
    order_id: int | None = None
    """The account's own order; None for what the house gets."""
    client_order_id: str = ""

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: account_pb2.BalanceChange) -> "BalanceChange":
        return cls(
            source=message.source,
            sequence=message.sequence,
            asset=message.asset,
            change=from_amount(message.change),
            reason=BalanceChangeReason(message.reason),
            time_ns=message.time_ns,
            entry_id=message.entry_id or None,
            reference=message.reference,
            counterparty_id=message.counterparty_id or None,
            instrument=message.instrument,
            trade_id=message.trade_id or None,
            order_id=message.order_id or None,
            client_order_id=message.client_order_id,
        )


@dataclass(frozen=True, slots=True)
class BalanceUpdate:
    """What a stream of balances tells at a time."""

    balances: tuple[Balance, ...]
    """As they are: in the first update, unless the stream goes on after sequences. Then come changes alone."""
    changes: tuple[BalanceChange, ...]
    """Of each source oldest first."""
    sequences: Mapping[str, int]
    """"ledger" and each shard -> up to where its history was told: `stream_balances(after=sequences)` goes on."""
    unavailable_shards: tuple[str, ...] = ()
    """Could not be asked for the first update: what the account has there is in no balance."""


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
