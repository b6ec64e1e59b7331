"""The ledger's side of the money in shards: grants, recalls, and what must wait for money to come back.

What an account has lies in the ledger or is out in shards. `out` is what a shard got less what it gave back, by the
ledger's own count; as accounts trade with each other there, it may be negative for one and more than it has for
another, but over all accounts it is what the shard holds, and what is under way.

Who wants more than lies here waits in line, by account and asset, first come first served: the first one has the other
shards give back what they have free, and is served or refused when they all have answered, or after a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from exchange.engine.balances import Balances
from exchange.engine.channel import (
    AHEAD_SHARE,
    HOUSE,
    AnswerStatus,
    AskFunds,
    FundsAnswer,
    RecallFunds,
    ReturnFunds,
    Seen,
)
from exchange.engine.ledger_words import AnswerMade, LedgerEventKind, Moved, RecallMade

WAIT_NS_MAX = 900_000_000
"""How long a wait takes at most: less than a shard lets an order wait, so that it learns the reason."""
_WAITING, _GRANTED, _DENIED, _UNAVAILABLE, _DONE = (
    int(s)
    for s in (
        AnswerStatus.WAITING,
        AnswerStatus.GRANTED,
        AnswerStatus.DENIED,
        AnswerStatus.UNAVAILABLE,
        AnswerStatus.DONE,
    )
)

Line = tuple[int, str]
"""Account and asset."""


class Recall(NamedTuple):
    """What a shard was asked to give back, and when; open until its `Return` names it."""

    m: int
    account: int
    asset: str
    amount: int
    time_ns: int


class Wait:
    """An ask (`shard` and `n`), or a movement out of the account (`shard` ""; `n` is the sequence of its command)."""

    __slots__ = (
        "account",
        "amount",
        "asset",
        "deadline_ns",
        "is_begun",
        "is_over",
        "is_unsure",
        "n",
        "recalls",
        "shard",
    )

    def __init__(self, shard: str, n: int, account: int, asset: str, amount: int, deadline_ns: int) -> None:
        self.shard = shard
        self.n = n
        self.account = account
        self.asset = asset
        self.amount = amount
        self.deadline_ns = deadline_ns
        self.is_begun = False
        self.is_over = False
        self.is_unsure = False
        """A shard that may have the money is away and was not asked."""
        self.recalls: dict[tuple[str, int], None] = {}
        """Those whose answers it waits for, by shard and number."""


class Channel:
    """What was said to one shard and heard from it."""

    __slots__ = ("answers", "granted", "next_m", "recalls", "seen")

    def __init__(self) -> None:
        self.seen = Seen()
        self.answers: dict[int, FundsAnswer] = {}
        """To its messages, until it has them."""
        self.granted: dict[int, Line] = {}
        """Whose money those of them brought that are grants."""
        self.next_m = 1
        self.recalls: dict[int, Recall] = {}

    def advance(self, low: int) -> None:
        """Forget the answers that the shard has."""
        if low > self.seen.low:
            self.seen.advance(low)
            for n in [n for n in self.answers if n < low]:
                del self.answers[n]
                self.granted.pop(n, None)

    @property
    def recalls_low(self) -> int:
        for m in self.recalls:
            return m
        return self.next_m


class Grants:
    """Money out in shards, and who waits for it. `emit(kind, body)` tells the world what happens.

    `on_move(n, served)` is called for a movement that has waited: then the money lies here, or is not to be had
    (`served` False: surely less; None: a shard did not say in time).
    """

    def __init__(
        self,
        balances: Balances,
        emit: Callable[[LedgerEventKind, Any], None],
        on_move: Callable[[int, bool | None], None],
    ) -> None:
        self.balances = balances
        self.channels: dict[str, Channel] = {}
        self.out: dict[str, dict[int, dict[str, int]]] = {}
        """By shard, account and asset; where there is an entry, the account has been."""
        self.lines: dict[Line, deque[Wait]] = {}
        self.waits: deque[Wait] = deque()
        """All of them, the oldest first; some may be over."""
        self._ready: dict[Line, None] = {}
        self._emit = emit
        self._on_move = on_move

    # ---------------------------------------------------------------- what shards say

    def ask(self, command: AskFunds, time_ns: int) -> FundsAnswer:
        """Grant what a shard asks for, or refuse it, or let it wait; a repeat gets the same answer."""
        channel = self._channel(command.shard, command.low)
        n, account, asset, amount = command.n, command.account, command.asset, command.amount
        if n < channel.seen.low:
            # An old message that comes late: the shard has its answer.
            return FundsAnswer(n, _DENIED, 0)
        known = channel.answers.get(n)
        if known is not None:
            return known
        line: Line = account, asset
        free = self.balances.of(account, asset)
        if asset not in self.balances.assets or amount <= 0:
            channel.answers[n] = FundsAnswer(n, _DENIED, 0)
        elif line in self.lines or free < amount:
            if command.is_urgent:
                channel.answers[n] = FundsAnswer(n, _WAITING, 0)
                self._wait(Wait(command.shard, n, account, asset, amount, time_ns + WAIT_NS_MAX))
            elif line in self.lines:
                channel.answers[n] = FundsAnswer(n, _DENIED, 0)
            else:
                self._recall_ahead(command.shard, line, time_ns)
                if free:
                    self._grant(command.shard, n, account, asset, free)
                else:
                    channel.answers[n] = FundsAnswer(n, _DENIED, 0)
        else:
            self._grant(command.shard, n, account, asset, amount + (free - amount) // AHEAD_SHARE)
        self.settle(time_ns)
        return channel.answers[n]

    def take_back(self, command: ReturnFunds, time_ns: int) -> FundsAnswer:
        """Take in what a shard gives back, once."""
        channel = self._channel(command.shard, command.low)
        n, account, asset, amount = command.n, command.account, command.asset, command.amount
        if n in channel.answers or n < channel.seen.low:
            return FundsAnswer(n, _DONE, 0)
        channel.answers[n] = FundsAnswer(n, _DONE, 0)
        if amount:
            self._move(command.shard, n, account, asset, -amount)
        if command.recall:
            channel.recalls.pop(command.recall, None)
            for wait in self.lines.get((account, asset), ()):
                wait.recalls.pop((command.shard, command.recall), None)
        self.mark(account, asset)
        self.settle(time_ns)
        return channel.answers[n]

    # ---------------------------------------------------------------- the line

    def is_out(self, account: int) -> bool:
        """Whether money of the account may be in a shard."""
        return any(True for _ in self._shards_of(account))

    def wait_for_move(self, n: int, account: int, asset: str, amount: int, time_ns: int) -> None:
        """Put a movement in line, under the sequence of its command."""
        self._wait(Wait("", n, account, asset, amount, time_ns + WAIT_NS_MAX))

    def mark(self, account: int, asset: str) -> None:
        """Say that something may go on in a line: money came in, or somebody gave up."""
        if (account, asset) in self.lines:
            self._ready[account, asset] = None

    def settle(self, time_ns: int) -> None:
        """Serve the lines that were marked as far as it goes. Serving one may mark another."""
        while self._ready:
            line = next(iter(self._ready))
            del self._ready[line]
            self._serve(line, time_ns)

    def _serve(self, of: Line, time_ns: int) -> None:
        line = self.lines[of]
        while line:
            wait = line[0]
            free = self.balances.of(*of)
            if free >= wait.amount:
                line.popleft()
                self._end(wait, _GRANTED, wait.amount + (free - wait.amount) // AHEAD_SHARE)
            elif not wait.is_begun:
                self._recall(wait, wait.amount - free, time_ns)
            elif not wait.recalls:
                line.popleft()
                self._end(wait, _UNAVAILABLE if wait.is_unsure else _DENIED, 0)
            else:
                return
        del self.lines[of]
        # The end of a movement has marked it, but there is nobody left to serve.
        self._ready.pop(of, None)

    def next_timer_ns(self) -> int | None:
        """When the oldest wait is over, or None."""
        while self.waits and self.waits[0].is_over:
            self.waits.popleft()
        return self.waits[0].deadline_ns if self.waits else None

    def expire(self, time_ns: int) -> None:
        """End the waits that have lasted long enough."""
        while (due_ns := self.next_timer_ns()) is not None and due_ns <= time_ns:
            wait = self.waits.popleft()
            line = self.lines[wait.account, wait.asset]
            line.remove(wait)
            self._end(wait, _UNAVAILABLE, 0)
            self.mark(wait.account, wait.asset)
        self.settle(time_ns)

    def _wait(self, wait: Wait) -> None:
        self.waits.append(wait)
        self.lines.setdefault((wait.account, wait.asset), deque()).append(wait)
        self.mark(wait.account, wait.asset)

    def _end(self, wait: Wait, status: int, amount: int) -> None:
        wait.is_over = True
        if not wait.shard:
            self._on_move(wait.n, {_GRANTED: True, _DENIED: False}.get(status))
            return
        if status == _GRANTED:
            self._grant(wait.shard, wait.n, wait.account, wait.asset, amount)
        else:
            # What the feed tells may overtake the answers to a batch: the shard shall not refuse for want of money that
            # is on its way to it.
            self._tell_grants(wait.shard, (wait.account, wait.asset))
            self.channels[wait.shard].answers[wait.n] = FundsAnswer(wait.n, status, 0)
        answer = self.channels[wait.shard].answers[wait.n]
        self._emit(LedgerEventKind.ANSWER, AnswerMade(wait.shard, *answer))

    def _recall(self, wait: Wait, missing: int, time_ns: int) -> None:
        """Have every other shard where the account has been give back what is missing, if it has it free.

        Grants that it may not have yet are told again before: they shall not arrive as soon as it has said that there
        is nothing.
        """
        wait.is_begun = True
        for shard in self._shards_of(wait.account):
            channel = self.channels[shard]
            # One that left a recall unanswered so long is away: nobody shall wait for it again.
            is_away = any(time_ns - recall.time_ns >= WAIT_NS_MAX for recall in channel.recalls.values())
            if shard == wait.shard or is_away:
                wait.is_unsure |= shard != wait.shard
                continue
            self._tell_grants(shard, (wait.account, wait.asset))
            wait.recalls[shard, self._recall_from(shard, (wait.account, wait.asset), missing, time_ns)] = None

    def _recall_ahead(self, shard: str, of: Line, time_ns: int) -> None:
        """Have the other shards give back a part of what is free there: nobody waits for it yet, but soon may."""
        for other in self._shards_of(of[0]):
            recalls = self.channels[other].recalls.values()
            if other != shard and not any((recall.account, recall.asset) == of for recall in recalls):
                self._recall_from(other, of, 0, time_ns)

    def _recall_from(self, shard: str, of: Line, amount: int, time_ns: int) -> int:
        """Tell a shard to give back so much; return the number of the recall."""
        channel = self.channels[shard]
        m = channel.next_m
        channel.next_m = m + 1
        channel.recalls[m] = Recall(m, *of, amount, time_ns)
        self._emit(LedgerEventKind.RECALL, RecallMade(shard, m, channel.recalls_low, *of, amount))
        return m

    def _tell_grants(self, shard: str, of: Line) -> None:
        """Tell a shard again what it was granted and may not have yet; what follows does not come before that."""
        channel = self.channels[shard]
        for n, line in channel.granted.items():
            if line == of:
                self._emit(LedgerEventKind.ANSWER, AnswerMade(shard, *channel.answers[n]))

    # ---------------------------------------------------------------- moving

    def _grant(self, shard: str, n: int, account: int, asset: str, amount: int) -> None:
        self._move(shard, n, account, asset, amount)
        channel = self.channels[shard]
        channel.answers[n] = FundsAnswer(n, _GRANTED, amount)
        channel.granted[n] = account, asset

    def _move(self, shard: str, n: int, account: int, asset: str, amount: int) -> None:
        """Move money to a shard, or with `amount` < 0 from it."""
        free = self.balances.move_out(account, asset, amount)
        assets = self.out[shard].setdefault(account, {})
        assets[asset] = assets.get(asset, 0) + amount
        self._emit(LedgerEventKind.ESCROW, Moved(shard, n, account, asset, amount, free))

    def _channel(self, shard: str, low: int) -> Channel:
        channel = self.channels.get(shard)
        if channel is None:
            channel = self.channels[shard] = Channel()
            self.out[shard] = {}
        channel.advance(low)
        return channel

    def _shards_of(self, account: int) -> Iterator[str]:
        for shard, accounts in self.out.items():
            if account == HOUSE or account in accounts:
                yield shard

    def open_recalls(self, shard: str) -> list[RecallFunds]:
        """Return the recalls that a shard has not answered."""
        channel = self.channels.get(shard, Channel())
        low = channel.recalls_low
        return [RecallFunds(r.m, low, r.account, r.asset, r.amount) for r in channel.recalls.values()]

    def answers_to(self, shard: str) -> list[FundsAnswer]:
        """Return the answers that a shard may not have; those still to come are not among them."""
        channel = self.channels.get(shard, Channel())
        return [answer for answer in channel.answers.values() if answer.status != _WAITING]

    def total_out(self, asset: str) -> int:
        """Return how much of an asset is out in shards."""
        return sum(a.get(asset, 0) for accounts in self.out.values() for a in accounts.values())

    # ---------------------------------------------------------------- state

    def state(self) -> tuple[Any, ...]:
        """Return all of it as nested tuples."""
        channels = [
            (shard, c.seen.low, list(c.answers.values()), c.next_m, list(c.recalls.values()), list(c.granted.items()))
            for shard, c in self.channels.items()
        ]
        out = [
            (shard, [(account, list(assets.items())) for account, assets in accounts.items()])
            for shard, accounts in self.out.items()
        ]
        waits = [
            (w.shard, w.n, w.account, w.asset, w.amount, w.deadline_ns, w.is_begun, w.is_unsure, list(w.recalls))
            for w in self.waits
            if not w.is_over
        ]
        return channels, out, waits

    def load(self, state: Sequence[Any]) -> None:
        """Take a state that `state` gave."""
        channels, out, waits = state
        for shard, low, answers, next_m, recalls, granted in channels:
            channel = self.channels[shard] = Channel()
            channel.seen.advance(low)
            channel.answers = {row[0]: FundsAnswer(*row) for row in answers}
            channel.next_m = next_m
            channel.recalls = {row[0]: Recall(*row) for row in recalls}
            channel.granted = {n: (account, asset) for n, (account, asset) in granted}
        self.out = {shard: {account: dict(map(tuple, assets)) for account, assets in rows} for shard, rows in out}
        for *fields, is_begun, is_unsure, recalls in waits:
            wait = Wait(*fields)
            wait.is_begun, wait.is_unsure = is_begun, is_unsure
            wait.recalls = dict.fromkeys(map(tuple, recalls))
            self.waits.append(wait)
            self.lines.setdefault((wait.account, wait.asset), deque()).append(wait)

    def validate(self) -> None:
        """Check what must hold between commands; AssertionError says what does not."""
        live = [wait for wait in self.waits if not wait.is_over]
        assert len(live) == sum(map(len, self.lines.values())), "a wait is in no line, or in two"
        for wait in live:
            for shard, m in wait.recalls:
                assert m in self.channels[shard].recalls, (
                    f"{wait.asset}: waits for recall {m} of {shard}, which is over"
                )
        for line in self.lines.values():
            assert line, "an empty line is kept"
            assert line[0].is_begun, "the first in line has not begun"
