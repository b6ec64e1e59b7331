"""The stream of an account's balances: what the ledger did to them and what trades did, in one.

The balances at the beginning are as of a sequence of the ledger and of each shard (see `exchange.gateway.balances`);
then comes everything after those, so that the two add up. Money on its way between ledger and shards is counted in the
balances, wherever it is, so that grants and returns are no changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from exchange.engine.channel import base_unit, quote_terms
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import EntryType, LedgerEntry
from exchange.engine.money import Asset, format_amount
from exchange.engine.words import Side
from exchange.gateway.balances import LEDGER, AccountBalance, AccountBalances, balances_of, shards_of
from exchange.gateway.draining import Draining
from exchange.gateway.errors import abort
from exchange.gateway.execution_rows import FEES, OF_MONEY
from exchange.gateway.executions import PROGRESS_S, SLOW_READER_RETRY_MS, ExecutionHub, ExecutionReader, ShardRow
from exchange.gateway.ledger import LedgerReplica
from exchange.gateway.links import Link
from exchange.v1 import account_pb2

ENTRIES_KEPT = 100_000
"""Of all accounts, for streams that come back."""
PENDING_MAX = 10_000
"""Entries that wait for a reader; one that is further behind is ended, and can go on from where it was."""
ENTRIES_PER_MESSAGE = 500
_BUY = int(Side.BUY)
_REASONS = {
    int(EntryType.DEPOSIT): account_pb2.BALANCE_CHANGE_REASON_DEPOSIT,
    int(EntryType.WITHDRAWAL): account_pb2.BALANCE_CHANGE_REASON_WITHDRAWAL,
    int(EntryType.TRANSFER): account_pb2.BALANCE_CHANGE_REASON_TRANSFER,
}


class BalanceHub:
    """Keeps the newest entries of the ledger, as `executions` keeps those of the shards, and streams both."""

    def __init__(
        self,
        ledger: LedgerReplica,
        links: Mapping[str, Link],
        executions: ExecutionHub,
        *,
        entries_kept: int = ENTRIES_KEPT,
        pending_max: int = PENDING_MAX,
        progress_s: float = PROGRESS_S,
        draining: Draining | None = None,
    ) -> None:
        self._draining = draining or Draining()
        self._ledger = ledger
        self._links = links
        self._executions = executions
        self._entries: deque[LedgerEntry] = deque()
        self._entries_kept = entries_kept
        self._pending_max = pending_max
        self._progress_s = progress_s
        self._held_after = 0
        """Every entry after this sequence of the ledger is held."""
        self._readers: dict[int, list[_EntryReader]] = {}
        ledger.on_load = self._on_load
        ledger.on_entries = self._on_entries

    async def balances(self, account: int) -> AccountBalances:
        """Return what the account has, with a sequence for each source that can be gone on from."""
        starts = self._starts(account)
        found = await balances_of(account, self._ledger, self._links)
        found.sequences = starts | found.sequences
        return found

    def _starts(self, account: int) -> dict[str, int]:
        """Return for each shard a sequence that no change comes before which the balances have not.

        Where the account has not been as far as the ledger is known here, all that it ever did is still to come.
        """
        been = set(shards_of(account, self._ledger))
        sequences = self._executions.sequences()
        return {s: n if s in been else self._executions.held_after(s) for s, n in sequences.items()}

    async def stream(
        self, account: int, after: Mapping[str, int], context: Any
    ) -> AsyncGenerator[account_pb2.StreamBalancesResponse, None]:
        """Yield the balances and what changes them, or with `after` (source to sequence) only what follows on that.

        Ends when the gateway drains, having told all, and up to where that is.

        Ends the call with OUT_OF_RANGE if what follows is not held (any longer), with RESOURCE_EXHAUSTED if the reader
        is too slow.
        """
        for source, sequence in after.items():
            if source == LEDGER:
                await self._check(sequence, context)
            else:
                await self._executions.check(source, sequence, context)
        starts = self._starts(account)
        been = shards_of(account, self._ledger)
        # Of the shards where the account has been, the balances at the beginning have all that is known here.
        resumed = after or {shard: n for shard, n in starts.items() if shard not in been}
        resumed = {shard: n for shard, n in resumed.items() if shard != LEDGER}
        with (
            self._reading(account, after.get(LEDGER)) as entries,
            self._executions.reading(account, resumed, OF_MONEY) as executions,
            self._draining.watching(executions.more.set),
        ):
            reached = _Reached(self._now() | dict(after))
            first = account_pb2.StreamBalancesResponse(sequences=reached.sequences)
            if not after:
                found = await self.balances(account)
                known = starts | found.sequences
                executions.skip({source: n for source, n in known.items() if source != LEDGER})
                reached = _Reached(known)
                first = account_pb2.StreamBalancesResponse(
                    balances=encode_balances(found, self._ledger.assets),
                    sequences=known,
                    unavailable_shards=found.unavailable,
                )
            yield first
            is_behind = False
            for rows in executions.held():
                await self._executions.check_reader(executions, context)
                yield self._response([], rows, {})
                is_behind = True
            while not self._draining.is_on or entries.pending or executions.pending:
                # After what was held the reader is to be told at once how far that goes.
                if not is_behind:
                    await self._wait(entries, executions)
                is_behind = False
                if entries.fault:
                    await abort(context, *entries.fault, SLOW_READER_RETRY_MS)
                await self._executions.check_reader(executions, context)
                told, rows = entries.take(), executions.take()
                moved = reached.advance(self._now() | _before_pending(entries, executions))
                if told or rows or moved:
                    yield self._response(told, rows, moved)

    async def _wait(self, entries: _EntryReader, executions: ExecutionReader) -> None:
        """Wait for something to tell, but not for ever."""
        entries.more = executions.more
        if executions.pending or entries.pending or entries.fault:
            return
        await executions.wait(self._progress_s)

    def _now(self) -> dict[str, int]:
        """Return up to where each source is known here."""
        return {LEDGER: self._ledger.sequence, **self._executions.sequences()}

    def _response(
        self, entries: list[LedgerEntry], rows: list[ShardRow], sequences: Mapping[str, int]
    ) -> account_pb2.StreamBalancesResponse:
        changes = [_change_of_entry(entry, self._ledger.assets) for entry in entries]
        for shard, row in rows:
            changes += _changes_of_trade(shard, row, self._executions.instrument(shard, row[3]))
        return account_pb2.StreamBalancesResponse(changes=changes, sequences=sequences)

    # ---------------------------------------------------------------- entries of the ledger

    async def _check(self, after: int, context: Any) -> None:
        """End the call unless every entry after this sequence is held."""
        # It may come from a gateway whose copy is a little further than this one's.
        await self._ledger.seen(after)
        if not self._held_after <= after <= self._ledger.sequence:
            held = f"{self._held_after} to {self._ledger.sequence}"
            message = f"{LEDGER}: expected {held}, was {after}: ask GetBalances, go on after its sequences"
            await abort(context, grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD", message)

    @contextmanager
    def _reading(self, account: int, after: int | None) -> Iterator[_EntryReader]:
        """Give a reader of what is entered from now on, or with `after` of what was entered since, too."""
        reader = _EntryReader(self._pending_max)
        for entry in self._entries if after is not None else ():
            if entry.account == account and entry.sequence > (after or 0):
                reader.add(entry)
        readers = self._readers.setdefault(account, [])
        readers.append(reader)
        try:
            yield reader
        finally:
            readers.remove(reader)
            if not readers:
                self._readers.pop(account, None)

    def _on_entries(self, entries: list[LedgerEntry]) -> None:
        self._entries.extend(entries)
        while len(self._entries) > self._entries_kept:
            self._held_after = self._entries.popleft().sequence
        for entry in entries:
            for reader in self._readers.get(entry.account, ()):
                reader.add(entry)

    def _on_load(self) -> None:
        """Start over: what lies between the old copy and the new one is not known."""
        self._entries.clear()
        self._held_after = self._ledger.sequence
        for readers in self._readers.values():
            for reader in readers:
                reader.end(grpc.StatusCode.OUT_OF_RANGE, "GAP", "this gateway has missed entries of the ledger")


class _EntryReader:
    """The ledger's half of a stream: entries that wait for it, and why it must end."""

    def __init__(self, pending_max: int) -> None:
        self.more = asyncio.Event()
        self.fault: tuple[grpc.StatusCode, str, str] | None = None
        self.pending: deque[LedgerEntry] = deque()
        self._pending_max = pending_max

    def add(self, entry: LedgerEntry) -> None:
        if len(self.pending) >= self._pending_max:
            message = f"more than {self._pending_max} entries waited: go on after the last sequences"
            self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER", message)
        elif self.fault is None:
            self.pending.append(entry)
            self.more.set()

    def end(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        self.fault = code, reason, message
        self.pending.clear()
        self.more.set()

    def take(self) -> list[LedgerEntry]:
        """Return what waits, up to a message. No command makes two entries for one account."""
        return [self.pending.popleft() for _ in range(min(len(self.pending), ENTRIES_PER_MESSAGE))]


class _Reached:
    """Up to where each source is in what a stream was sent; only forwards."""

    def __init__(self, sequences: Mapping[str, int]) -> None:
        self.sequences = dict(sequences)

    def advance(self, sequences: Mapping[str, int]) -> dict[str, int]:
        """Go on to these, and return those that are further than before."""
        moved = {source: n for source, n in sequences.items() if n > self.sequences.get(source, -1)}
        self.sequences.update(moved)
        return moved


def _before_pending(entries: _EntryReader, executions: ExecutionReader) -> dict[str, int]:
    """Return for each source of which something waits the sequence before that."""
    sequences: dict[str, int] = {}
    for shard, row in executions.pending:
        sequences.setdefault(shard, row[0] - 1)
    if entries.pending:
        sequences[LEDGER] = entries.pending[0].sequence - 1
    return sequences


def encode_balances(found: AccountBalances, assets: Mapping[str, Asset]) -> list[account_pb2.Balance]:
    """Return balances as the wire has them."""
    return [_encode_balance(assets[symbol], balance) for symbol, balance in found.of.items()]


def _encode_balance(asset: Asset, balance: AccountBalance) -> account_pb2.Balance:
    return account_pb2.Balance(
        asset=asset.symbol,
        available=format_amount(balance.available, asset.scale),
        total=format_amount(balance.total, asset.scale),
        held=format_amount(sum(balance.held.values()), asset.scale),
        markets=[
            account_pb2.MarketHold(instrument=symbol, held=format_amount(units, asset.scale))
            for symbol, units in sorted(balance.held.items())
        ],
    )


def _change_of_entry(entry: LedgerEntry, assets: Mapping[str, Asset]) -> account_pb2.BalanceChange:
    return account_pb2.BalanceChange(
        source=LEDGER,
        sequence=entry.sequence,
        asset=entry.asset,
        change=format_amount(entry.change, assets[entry.asset].scale),
        reason=_REASONS[entry.type],
        time_ns=entry.time_ns,
        entry_id=entry.entry_id,
        reference=entry.reference,
        counterparty_id=entry.counterparty,
    )


def _changes_of_trade(shard: str, row: tuple[Any, ...], instrument: Instrument) -> list[account_pb2.BalanceChange]:
    """Return what a trade changed for the account of one side, or for the house."""
    sequence, _, kind, symbol, client_order_id, order_id, side, *_ = row
    trade_id, price, quantity, _, time_ns, fee = row[-6:]
    base_scale = instrument.quantity_scale if instrument.base_scale is None else instrument.base_scale

    def change(asset: str, units: int, scale: int, reason: Any) -> account_pb2.BalanceChange:
        return account_pb2.BalanceChange(
            source=shard,
            sequence=sequence,
            asset=asset,
            change=format_amount(units, scale),
            reason=reason,
            time_ns=time_ns,
            instrument=symbol,
            trade_id=trade_id,
            order_id=order_id,
            client_order_id=client_order_id,
        )

    changes = []
    if kind != FEES:
        multiplier, divisor = quote_terms(instrument)
        sign = 1 if side == _BUY else -1
        bought, paid = quantity * base_unit(instrument), price * quantity * multiplier // divisor
        reason = account_pb2.BALANCE_CHANGE_REASON_TRADE
        changes = [
            change(instrument.base_asset, sign * bought, base_scale, reason),
            change(instrument.quote_asset, -sign * paid, instrument.quote_scale, reason),
        ]
    if fee:
        reason = account_pb2.BALANCE_CHANGE_REASON_FEE
        changes.append(change(instrument.quote_asset, -fee, instrument.quote_scale, reason))
    return changes
