"""What an audit finds and says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from exchange.engine.money import format_amount


class BreakKind(StrEnum):
    """What is wrong."""

    FEE = "FEE"
    """A trade cost another fee than the rates of its instrument make (I3)."""
    OWNED = "OWNED"
    """An account owns more or less in a shard than events account for (I3)."""
    RECEIVED = "RECEIVED"
    """A shard says that another amount came from the ledger than its events tell (I3)."""
    ESCROW = "ESCROW"
    """All accounts together own more or less in a shard than came from the ledger (I3)."""
    BALANCE = "BALANCE"
    """An account has more or less in the ledger than events account for (I3)."""
    OUT = "OUT"
    """The ledger says that another amount is out in a shard than its events tell (I3)."""
    SUPPLY = "SUPPLY"
    """Deposits less withdrawals are not what is there (I3)."""
    CREDITED = "CREDITED"
    """A shard credited what the ledger did not grant (I3)."""
    VANISHED = "VANISHED"
    """One side sent money, the other says that it has had the message, and did not count the money (I3)."""
    TAKEN = "TAKEN"
    """The ledger took in what the shard did not give (I3)."""
    TWICE = "TWICE"
    """A message moved money a second time (I3)."""
    UNEQUAL = "UNEQUAL"
    """One message moved different money on its two sides (I3)."""
    UNDER_WAY = "UNDER_WAY"
    """What the two sides say that they sent each other does not agree with what is under way (I3)."""
    HOLD = "HOLD"
    """Open orders hold more or less than they need (I4)."""
    NEGATIVE = "NEGATIVE"
    """An account has less than nothing (I4)."""
    FEED = "FEED"
    """A feed contradicts itself: it names an order that is not open."""


_RULES = {BreakKind.HOLD: "I4", BreakKind.NEGATIVE: "I4", BreakKind.FEED: "I7"}


@dataclass(frozen=True, slots=True)
class Break:
    """A rule that does not hold, with the evidence. Amounts in units of the asset.

    `subject` is what it is about besides asset and account: an instrument, a trade, a message. `sequences`: where each
    machine was. `events`: the last ones concerned, oldest first, as the feed had them.
    """

    kind: BreakKind
    asset: str
    shards: tuple[str, ...]
    expected: int
    found: int
    accounts: tuple[int, ...] = ()
    subject: str = ""
    sequences: tuple[tuple[str, int], ...] = ()
    events: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        return _RULES.get(self.kind, "I3")

    @property
    def key(self) -> str:
        """The same for the same break however often it is found, so that it is an alarm once."""
        accounts = ",".join(map(str, self.accounts))
        shards = "" if self.kind == BreakKind.SUPPLY else ",".join(self.shards)
        # What is less than nothing may change with every trade, and is the same break.
        difference = "" if self.kind == BreakKind.NEGATIVE else f"{self.found - self.expected:+d}"
        return f"{self.kind}/{shards}/{self.asset}/{accounts}/{self.subject}/{difference}"

    def describe(self, scale: int = 0) -> str:
        """Return one line for a person, with amounts in units of 10^-scale."""
        where = "+".join(self.shards) or "ledger"
        whose = f" account {self.accounts[0]}" if len(self.accounts) == 1 else ""
        about = f" {self.subject}" if self.subject else ""
        expected, found = format_amount(self.expected, scale), format_amount(self.found, scale)
        return f"{self.rule} {self.kind} {where}{whose} {self.asset}{about}: expected {expected}, was {found}"

    def as_fields(self, scale: int = 0) -> dict[str, Any]:
        """Return it as plain values, for a log; the summary has amounts in units of 10^-scale."""
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {**plain, "kind": str(self.kind), "rule": self.rule, "key": self.key, "summary": self.describe(scale)}


class Change(NamedTuple):
    """A message that moved money, as one side has it: to the shard (`change` > 0), or from it."""

    n: int
    account: int
    asset: str
    change: int
    sequence: int


Key = tuple[int, str]
"""Account and asset."""


@dataclass(slots=True)
class ShardCut:
    """A shard at a sequence, compared already. `since`: the sequence from which on every event was followed.

    `generation` is another one after each start from the shard's own claim. `changes` are those that nobody has
    accounted for; who does empties the list.
    """

    shard: str
    sequence: int
    since: int
    generation: int
    owned: dict[str, int]
    received: dict[Key, int]
    changes: list[Change]
    outbox: dict[int, Change]
    """What waits for an answer: a return with its (negative) change, an ask with 0."""
    next_n: int
    accounts: int
    orders: int
    trades: int


@dataclass(slots=True)
class LedgerCut:
    """The ledger at a sequence, compared already; `moves` by shard, as `changes` of a shard.

    `answers`: those that shards may not have had when the account of the ledger began: the amount granted by message,
    None for a return that had arrived.
    """

    sequence: int
    since: int
    generation: int
    scales: dict[str, int]
    supply: dict[str, int]
    balances: dict[str, int]
    out: dict[str, dict[Key, int]]
    moves: dict[str, list[Change]]
    answers: dict[str, dict[int, int | None]]
    accounts: int


@dataclass(slots=True)
class AssetLine:
    """All of one asset. `difference` is what is there beyond the supply."""

    asset: str
    scale: int
    supply: int = 0
    ledger: int = 0
    escrow: dict[str, int] = field(default_factory=dict)
    under_way: int = 0

    @property
    def difference(self) -> int:
        return self.ledger + sum(self.escrow.values()) + self.under_way - self.supply


@dataclass(slots=True)
class AuditReport:
    """What an audit found. Only one that is complete can say that the books balance.

    `cut`: by machine, the sequence at which it was taken, and that from which on its events were followed one by one.
    """

    time_ns: int
    unavailable: list[str] = field(default_factory=list)
    assets: list[AssetLine] = field(default_factory=list)
    accounts: int = 0
    orders: int = 0
    trades: int = 0
    cut: dict[str, tuple[int, int]] = field(default_factory=dict)
    breaks: list[Break] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return not self.unavailable

    @property
    def is_balanced(self) -> bool:
        return self.is_complete and not self.breaks
