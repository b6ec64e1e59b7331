"""A shard's history against what clients were told of it, command by command."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from chaos.invariants import book as b
from chaos.invariants.book import Books, Market
from chaos.invariants.commands import Amend, Cancel, CancelAll, Place
from chaos.invariants.findings import Findings
from chaos.invariants.replay import Step
from chaos.invariants.told import CANCELS, ClientLogs, ExecutionRun, Outcome, Update

NEW, TRADE, AMENDED, CLOSED = 1, 2, 3, 4
MAKER, TAKER = 1, 2
_KINDS: dict[str, type[Any]] = {"place": Place, "cancel": Cancel, "amend": Amend, "cancel_all": CancelAll}
CHECKSUM_LEVELS = 10
Row = tuple[int | str, ...]


@dataclass(slots=True)
class _Terms:
    """What an execution says of its order."""

    account: int
    id: str
    side: int
    price: int
    quantity: int
    open: int


@dataclass(slots=True)
class _ExecutionCheck:
    run: ExecutionRun
    at: int = 0
    untold: tuple[int, Row] | None = None
    """The first that came after all that was told, with its sequence."""
    is_broken: bool = False


@dataclass(slots=True)
class _BookCheck:
    """A listener's copy of a book, and the prices that changed in the history since it was compared."""

    levels: dict[int, dict[int, tuple[int, int]]] = field(default_factory=lambda: {b.BUY: {}, b.SELL: {}})
    sequence: int = -1
    is_broken: bool = False


