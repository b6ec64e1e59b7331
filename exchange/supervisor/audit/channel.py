"""The money between the ledger and one shard, message by message."""

from __future__ import annotations

from collections.abc import Callable

from exchange.engine.channel import Seen
from exchange.supervisor.audit.words import Break, BreakKind, Change, Key, LedgerCut, ShardCut


class AuditedChannel:
    """What one side did and the other has not shown yet: `moved` by the ledger, `changed` by the shard; by number.

    It begins, as again after each start of one of the accounts, with what the two say is open; what was before is
    checked by its sums alone.
    """

    def __init__(self, shard: str, on_break: Callable[[Break], None]) -> None:
        self.shard = shard
        self.moved: dict[int, Change] = {}
        self.changed: dict[int, Change] = {}
        self._done = Seen()
        """Messages that both sides have shown."""
        self._generations = (0, 0)
        self._on_break = on_break
        self._at: tuple[tuple[str, int], ...] = ()

    def check(self, shard: ShardCut, ledger: LedgerCut) -> dict[str, int]:
        """Account for the messages up to a cut, the shard taken before the ledger; return what is under way."""
        self._at = ((shard.shard, shard.sequence), ("ledger", ledger.sequence))
        generations = shard.generation, ledger.generation
        moves = ledger.moves.pop(self.shard, [])
        changes = list(shard.changes)
        shard.changes.clear()
        if generations != self._generations:
            self._begin(shard, ledger, moves, is_new_ledger=generations[1] != self._generations[1])
            self._generations = generations
        else:
            self._enter(self.moved, moves, "ledger")
            self._enter(self.changed, changes, self.shard)
        self._pair()
        lost = self._lost(shard)
        self._compare_flows(shard, ledger)
        self._done.advance(min(shard.outbox, default=shard.next_n))
        under_way: dict[str, int] = {}
        for sign, changed in ((1, self.moved), (-1, self.changed)):
            for n, change in changed.items():
                if n not in lost:
                    under_way[change.asset] = under_way.get(change.asset, 0) + sign * change.change
        return under_way

    # ---------------------------------------------------------------- steps

    def _begin(self, shard: ShardCut, ledger: LedgerCut, moves: list[Change], *, is_new_ledger: bool) -> None:
        """Take what is open from what both say: who was first asked knew no more than the other learned later."""
        # A shard keeps a message that both have shown until it has the answer.
        done = [] if is_new_ledger else [n for n in shard.outbox if n in self._done]
        self._done = Seen(numbers=done)
        answered: dict[int, int | None] = {}
        if is_new_ledger:
            self.moved = {}
            answered = ledger.answers.get(self.shard, {})
        moved = {**self.moved, **{move.n: move for move in moves}}
        self.moved = {n: move for n, move in moved.items() if n in shard.outbox or n >= shard.next_n}
        self.changed = {n: message for n, message in shard.outbox.items() if message.change and n not in self._done}
        for n, amount in answered.items():
            message = shard.outbox.get(n)
            if message is None:
                continue
            if amount is None:
                # A return that has arrived, of which the shard does not know yet.
                self.changed.pop(n, None)
            elif amount:
                self.moved[n] = message._replace(change=amount)

    def _enter(self, into: dict[int, Change], changes: list[Change], side: str) -> None:
        for change in changes:
            if change.n in into or change.n in self._done:
                subject = f"message {change.n} in {side}"
                self._tell(BreakKind.TWICE, change, 0, change.change, subject, change)
            else:
                into[change.n] = change

    def _pair(self) -> None:
        """Let go of the messages that both sides have shown."""
        for n in [n for n in self.moved if n in self.changed]:
            here, there = self.moved.pop(n), self.changed.pop(n)
            self._done.add(n)
            if (here.account, here.asset, here.change) != (there.account, there.asset, there.change):
                self._tell(BreakKind.UNEQUAL, there, here.change, there.change, f"message {n}", here, there)

    def _lost(self, shard: ShardCut) -> set[int]:
        """Tell of the messages that only one side has shown and the other must have, too; return their numbers."""
        lost: set[int] = set()
        for n, move in self.moved.items():
            if n >= shard.next_n or (move.change > 0 and n in shard.outbox):
                continue
            lost.add(n)
            kind = BreakKind.VANISHED if move.change > 0 else BreakKind.TAKEN
            self._tell(kind, move, move.change, 0, f"message {n}", move)
        for n, change in self.changed.items():
            if change.change < 0 and n in shard.outbox:
                continue
            lost.add(n)
            kind = BreakKind.CREDITED if change.change > 0 else BreakKind.VANISHED
            self._tell(kind, change, 0, change.change, f"message {n}", change)
        return lost

    def _compare_flows(self, shard: ShardCut, ledger: LedgerCut) -> None:
        """Compare what is out by the ledger's count less what came by the shard's with the messages between them."""
        between: dict[Key, int] = {}
        for sign, changed in ((1, self.moved), (-1, self.changed)):
            for change in changed.values():
                key = change.account, change.asset
                between[key] = between.get(key, 0) + sign * change.change
        out = ledger.out.get(self.shard, {})
        for key in {**out, **shard.received}:
            expected, found = out.get(key, 0) - between.get(key, 0), shard.received.get(key, 0)
            if expected != found:
                account, asset = key
                subject = "received, as the ledger has it"
                found_break = Break(
                    BreakKind.UNDER_WAY, asset, (self.shard,), expected, found, (account,), subject, self._at
                )
                self._on_break(found_break)

    def _tell(self, kind: BreakKind, of: Change, expected: int, found: int, subject: str, *evidence: Change) -> None:
        events = tuple(map(str, evidence))
        accounts = tuple(dict.fromkeys(change.account for change in evidence))
        self._on_break(Break(kind, of.asset, (self.shard,), expected, found, accounts, subject, self._at, events))
