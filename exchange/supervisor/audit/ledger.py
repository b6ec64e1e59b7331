"""What accounts have in the ledger and what is out in shards, from the ledger's events alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from exchange.engine.channel import AnswerStatus
from exchange.engine.ledger_words import EntryType, LedgerEntry, LedgerEventKind, Moved
from exchange.runtime.feed import FeedBatch
from exchange.supervisor.audit.shard import EVENTS_SHOWN, FeedMissed
from exchange.supervisor.audit.words import Break, BreakKind, Change, Key, LedgerCut

_ASSET, _ENTRY, _ESCROW = (int(kind) for kind in (LedgerEventKind.ASSET, LedgerEventKind.ENTRY, LedgerEventKind.ESCROW))
_GRANTED, _DONE = int(AnswerStatus.GRANTED), int(AnswerStatus.DONE)
EVENTS_KEPT = 10_000


class LedgerAccount:
    """The account of the ledger. `start` takes it from the ledger's own books (`money_of`), `apply` follows the feed,
    `compare` says where the two differ. `on_break` gets what is found.
    """

    def __init__(self, on_break: Callable[[Break], None]) -> None:
        self.sequence = 0
        self.since = 0
        self.generation = 0
        self.is_started = False
        self.scales: dict[str, int] = {}
        self.supply: dict[str, int] = {}
        self.balances: dict[Key, int] = {}
        self.out: dict[str, dict[Key, int]] = {}
        self.moves: dict[str, list[Change]] = {}
        """Since the last cut."""
        self.unpaired: dict[str, list[Change]] = {}
        """Before it, and not accounted for yet."""
        self.answers: dict[str, dict[int, int | None]] = {}
        self._suspects: dict[str, dict[str, None]] = {}
        """By asset, the shards of the accounts that were found wrong since the last cut."""
        self._on_break = on_break
        self._recent: deque[LedgerEntry | Moved] = deque(maxlen=EVENTS_KEPT)

    def start(self, claim: Sequence[Any]) -> None:
        """Begin with the ledger's own books."""
        self.sequence, assets, supply, available, out, answers = claim
        self.since = self.sequence
        self.generation += 1
        self.is_started = True
        self.scales = dict(map(tuple, assets))
        self.supply = dict(map(tuple, supply))
        self.balances, self.out = _balances(available), _out(out)
        self.moves, self.unpaired, self._suspects = {}, {}, {}
        self._recent.clear()
        self.answers = {
            shard: {
                n: amount if status == _GRANTED else None for n, status, amount in rows if status in (_GRANTED, _DONE)
            }
            for shard, rows in answers
        }

    def lose(self) -> None:
        """Forget it all: what follows cannot be followed."""
        self.is_started = False

    def apply(self, batch: FeedBatch) -> None:
        """Go on with a batch; what is known already changes nothing. Raises `FeedMissed`."""
        if batch.last_sequence <= self.sequence:
            return
        if batch.first_sequence != self.sequence + 1:
            raise FeedMissed(f"ledger: expected {self.sequence + 1}, was {batch.first_sequence}")
        for kind, sequence, body in batch.events:
            if kind == _ENTRY:
                self._enter(LedgerEntry(*body), sequence)
            elif kind == _ESCROW:
                self._move(Moved(*body), sequence)
            elif kind == _ASSET:
                self.scales[body[0]] = body[1]
        self.sequence = batch.last_sequence

    def _enter(self, entry: LedgerEntry, sequence: int) -> None:
        self._recent.append(entry)
        if entry.type in (EntryType.DEPOSIT, EntryType.WITHDRAWAL):
            self.supply[entry.asset] = self.supply.get(entry.asset, 0) + entry.change
        self._change(entry.account, entry.asset, entry.change, entry.available, sequence)

    def _move(self, moved: Moved, sequence: int) -> None:
        self._recent.append(moved)
        out = self.out.setdefault(moved.shard, {})
        key = moved.account, moved.asset
        out[key] = out.get(key, 0) + moved.change
        change = Change(moved.n, moved.account, moved.asset, moved.change, sequence)
        self.moves.setdefault(moved.shard, []).append(change)
        self._change(moved.account, moved.asset, -moved.change, moved.available, sequence)

    def _change(self, account: int, asset: str, change: int, told: int, sequence: int) -> None:
        """Change a balance, and see whether the event says the same of it."""
        key = account, asset
        kept = self.balances.get(key, 0) + change
        if kept != told:
            self._on_break(self._break(BreakKind.BALANCE, asset, account, kept, told, sequence))
        if told < 0:
            self._on_break(self._break(BreakKind.NEGATIVE, asset, account, 0, told, sequence))
        # From here on it is as the ledger says, so that the same difference is told once.
        self.balances[key] = told

    def compare(self, claim: Sequence[Any]) -> LedgerCut:
        """Hold the ledger's own books of this sequence against the account; return the cut."""
        sequence, assets, supply, available, out, _ = claim
        assert sequence == self.sequence, f"expected the claim of {self.sequence}, was {sequence}"
        claimed, claimed_out, claimed_supply = _balances(available), _out(out), dict(map(tuple, supply))
        for account, asset in {**claimed, **self.balances}:
            kept, told = self.balances.get((account, asset), 0), claimed.get((account, asset), 0)
            if kept != told:
                self._on_break(self._break(BreakKind.BALANCE, asset, account, kept, told, sequence))
            if told < 0:
                self._on_break(self._break(BreakKind.NEGATIVE, asset, account, 0, told, sequence))
        for shard in {**claimed_out, **self.out}:
            here, there = self.out.get(shard, {}), claimed_out.get(shard, {})
            for key in {**here, **there}:
                if here.get(key, 0) != there.get(key, 0):
                    account, asset = key
                    values = here.get(key, 0), there.get(key, 0)
                    found = self._break(BreakKind.OUT, asset, account, *values, sequence)
                    self._on_break(found)
        self.balances, self.out = claimed, claimed_out
        self._compare_supply(claimed_supply, sequence)
        self.scales.update(map(tuple, assets))
        for shard, moves in self.moves.items():
            self.unpaired.setdefault(shard, []).extend(moves)
        self.moves = {}
        return LedgerCut(
            sequence,
            self.since,
            self.generation,
            dict(self.scales),
            dict(self.supply),
            _totals(claimed),
            claimed_out,
            self.unpaired,
            self.answers,
            len({account for account, _ in claimed}),
        )

    def _compare_supply(self, claimed: dict[str, int], sequence: int) -> None:
        at = (("ledger", sequence),)
        there = _totals(self.balances)
        for assets in self.out.values():
            for asset, units in _totals(assets).items():
                there[asset] = there.get(asset, 0) + units
        for asset in {**claimed, **self.supply, **there}:
            kept, told, have = self.supply.get(asset, 0), claimed.get(asset, 0), there.get(asset, 0)
            # If it is known whose money is wrong, the others have nothing to do with it.
            shards = tuple(self._suspects[asset]) if asset in self._suspects else self._shards_of(asset)
            if kept != told:
                subject = "deposits less withdrawals"
                self._on_break(Break(BreakKind.SUPPLY, asset, shards, kept, told, (), subject, at))
            if have != told:
                subject = "balances and what is out"
                self._on_break(Break(BreakKind.SUPPLY, asset, shards, told, have, (), subject, at))
        self.supply = claimed
        self._suspects = {}

    def _shards_of(self, asset: str, account: int = 0) -> tuple[str, ...]:
        """Return where the asset is out: where money of which nobody knows whence it is may be spent."""
        return tuple(
            shard for shard, out in self.out.items() if any(a == asset and account in (0, whose) for whose, a in out)
        )

    def _break(self, kind: BreakKind, asset: str, account: int, expected: int, found: int, sequence: int) -> Break:
        concerned = [event for event in self._recent if (event.account, event.asset) == (account, asset)]
        events = tuple(map(str, concerned[-EVENTS_SHOWN:]))
        shards = self._shards_of(asset, account)
        self._suspects.setdefault(asset, {}).update(dict.fromkeys(shards))
        return Break(kind, asset, shards, expected, found, (account,), "ledger", (("ledger", sequence),), events)


def _balances(rows: Sequence[Any]) -> dict[Key, int]:
    return {(account, asset): units for account, assets in rows for asset, units in assets}


def _out(rows: Sequence[Any]) -> dict[str, dict[Key, int]]:
    return {shard: _balances(accounts) for shard, accounts in rows}


def _totals(balances: dict[Key, int]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (_, asset), units in balances.items():
        totals[asset] = totals.get(asset, 0) + units
    return totals