class ShardChecker:
    """Takes a shard's steps one by one, then `finish`."""

    def __init__(self, shard: str, logs: ClientLogs, findings: Findings) -> None:
        self._shard = shard
        self._logs = logs
        self._findings = findings
        self.books = Books(findings, shard)
        self._outcomes = logs.outcomes.get(shard, {})
        self._pending: dict[int, list[Outcome]] = {}
        self._terms: dict[int, _Terms] = {}
        self._runs: dict[int, list[_ExecutionCheck]] = defaultdict(list)
        for run in logs.executions:
            if run.shard == shard:
                self._runs[run.account].append(_ExecutionCheck(run))
        self._updates: dict[int, list[tuple[_BookCheck, str, Update]]] = defaultdict(list)
        self._instruments: set[str] = set()
        self._book_runs = list(logs.books)
        self._sequence = 0
        self._told_now: set[int] = set()
        """The accounts that must be told something of this step."""
        self._last_acknowledged: dict[int, int] = defaultdict(int)
        """Of each account, the last command that it was told of by both the answer and its executions, or should be."""
        self._cancelled: dict[int, tuple[int, str]] = {}
        """Orders whose cancel was acknowledged: the sequence of it, and what the client was told."""

    def listen_to(self, instruments: Iterable[str]) -> None:
        """Check what was told of the books of these instruments."""
        wanted = set(instruments)
        for run in self._book_runs:
            if run.instrument in wanted:
                check = _BookCheck()
                for update in run.updates:
                    self._updates[update.sequence].append((check, run.instrument, update))

    def step(self, step: Step) -> None:
        sequence, command, result = step.sequence, step.command, step.result
        if sequence != self._sequence + 1:
            self._findings.violate("I7", f"{self._shard}: command {sequence} follows {self._sequence}", step.place)
        self._sequence = sequence
        self.books.step(sequence, command, result, step.events, step.place)
        if isinstance(command, Place) and command.account in self._logs.accounts:
            self._check_sent(sequence, command, step.place)
        self._check_cancelled(step)
        self._check_executions(step)
        self._check_outcomes(step)
        for check, instrument, update in self._updates.pop(sequence, ()):
            self._check_update(check, instrument, update)

    def finish(self) -> None:
        for sequence, outcomes in self._outcomes.items():
            for outcome in outcomes:
                self._lost(f"was told of command {sequence}, and the history ends with {self._sequence}", outcome)
        for sequence, outcomes in self._pending.items():
            for outcome in outcomes:
                if outcome.status != b.PENDING:
                    self._lost(f"was told what became of command {sequence}, which still waits for money", outcome)
        for sequence, updates in self._updates.items():
            for check, instrument, update in updates:
                if sequence > self._sequence and not check.is_broken:
                    check.is_broken = True
                    summary = (
                        f"{self._shard}: a book of {instrument} at {sequence}, the history ends with {self._sequence}"
                    )
                    self._findings.violate("I7", summary, update.line)
        for account, runs in self._runs.items():
            self._check_end(account, runs[-1])
            for run_check in runs:
                self._check_told_fills(run_check.run)
                left = run_check.run.told[run_check.at :]
                if left and not run_check.is_broken:
                    summary = f"{self._shard}: account {account} was told of {left[0].row} at {left[0].sequence}, which"
                    summary += " is not in the history"
                    self._findings.violate("I5" if left[0].row[0] == TRADE else "I7", summary, left[0].line)

    def _check_end(self, account: int, check: _ExecutionCheck) -> None:
        """The last stream of an account was read until it had what was answered: it must have all up to there."""
        untold = check.untold
        if untold is not None and not check.is_broken and untold[0] <= self._last_acknowledged[account]:
            summary = f"{self._shard}: account {account} was never told of {untold[1]} at {untold[0]}"
            self._findings.violate("I7", summary, check.run.line)

    # ---------------------------------------------------------------- commands and outcomes

    def _check_sent(self, sequence: int, command: Place, place: str) -> None:
        story = self._logs.orders.get((command.account, command.id))
        if story is None or story.placed != command:
            said = "no such order" if story is None else f"{story.placed} ({story.line})"
            summary = f"{self._shard}: command {sequence} is {command}, the client sent {said}"
            self._findings.violate("I2", summary, place)
        self._findings.check("I2 orders in the history that a client has sent")

    def _check_outcomes(self, step: Step) -> None:
        for outcome in self._outcomes.pop(step.sequence, ()):
            if outcome.account in self._told_now:
                self._last_acknowledged[outcome.account] = step.sequence
            self._findings.check(
                f"I1 {'acknowledged' if not outcome.reject else 'refused'} commands found in the history"
            )
            if not self._is_of(outcome, step):
                self._lost(f"was told of command {step.sequence}, which in the history is {step.command}", outcome)
                continue
            if step.result[3] == b.PENDING and not step.result[6]:
                self._pending.setdefault(step.sequence, []).append(outcome)
            else:
                self._compare(outcome, tuple(step.result[2:8]), step)
        for event in step.events:
            if event[0] == b.RESOLVED:
                # order id, status, filled, open, reject reason, close reason
                for outcome in self._pending.pop(event[4], ()):
                    if outcome.status != b.PENDING:
                        self._compare(outcome, tuple(event[6:12]), step)

    def _check_cancelled(self, step: Step) -> None:
        """No order trades any more of which a client was told, at this sequence or before, that it is cancelled."""
        for outcome in self._outcomes.get(step.sequence, ()):
            if outcome.kind in CANCELS and not outcome.reject:
                closed = [event[3] for event in step.events if event[0] == b.CLOSED]
                for order_id in {outcome.order_id, *closed} - {0}:
                    self._cancelled.setdefault(order_id, (step.sequence, outcome.line))
                self._findings.check("I8 acknowledged cancels after which no fill may come")
        for event in step.events:
            if event[0] == b.TRADED:
                for order_id in event[4:6]:
                    self._not_cancelled(order_id, step.sequence, step.place)

    def _check_told_fills(self, run: ExecutionRun) -> None:
        for told in run.told:
            if told.row[0] == TRADE:
                self._not_cancelled(int(told.row[3]), told.sequence, told.line)

    def _not_cancelled(self, order_id: int, sequence: int, place: str) -> None:
        cancelled = self._cancelled.get(order_id)
        if cancelled is not None and cancelled[0] < sequence:
            summary = (
                f"{self._shard}: order {order_id} traded at {sequence}, its cancel was acknowledged at {cancelled[0]}"
            )
            self._findings.violate("I8", summary, cancelled[1], place)

    def _is_of(self, outcome: Outcome, step: Step) -> bool:
        command = step.command
        if not isinstance(command, _KINDS[outcome.kind]) or command.account != outcome.account:
            return False
        name = "" if isinstance(command, CancelAll) else command.id
        return (name, command.instrument) == (outcome.id, outcome.instrument)

    def _compare(self, outcome: Outcome, expected: Row, step: Step) -> None:
        said = outcome.order_id, outcome.status, outcome.filled, outcome.left, outcome.reject, outcome.close
        if said != expected:
            summary = f"was told {said} of command {step.sequence}, the history says {expected}"
            self._lost(summary, outcome, step.place)

    def _lost(self, summary: str, outcome: Outcome, *evidence: str) -> None:
        rule = "I2" if outcome.duplicate else "I1"
        who = f"{self._shard}: account {outcome.account}, {outcome.kind} {outcome.id!r},"
        self._findings.violate(rule, f"{who} {summary}", outcome.line, *evidence)

    # ---------------------------------------------------------------- executions

    def _check_executions(self, step: Step) -> None:
        self._told_now.clear()
        for event in step.events:
            for account, row in self.rows_of(event):
                self._told_now.add(account)
                for check in self._runs.get(account, ()):
                    self._expect(check, step, row)

    def rows_of(self, event: tuple[Any, ...]) -> Sequence[tuple[int, Row]]:
        """Return what accounts must be told of an event, as a client's log has it.

        An event of an order that never came into the book breaks I5, as `books` finds; here it is passed over.
        """
        named = {b.TRADED: event[4:6], b.CLOSED: event[3:4], b.AMENDED: event[3:4]}.get(event[0], ())
        if len(set(named)) < len(named) or not all(order_id in self._terms for order_id in named):
            return ()
        match event[0]:
            case b.ACCEPTED:
                _, _, symbol, order_id, account, name, side, price, quantity = event
                terms = self._terms[order_id] = _Terms(account, name, side, price, quantity, quantity)
                return [(account, _row(NEW, symbol, order_id, terms, terms.open))]
            case b.TRADED:
                symbol, trade_id, maker_id, taker_id, price, quantity = event[2:8]
                rows = []
                for order_id, liquidity in ((taker_id, TAKER), (maker_id, MAKER)):
                    terms = self._terms[order_id]
                    terms.open -= quantity
                    trade = trade_id, price, quantity
                    rows.append((terms.account, _row(TRADE, symbol, order_id, terms, terms.open, 0, trade, liquidity)))
                    if not terms.open:
                        del self._terms[order_id]
                return rows
            case b.CLOSED:
                _, _, symbol, order_id, reason, _ = event
                terms = self._terms.pop(order_id)
                return [(terms.account, _row(CLOSED, symbol, order_id, terms, 0, reason))]
            case b.AMENDED:
                _, _, symbol, order_id, price, quantity, open_quantity, _ = event
                terms = self._terms[order_id]
                terms.price, terms.quantity, terms.open = price, quantity, open_quantity
                return [(terms.account, _row(AMENDED, symbol, order_id, terms, open_quantity))]
            case _:
                return ()

    def _expect(self, check: _ExecutionCheck, step: Step, row: Row) -> None:
        """Compare with the next that the client was told."""
        told = check.run.told
        if check.is_broken or step.sequence <= check.run.start:
            return
        if check.at == len(told):
            check.untold = check.untold or (step.sequence, row)
            return
        if (told[check.at].sequence, told[check.at].row) == (step.sequence, row):
            check.at += 1
            self._findings.check("I7 executions that were told as they happened")
            return
        check.is_broken = True
        found = told[check.at]
        trades = {event[3] for event in step.events if event[0] == b.TRADED and found.sequence == step.sequence}
        is_reversed = found.row[0] == TRADE and found.sequence <= step.sequence and found.row[9] not in trades
        rule = "I5" if is_reversed else "I7"
        summary = f"{self._shard}: account {check.run.account}: the executions told are not those of the history"
        evidence = f"expected {row} at {step.sequence}", f"told     {found.row} at {found.sequence}"
        self._findings.violate(rule, summary, found.line, *evidence, step.place)

    # ---------------------------------------------------------------- books

    def _check_update(self, check: _BookCheck, instrument: str, update: Update) -> None:
        market = self.books.markets.get(instrument)
        if check.is_broken or self.books.diverged or market is None:
            return
        self._findings.check("I7 updates of books")
        if not update.is_snapshot and update.previous != check.sequence:
            self._wrong(check, instrument, update, f"expected to follow on {check.sequence}, was on {update.previous}")
            return
        for side, rows in ((b.BUY, update.bids), (b.SELL, update.asks)):
            if update.is_snapshot:
                check.levels[side] = {}
            for price, quantity, orders in rows:
                if orders:
                    check.levels[side][price] = quantity, orders
                else:
                    check.levels[side].pop(price, None)
            if check.levels[side] != market.sides[side].levels:
                ours, theirs = market.sides[side].levels, check.levels[side]
                wrong = {price for price in ours.keys() | theirs.keys() if ours.get(price) != theirs.get(price)}
                levels = [f"{price}: {theirs.get(price)}, expected {ours.get(price)}" for price in sorted(wrong)[:5]]
                self._wrong(check, instrument, update, f"side {side} differs: {'; '.join(levels)}")
                return
        check.sequence = update.sequence
        if update.checksum != checksum_of(market):
            self._wrong(check, instrument, update, f"the checksum is {update.checksum}, expected {checksum_of(market)}")

    def _wrong(self, check: _BookCheck, instrument: str, update: Update, summary: str) -> None:
        check.is_broken = True
        where = f"{self._shard}: the book of {instrument} at {update.sequence}"
        self._findings.violate("I7", f"{where}: {summary}", update.line)


def checksum_of(market: Market) -> int:
    """Return the checksum of the ten best levels, as `market_data.proto` defines it."""
    bids = sorted(market.sides[b.BUY].levels.items(), reverse=True)[:CHECKSUM_LEVELS]
    asks = sorted(market.sides[b.SELL].levels.items())[:CHECKSUM_LEVELS]
    parts: list[str] = []
    for index in range(max(len(bids), len(asks))):
        parts += [f"{side[index][0]}:{side[index][1][0]}" for side in (bids, asks) if index < len(side)]
    return crc32(":".join(parts).encode())


def _row(
    kind: int,
    symbol: str,
    order_id: int,
    terms: _Terms,
    left: int,
    close_reason: int = 0,
    trade: tuple[int, int, int] = (0, 0, 0),
    liquidity: int = 0,
) -> Row:
    order = terms.id, order_id, terms.side, terms.price, terms.quantity
    return (kind, symbol, *order, left, close_reason, *trade, liquidity)
