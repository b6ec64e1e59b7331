"""AccountService: balances and fees from the gateway's copies, money moved by the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import grpc

from exchange.engine.ledger_words import LedgerEntry, LedgerResult, Permission, Transfer
from exchange.engine.money import AmountInvalid, Asset, format_amount, parse_amount
from exchange.gateway.auth import account_of, authenticate, while_valid
from exchange.gateway.balance_stream import BalanceHub, encode_balances
from exchange.gateway.draining import send_elsewhere
from exchange.gateway.errors import abort
from exchange.gateway.executions import SLOW_READER_RETRY_MS
from exchange.gateway.ledger import LedgerClient, LedgerReplica
from exchange.gateway.replica import ShardReplica
from exchange.v1 import account_pb2, account_pb2_grpc

PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 100, 1_000
STREAMS_MAX = 2_000


class AccountService(account_pb2_grpc.AccountServiceServicer):
    """What accounts have, and moving it. `hub` has the balances and their changes."""

    def __init__(self, ledger: LedgerClient, replicas: Mapping[str, ShardReplica], hub: BalanceHub) -> None:
        self._ledger = ledger
        self._replica = ledger.replica
        self._replicas = replicas
        self._hub = hub
        self._streams = 0

    # ---------------------------------------------------------------- questions

    async def ListAssets(self, request: Any, context: Any) -> account_pb2.ListAssetsResponse:
        await authenticate(context, self._replica, Permission.READ)
        assets = sorted(self._replica.assets.values())
        return account_pb2.ListAssetsResponse(
            assets=[account_pb2.Asset(symbol=a.symbol, scale=a.scale) for a in assets]
        )

    async def GetBalances(self, request: Any, context: Any) -> account_pb2.GetBalancesResponse:
        caller = await authenticate(context, self._replica, Permission.READ)
        found = await self._hub.balances(await account_of(context, caller, request.account_id))
        return account_pb2.GetBalancesResponse(
            balances=encode_balances(found, self._replica.assets),
            sequences=found.sequences,
            unavailable_shards=found.unavailable,
        )

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
        self._streams += 1
        try:
            messages = self._hub.stream(account, dict(request.after_sequences), context)
            async with while_valid(context, self._replica, caller) as write, aclosing(messages):
                async for response in messages:
                    await write(response)
            await send_elsewhere(context)
        finally:
            self._streams -= 1


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
