"""The gateway's side of the ledger: a copy kept from its feed, and commands sent to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

from exchange.engine.grants import WAIT_NS_MAX
from exchange.engine.ledger import ALLOWED_IPS_MAX, API_KEYS_PER_ACCOUNT_MAX, api_key_of
from exchange.engine.ledger_words import (
    Account,
    AccountTier,
    ApiKey,
    LedgerEntry,
    LedgerEventKind,
    LedgerRefusal,
    LedgerResult,
    Moved,
    MoveSettled,
)
from exchange.engine.money import Asset
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS, abort
from exchange.gateway.following import check_dump, check_writer
from exchange.gateway.links import Link
from exchange.gateway.replica import FeedBroken
from exchange.runtime.feed import unpack_batch
from exchange.runtime.messages import ReplyStatus, pack, unpack
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import rows_segment, unpack_ledger_result

SEEN_WITHIN_S = 2.0
SETTLED_WITHIN_S = WAIT_NS_MAX / 1e9 + 1.0
SETTLED_KEPT_MAX = 10_000

_NOT_FOUND = (LedgerRefusal.ACCOUNT_UNKNOWN, LedgerRefusal.KEY_UNKNOWN, LedgerRefusal.ASSET_UNKNOWN)
_EXISTS = (LedgerRefusal.ASSET_EXISTS, LedgerRefusal.REFERENCE_REUSED, LedgerRefusal.KEY_EXISTS)
_CODES = {
    **dict.fromkeys(_NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    **dict.fromkeys(_EXISTS, grpc.StatusCode.ALREADY_EXISTS),
    LedgerRefusal.INSUFFICIENT_FUNDS: grpc.StatusCode.FAILED_PRECONDITION,
    LedgerRefusal.TOO_MANY_KEYS: grpc.StatusCode.FAILED_PRECONDITION,
    LedgerRefusal.FUNDS_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}

_MEANING = {
    LedgerRefusal.NAME_INVALID: "expected a name of 1 to 64 characters of [A-Za-z0-9_.-]",
    LedgerRefusal.ACCOUNT_UNKNOWN: "expected an account that exists",
    LedgerRefusal.PERMISSIONS_INVALID: "expected one permission or more, of READ, TRADE, TRANSFER and OPERATOR",
    LedgerRefusal.KEY_EXISTS: "this key id is taken",
    LedgerRefusal.KEY_UNKNOWN: "expected a key that exists",
    LedgerRefusal.TOO_MANY_KEYS: f"expected at most {API_KEYS_PER_ACCOUNT_MAX} keys of an account: revoke one",
    LedgerRefusal.EXPIRE_TIME_INVALID: "expected a time in the future, or none",
    LedgerRefusal.ADDRESS_INVALID: f"expected at most {ALLOWED_IPS_MAX} addresses or networks, such as 10.0.0.0/8",
    LedgerRefusal.ASSET_INVALID: "expected 1 to 16 characters of [A-Z0-9] and a scale of 0 to 18",
    LedgerRefusal.ASSET_EXISTS: "the asset is there already, with another scale",
    LedgerRefusal.ASSET_UNKNOWN: "expected an asset that exists",
    LedgerRefusal.AMOUNT_INVALID: "expected an amount greater than 0",
    LedgerRefusal.AMOUNT_TOO_LARGE: "there would be more of the asset than an amount can tell",
    LedgerRefusal.REFERENCE_INVALID: "expected a reference of 1 to 64 characters of [A-Za-z0-9_.:-]",
    LedgerRefusal.REFERENCE_REUSED: "the reference was used for something else: choose another one",
    LedgerRefusal.TRANSFER_TO_SELF: "expected two accounts, was one",
    LedgerRefusal.INSUFFICIENT_FUNDS: "the account has less available than that",
    LedgerRefusal.TIER_INVALID: "expected a tier that there is",
    LedgerRefusal.FUNDS_UNAVAILABLE: "a market where the account may have the money is away: come back later",
}


class LedgerReplica:
    """A copy of the ledger's accounts, keys, assets and balances. `on_entries` gets the entries of each batch.

    `balances` lie in the ledger, by account and asset; `out` is what shards have got less what they gave back.
    """

    def __init__(self, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.sequence = -1
        self.epoch = 0
        self.accounts: dict[int, Account] = {}
        self.api_keys: dict[str, ApiKey] = {}
        self.assets: dict[str, Asset] = {}
        self.balances: dict[int, dict[str, int]] = {}
        self.out: dict[str, dict[int, dict[str, int]]] = {}
        self.on_load: Callable[[], None] | None = None
        self.on_entries: Callable[[list[LedgerEntry]], None] | None = None
        self._by_hash: dict[str, ApiKey] = {}
        self._clock_ns = clock_ns
        self._watchers: dict[str, list[Callable[[str], None]]] = {}
        self._changed = asyncio.Event()
        self._settled: dict[int, MoveSettled] = {}

    @property
    def is_loaded(self) -> bool:
        return self.sequence >= 0

    def load(self, dump: bytes) -> None:
        """Start from the ledger's packed dump. Raises `StaleWriter`."""
        epoch, sequence, _, accounts, api_keys, assets, balances, out = unpack(dump)
        check_dump(self, epoch, sequence)
        self.epoch = epoch
        self.accounts = {row[0]: Account(*row) for row in accounts}
        self.assets = {symbol: Asset(symbol, scale) for symbol, scale in assets}
        self.balances = {account: dict(rows) for account, rows in balances}
        self.out = {shard: {account: dict(assets) for account, assets in rows} for shard, rows in out}
        self._by_hash.clear()
        for row in api_keys:
            self._enter_key(api_key_of(row))
        self._go_to(sequence)
        if self.on_load is not None:
            self.on_load()

    def apply(self, data: bytes) -> None:
        """Go on with a packed FeedBatch. Raises `StaleWriter`, or `FeedBroken` if it does not follow."""
        batch = unpack_batch(data)
        check_writer(self, batch.epoch)
        if batch.last_sequence <= self.sequence:
            return
        if batch.first_sequence != self.sequence + 1:
            raise FeedBroken(f"ledger: expected {self.sequence + 1}, was {batch.first_sequence}")
        self.epoch = batch.epoch
        entries: list[LedgerEntry] = []
        for kind, _, row in batch.events:
            if kind == LedgerEventKind.ENTRY:
                entry = LedgerEntry(*row)
                self.balances.setdefault(entry.account, {})[entry.asset] = entry.available
                entries.append(entry)
            elif kind == LedgerEventKind.ESCROW:
                self._move(Moved(*row))
            elif kind == LedgerEventKind.SETTLED:
                self._settle(MoveSettled(*row))
            elif kind == LedgerEventKind.ACCOUNT:
                self.accounts[row[0]] = Account(*row)
            elif kind == LedgerEventKind.API_KEY:
                self._enter_key(api_key_of(row))
            elif kind == LedgerEventKind.ASSET:
                self.assets[row[0]] = Asset(*row)
        self._go_to(batch.last_sequence)
        if entries and self.on_entries is not None:
            self.on_entries(entries)

    def tier_of(self, account: int) -> int:
        """Return how much an account may send: what any may, if it is not known."""
        known = self.accounts.get(account)
        return int(AccountTier.STANDARD) if known is None else known.tier

    async def seen(self, sequence: int) -> None:
        """Wait a little for this copy to have what the ledger did up to here, so that the next call finds it."""
        try:
            async with asyncio.timeout(SEEN_WITHIN_S):
                while self.sequence < sequence:
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def settled(self, n: int) -> MoveSettled | None:
        """Return what became of a movement that waits for money from shards; None: it is not known in time."""
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while n not in self._settled:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._settled[n]

    def _settle(self, settled: MoveSettled) -> None:
        entry = None if settled.entry is None else LedgerEntry(*settled.entry)
        self._settled[settled.n] = settled._replace(entry=entry)
        if len(self._settled) > SETTLED_KEPT_MAX:
            del self._settled[next(iter(self._settled))]

    def _move(self, moved: Moved) -> None:
        self.balances.setdefault(moved.account, {})[moved.asset] = moved.available
        assets = self.out.setdefault(moved.shard, {}).setdefault(moved.account, {})
        assets[moved.asset] = assets.get(moved.asset, 0) + moved.change

    # ---------------------------------------------------------------- keys

    def key_with_hash(self, key_hash: str) -> ApiKey | None:
        return self._by_hash.get(key_hash)

    def fault_of(self, key: ApiKey) -> str:
        """Return why a key cannot be used any more, "" if it can."""
        if key.revoked:
            return "KEY_REVOKED"
        return "KEY_EXPIRED" if key.expire_time_ns and key.expire_time_ns <= self._clock_ns() else ""

    def watch(self, key_id: str, on_fault: Callable[[str], None]) -> Callable[[], None]:
        """Have `on_fault` called once when the key is revoked or expires; what is returned stops that."""
        watchers = self._watchers.setdefault(key_id, [])
        watchers.append(on_fault)
        expire_time_ns = self.api_keys[key_id].expire_time_ns
        timer = None
        if expire_time_ns:
            in_s = max(expire_time_ns - self._clock_ns(), 0) / 1e9
            timer = asyncio.get_running_loop().call_later(in_s, on_fault, "KEY_EXPIRED")

        def unwatch() -> None:
            watchers.remove(on_fault)
            if not watchers:
                self._watchers.pop(key_id, None)
            if timer is not None:
                timer.cancel()

        return unwatch

    def _enter_key(self, key: ApiKey) -> None:
        self.api_keys[key.key_id] = self._by_hash[key.key_hash] = key
        if key.revoked:
            for on_fault in list(self._watchers.get(key.key_id, ())):
                on_fault("KEY_REVOKED")

    def _go_to(self, sequence: int) -> None:
        self.sequence = sequence
        self._changed.set()
        self._changed = asyncio.Event()


