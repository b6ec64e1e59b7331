"""What an audit of the books says. Amounts are Decimals."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from exchange.client._numbers import from_amount, from_time_ns
from exchange.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class AuditedAsset:
    asset: str
    supply: Decimal
    """Deposits less withdrawals."""
    ledger: Decimal
    escrow: dict[str, Decimal]
    """By shard."""
    under_way: Decimal
    """Sent by one machine and not taken in by the other."""
    difference: Decimal
    """What is there beyond the supply: 0 in books that balance."""

    @classmethod
    def from_proto(cls, message: admin_pb2.AuditedAsset) -> "AuditedAsset":
        return cls(
            asset=message.asset,
            supply=from_amount(message.supply),
            ledger=from_amount(message.ledger),
            escrow={row.shard: from_amount(row.amount) for row in message.escrow},
            under_way=from_amount(message.under_way),
            difference=from_amount(message.difference),
        )


@dataclass(frozen=True, slots=True)
class AuditedMachine:
    """Where a shard or the ledger was taken; from `since_sequence` on each of its events was followed (0: not told)."""

    name: str
    sequence: int
    since_sequence: int

    @classmethod
    def from_proto(cls, message: admin_pb2.AuditedMachine) -> "AuditedMachine":
        return cls(message.name, message.sequence, message.since_sequence)


@dataclass(frozen=True, slots=True)
class AuditBreak:
    """A rule that does not hold, with the evidence."""

    rule: str
    kind: str
    """Such as "FEE" or "VANISHED"; docs/operations.md lists them."""
    asset: str
    account_ids: tuple[int, ...]
    shards: tuple[str, ...]
    """Those involved, which are taken to CANCEL_ONLY."""
    subject: str
    expected: Decimal
    found: Decimal
    machines: tuple[AuditedMachine, ...]
    events: tuple[str, ...]
    """The last ones concerned, oldest first."""
    summary: str

    @classmethod
    def from_proto(cls, message: admin_pb2.AuditBreak) -> "AuditBreak":
        return cls(
            rule=message.rule,
            kind=message.kind,
            asset=message.asset,
            account_ids=tuple(message.account_ids),
            shards=tuple(message.shards),
            subject=message.subject,
            expected=from_amount(message.expected),
            found=from_amount(message.found),
            machines=tuple(map(AuditedMachine.from_proto, message.machines)),
            events=tuple(message.events),
            summary=message.summary,
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """The books at one cut. Only an audit that is `complete` can say that they are `balanced`."""

    balanced: bool
    complete: bool
    unavailable: tuple[str, ...]
    """Machines that were away."""
    assets: tuple[AuditedAsset, ...]
    accounts: int
    orders: int
    """Open ones that were seen to hold what they need."""
    trades: int
    """Those whose settlement and fees were checked since the auditor has followed the shards."""
    machines: tuple[AuditedMachine, ...]
    breaks: tuple[AuditBreak, ...]
    notes: tuple[str, ...]
    """What was not followed event by event, and why."""
    time_ns: int

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: admin_pb2.AuditResponse) -> "Audit":
        return cls(
            balanced=message.balanced,
            complete=message.complete,
            unavailable=tuple(message.unavailable),
            assets=tuple(map(AuditedAsset.from_proto, message.assets)),
            accounts=message.accounts,
            orders=message.orders,
            trades=message.trades,
            machines=tuple(map(AuditedMachine.from_proto, message.machines)),
            breaks=tuple(map(AuditBreak.from_proto, message.breaks)),
            notes=tuple(message.notes),
            time_ns=message.time_ns,
        )
