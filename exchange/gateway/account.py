"""AccountService: balances and fees from the gateway's copies, money moved by the ledger."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import grpc

from exchange.engine.ledger_words import LedgerEntry, LedgerResult, Permission, Transfer
from exchange.engine.money import AmountInvalid, Asset, format_amount, parse_amount
from exchange.gateway.auth import account_of, authenticate, while_valid
from exchange.gateway.balances import AccountBalance, balances_of
from exchange.gateway.errors import abort
from exchange.gateway.ledger import LedgerClient, LedgerReplica
from exchange.gateway.links import Link
from exchange.gateway.replica import ShardReplica
from exchange.v1 import account_pb2, account_pb2_grpc

PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 100, 1_000
ENTRIES_KEPT = 100_000
"""Of all accounts, for streams that come back."""
PENDING_MAX = 10_000
"""Entries that wait for a reader; one that is further behind is ended, and can go on from where it was."""
STREAMS_MAX = 2_000
ENTRIES_PER_MESSAGE = 500
SLOW_READER_RETRY_MS = 1_000


class AccountService(account_pb2_grpc.AccountServiceServicer):
    """Also keeps the newest entries for the streams, from the ledger's copy."""

    def __init__(
        self,
        ledger: LedgerClient,
        replicas: Mapping[str, ShardReplica],
        links: Mapping[str, Link],
        *,
        entries_kept: int = ENTRIES_KEPT,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self._ledger = ledger
        self._replica = ledger.replica
        self._replicas = replicas
        self._links = links
        self._entries: deque[LedgerEntry] = deque()
        self._entries_kept = entries_kept
        self._pending_max = pending_max
        self._held_after = 0
        """Every entry after this sequence of the ledger is held."""
        self._readers: dict[int, list[_Reader]] = {}
        self._streams = 0
        self._replica.on_load = self._on_load
        self._replica.on_entries = self._on_entries

    # ---------------------------------------------------------------- questions

    async def ListAssets(self, request: Any, context: Any) -> account_pb2.ListAssetsResponse:
        await authenticate(context, self._replica, Permission.READ)
        assets = sorted(self._replica.assets.values())
        return account_pb2.ListAssetsResponse(
            assets=[account_pb2.Asset(symbol=a.symbol, scale=a.scale) for a in assets]
        )

    async def GetBalances(self, request: Any, context: Any) -> account_pb2.GetBalancesResponse:
        caller = await authenticate(context, self._replica, Permission.READ)
        account = await account_of(context, caller, request.account_id)
        sequence = self._replica.sequence
        balances, unavailable = await self._balances(account)
        return account_pb2.GetBalancesResponse(balances=balances, sequence=sequence, unavailable_shards=unavailable)

    async def ListLedgerEntries(self, request: Any, context: Any) -> account_pb2.ListLedgerEntriesResponse:
        caller = await authenticate(context, self._replica, Permission.READ)
        account = await account_of(context, caller, request.account_id)
        size = request.page_size or PAGE_SIZE_DEFAULT
        token = request.page_token or "0"
        if size > PAGE_SIZE_MAX or not (token.isascii() and token.isdecimal() and len(token) < 19):
            message = f"expected a page of at most {PAGE_SIZE_MAX} and a token from the page before"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_INVALID", message)
        entries = await self._ledger.entries(account, request.asset, int(token), size + 1, context)
        following = str(entries[size - 1].entry_id) if len(entries) > size else ""
        return account_pb2.ListLedgerEntriesResponse(
            entries=[encode_entry(entry, self._replica.assets) for entry in entries[:size]], next_page_token=following
        )

    async def GetFees(self, request: Any, context: Any) -> account_pb2.GetFeesResponse:
        caller = await authenticate(context, self._replica, Permission.READ)
        await account_of(context, caller, request.account_id)
        instruments = sorted(book.instrument for replica in self._replicas.values() for book in replica.books.values())
        fees = [
            account_pb2.Fee(instrument=i.symbol, maker_fee_ppm=i.maker_fee_ppm, taker_fee_ppm=i.taker_fee_ppm)
            for i in instruments
        ]
        return account_pb2.GetFeesResponse(fees=fees)

    # ---------------------------------------------------------------- money

    async def Transfer(self, request: Any, context: Any) -> account_pb2.TransferResponse:
        caller = await authenticate(context, self._replica, Permission.TRANSFER)
        account = await account_of(context, caller, request.from_account_id)
        amount = await read_amount(request.asset, request.amount, self._replica, context)
        command = Transfer(account, request.to_account_id, request.asset, amount, request.reference)
        entry, duplicate = encode_result(await self._ledger.command(command, context), self._replica)
        return account_pb2.TransferResponse(entry=entry, duplicate=duplicate)

    # ---------------------------------------------------------------- the stream

    async def StreamBalances(self, request: Any, context: Any) -> None:  # type: ignore[override]  # writes itself
        caller = await authenticate(context, self._replica, Permission.READ)
        account = await account_of(context, caller, request.account_id)
        if self._streams >= STREAMS_MAX:
            message = f"expected at most {STREAMS_MAX} streams of balances"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", message, SLOW_READER_RETRY_MS)
        goes_on = request.HasField("after_sequence")
        if goes_on:
            # It may come from a gateway whose copy is a little further than this one's.
            await self._replica.seen(request.after_sequence)
        after = request.after_sequence if goes_on else self._replica.sequence
        if goes_on and not self._held_after <= after <= self._replica.sequence:
            held = f"{self._held_after} to {self._replica.sequence}"
            message = f"after_sequence: expected {held}, was {after}: ask GetBalances, go on from its sequence"
            await abort(context, grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_NOT_HELD", message)
        reader = _Reader(self._pending_max)
        readers = self._readers.setdefault(account, [])
        readers.append(reader)
        for entry in self._entries if goes_on else ():
            if entry.account == account and entry.sequence > after:
                reader.add(entry)
        self._streams += 1
        try:
            async with while_valid(context, self._replica, caller) as write:
                if not goes_on:
                    balances, _ = await self._balances(account)
                    await write(account_pb2.StreamBalancesResponse(balances=balances, sequence=after))
                while True:
                    await reader.more.wait()
                    if reader.fault:
                        await abort(context, *reader.fault, SLOW_READER_RETRY_MS)
                    entries = reader.take()
                    encoded = [encode_entry(entry, self._replica.assets) for entry in entries]
                    sequence = entries[-1].sequence
                    await write(account_pb2.StreamBalancesResponse(entries=encoded, sequence=sequence))
        finally:
            self._streams -= 1
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
        self._held_after = self._replica.sequence
        for readers in self._readers.values():
            for reader in readers:
                reader.end(grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_NOT_HELD", "this gateway has missed entries")

    async def _balances(self, account: int) -> tuple[list[account_pb2.Balance], list[str]]:
        found = await balances_of(account, self._replica, self._links)
        assets = self._replica.assets
        balances = [_encode_balance(assets[symbol], balance) for symbol, balance in found.of.items()]
        return balances, found.unavailable


class _Reader:
    """One stream: entries that wait for it, and why it must end."""

    def __init__(self, pending_max: int) -> None:
        self.more = asyncio.Event()
        self.fault: tuple[grpc.StatusCode, str, str] | None = None
        self._pending: deque[LedgerEntry] = deque()
        self._pending_max = pending_max

    def add(self, entry: LedgerEntry) -> None:
        if len(self._pending) >= self._pending_max:
            message = f"more than {self._pending_max} entries waited"
            self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER", message)
        elif self.fault is None:
            self._pending.append(entry)
            self.more.set()

    def end(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        self.fault = code, reason, message
        self._pending.clear()
        self.more.set()

    def take(self) -> list[LedgerEntry]:
        """Return what waits, up to a message. No command makes two entries for one account."""
        taken = [self._pending.popleft() for _ in range(min(len(self._pending), ENTRIES_PER_MESSAGE))]
        if not self._pending:
            self.more.clear()
        return taken


async def read_amount(symbol: str, text: str, ledger: LedgerReplica, context: Any) -> int:
    """Return a request's amount in units of the asset; end the call if it, or the asset, will not do."""
    asset = ledger.assets.get(symbol)
    if asset is None:
        await abort(context, grpc.StatusCode.NOT_FOUND, "ASSET_UNKNOWN", f"no asset {symbol[:40]!r}")
    try:
        return parse_amount(text, asset.scale)
    except AmountInvalid as error:
        reason = f"AMOUNT_{error.fault.name}"
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, reason, f"amount: {error}")


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


def encode_result(result: LedgerResult, ledger: LedgerReplica) -> tuple[account_pb2.LedgerEntry, bool]:
    """Return the entry that a movement made, or had made before."""
    assert result.entry is not None, "a movement that was not refused has an entry"
    return encode_entry(result.entry, ledger.assets), result.duplicate


def encode_entry(entry: LedgerEntry, assets: Mapping[str, Asset]) -> account_pb2.LedgerEntry:
    """Return an entry as the wire has it."""
    scale = assets[entry.asset].scale
    return account_pb2.LedgerEntry(
        entry_id=entry.entry_id,
        account_id=entry.account,
        asset=entry.asset,
        type=entry.type,  # type: ignore[arg-type]  # the engine's numbers are the wire's
        change=format_amount(entry.change, scale),
        available=format_amount(entry.available, scale),
        reference=entry.reference,
        counterparty_id=entry.counterparty,
        time_ns=entry.time_ns,
        sequence=entry.sequence,
    )