class LedgerClient:
    """Sends commands and questions to the ledger; what it refuses ends the call with an error of that name."""

    def __init__(self, link: Link, replica: LedgerReplica) -> None:
        self._link = link
        self.replica = replica

    async def command(self, command: Any, context: Any) -> LedgerResult:
        """Return what a command did, once this gateway's copy has it too."""
        if not self._link.is_up:
            await self._away(context, "the ledger is away")
        reply = await self._link.enqueue(rows_segment([command], remaining_ms=2_000))
        if reply.status == ReplyStatus.UNKNOWN:
            await self._unknown(context)
        if reply.status != ReplyStatus.DONE:
            await self._away(context, reply.detail)
        result = unpack_ledger_result(reply.data)
        if result.waits:
            settled = await self.replica.settled(result.waits)
            if settled is None:
                await self._unknown(context)
            result = result._replace(refusal=settled.refusal, entry=settled.entry)
        if result.refusal:
            refusal = LedgerRefusal(result.refusal)
            code = _CODES.get(refusal, grpc.StatusCode.INVALID_ARGUMENT)
            retry_ms = UNAVAILABLE_RETRY_MS if refusal == LedgerRefusal.FUNDS_UNAVAILABLE else None
            await abort(context, code, refusal.name, f"not done: {_MEANING[refusal]}", retry_ms)
        await self.replica.seen(result.sequence)
        return result

    async def entries(
        self, account: int, asset: str, before_entry_id: int, limit: int, context: Any
    ) -> Sequence[LedgerEntry]:
        """Return an account's newest entries before one."""
        peer = self._link.peer
        try:
            if peer is None:
                raise PeerUnavailable("the ledger is away")
            answer = await peer.query(pack(("entries", account, asset, before_entry_id, limit)))
        except PeerUnavailable as error:
            await self._away(context, str(error))
        return [LedgerEntry(*row) for row in unpack(answer)]

    async def _unknown(self, context: Any) -> NoReturn:
        message = "whether the ledger did it is not known: ask, or send the same again"
        await abort(context, grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN", message)

    async def _away(self, context: Any, detail: str) -> NoReturn:
        message = f"ledger: {detail}"
        await abort(context, grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE", message, UNAVAILABLE_RETRY_MS)
