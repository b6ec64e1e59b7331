"""AccountService and keys over a real gRPC connection, in front of a ledger machine without a host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from exchange.engine.instrument import Instrument
from exchange.engine.ledger import Ledger
from exchange.engine.ledger_words import CreateAccount, CreateApiKey, CreateAsset, LedgerRefusal, Permission
from exchange.engine.stages import StageRow
from exchange.engine.words import Stage
from exchange.gateway.account import AccountService
from exchange.gateway.admin import AdminService
from exchange.gateway.auth import _is_allowed, hash_of_key
from exchange.gateway.balance_stream import BalanceHub
from exchange.gateway.executions import ExecutionHub
from exchange.gateway.ledger import _MEANING, LedgerClient, LedgerReplica
from exchange.gateway.links import Link
from exchange.gateway.replica import ShardReplica
from exchange.runtime.feed import BookDump, FeedBatch, ShardDump
from exchange.runtime.messages import LinkBatch, ReplyStatus, Segment, SegmentReply, pack, unpack
from exchange.runtime.messages import unpack_batch as unpack_link_batch
from exchange.runtime.rows import LedgerType
from exchange.v1 import account_pb2, account_pb2_grpc, admin_pb2, admin_pb2_grpc

OPERATOR, ALICE, BOB = 1, 2, 3
EVERYTHING = tuple(map(int, Permission))
SECOND_NS = 1_000_000_000


class LedgerPeer:
    """A ledger that does at once what it is told, and whose feed goes straight to a copy."""

    incarnation = 1

    def __init__(self, replica: LedgerReplica, now_ns: Callable[[], int]) -> None:
        self._kind = LedgerType()
        self._replica = replica
        self._now_ns = now_ns
        self.ledger = Ledger()
        self.apply([CreateAccount(name) for name in ("operator", "alice", "bob")])
        replica.load(self._kind.dump(self.ledger, 1))

    def apply(self, commands: list[Any]) -> list[Any]:
        first = self.ledger.sequence + 1
        applied = self.ledger.apply(self._now_ns(), commands)
        if self._replica.is_loaded:
            batch = FeedBatch(1, first, self.ledger.sequence, self.ledger.time_ns, list(applied.events))
            self._replica.apply(pack(batch))
        return applied.results

    async def submit(self, batch: bytes) -> bytes:
        received: LinkBatch = unpack_link_batch(unpack(batch))

        def answer(segment: Segment) -> SegmentReply:
            results = self.apply(self._kind.decode(segment))
            return SegmentReply(int(ReplyStatus.DONE), 0, self._kind.encode(segment, results))

        return pack([answer(segment) for segment in received.segments])

    async def query(self, request: bytes) -> bytes:
        return self._kind.query(self.ledger, request)

    async def feed(self, after_sequence: int, timeout_s: float) -> None:
        raise NotImplementedError

    async def dump(self) -> bytes:
        raise NotImplementedError


class Venue:
    """A server of both services, and callers with the keys of three accounts."""

    def __init__(self) -> None:
        self.now_ns = SECOND_NS
        self.replica = LedgerReplica(clock_ns=lambda: self.now_ns)
        self.peer = LedgerPeer(self.replica, lambda: self.now_ns)
        for account, permissions in ((OPERATOR, EVERYTHING), (ALICE, (1, 3)), (BOB, (1,))):
            self.key(account, f"secret-{account}", permissions)
        self.peer.apply([CreateAsset("USD", 2), CreateAsset("ETH", 18)])
        shard = ShardReplica("shard-0")
        instrument = Instrument("ETH-USD", "ETH", "USD", 2, 4, 6, maker_fee_ppm=-50, taker_fee_ppm=200)
        book = BookDump(tuple(instrument), 0, 0, [])
        hub = ExecutionHub({"shard-0": shard})
        shard.load(ShardDump(1, 1, 1, [StageRow("", int(Stage.OPEN), 0, "", 0, 0)], [book]))
        hub.reset("shard-0")
        self.link = Link("ledger", "gateway-0", 1)
        client = LedgerClient(self.link, self.replica)
        self.hub = BalanceHub(self.replica, {}, hub, entries_kept=3, pending_max=5)
        self.service = AccountService(client, {"shard-0": shard}, self.hub)
        self.admin_service = AdminService(None, client, lambda _: True)  # type: ignore[arg-type]  # no supervisor here
        self.account: Any = None
        self.admin: Any = None

    def key(self, account: int, secret: str, permissions: tuple[int, ...], **limits: Any) -> str:
        key_id = f"id-{secret}"
        (result,) = self.peer.apply([CreateApiKey(account, key_id, hash_of_key(secret), permissions, **limits)])
        assert not result.refusal
        return key_id

    async def deposit(self, account: int, amount: str, reference: str, asset: str = "USD") -> Any:
        request = admin_pb2.DepositRequest(account_id=account, asset=asset, amount=amount, reference=reference)
        return await self.admin.Deposit(request, metadata=as_account(OPERATOR))


def as_account(account: int) -> tuple[tuple[str, str], ...]:
    return with_secret(f"secret-{account}")


def with_secret(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


@asynccontextmanager
async def open_venue() -> AsyncIterator[Venue]:
    venue = Venue()
    server = grpc.aio.server()
    account_pb2_grpc.add_AccountServiceServicer_to_server(venue.service, server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(venue.admin_service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    venue.link.set_peer(venue.peer)
    venue.link.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        venue.account = account_pb2_grpc.AccountServiceStub(channel)
        venue.admin = admin_pb2_grpc.AdminServiceStub(channel)
        try:
            yield venue
        finally:
            await venue.link.stop()
            await server.stop(None)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason that a call, or the next answer of a stream, ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason


async def balances(venue: Venue, account: int, **request: Any) -> dict[str, str]:
    answer = await venue.account.GetBalances(account_pb2.GetBalancesRequest(**request), metadata=as_account(account))
    return {balance.asset: balance.available for balance in answer.balances}


@pytest.mark.asyncio
async def test_money_comes_moves_and_goes() -> None:
    async with open_venue() as venue:
        deposit = await venue.deposit(ALICE, "100.5", "d1")
        assert (deposit.entry.change, deposit.entry.available, deposit.duplicate) == ("100.50", "100.50", False)
        request = account_pb2.TransferRequest(to_account_id=BOB, asset="USD", amount="0.51", reference="t1")
        transfer = await venue.account.Transfer(request, metadata=as_account(ALICE))
        assert (transfer.entry.change, transfer.entry.counterparty_id) == ("-0.51", BOB)
        withdrawal = admin_pb2.WithdrawRequest(account_id=BOB, asset="USD", amount="0.5", reference="w1")
        await venue.admin.Withdraw(withdrawal, metadata=as_account(OPERATOR))
        assert (await venue.account.Transfer(request, metadata=as_account(ALICE))).duplicate
        assert await balances(venue, ALICE) == {"USD": "99.99"}
        assert await balances(venue, OPERATOR, account_id=BOB) == {"USD": "0.01"}


@pytest.mark.asyncio
async def test_bad_requests_get_an_error_of_their_own() -> None:
    async with open_venue() as venue:
        await venue.deposit(ALICE, "1", "d1")
        bad: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
            ({"amount": "1.001"}, grpc.StatusCode.INVALID_ARGUMENT, "AMOUNT_TOO_PRECISE"),
            ({"amount": "-1"}, grpc.StatusCode.INVALID_ARGUMENT, "AMOUNT_INVALID"),
            ({"amount": "9" * 40}, grpc.StatusCode.INVALID_ARGUMENT, "AMOUNT_TOO_LARGE"),
            ({"asset": "DOGE"}, grpc.StatusCode.NOT_FOUND, "ASSET_UNKNOWN"),
            ({"to_account_id": ALICE}, grpc.StatusCode.INVALID_ARGUMENT, "TRANSFER_TO_SELF"),
            ({"to_account_id": 99}, grpc.StatusCode.NOT_FOUND, "ACCOUNT_UNKNOWN"),
            ({"reference": "not good"}, grpc.StatusCode.INVALID_ARGUMENT, "REFERENCE_INVALID"),
            ({"amount": "2"}, grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS"),
            ({"from_account_id": BOB}, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"),
        ]
        good: dict[str, Any] = {"to_account_id": BOB, "asset": "USD", "amount": "0.1", "reference": "t"}
        for change, code, reason in bad:
            request = account_pb2.TransferRequest(**{**good, **change})
            assert await refused(venue.account.Transfer(request, metadata=as_account(ALICE))) == (code, reason)
        request = account_pb2.TransferRequest(**{**good, "to_account_id": ALICE})
        call = venue.account.Transfer(request, metadata=as_account(BOB))
        assert await refused(call) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await venue.deposit(BOB, "1", "d1")
        assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
        assert await balances(venue, ALICE) == {"USD": "1.00"}


@pytest.mark.asyncio
async def test_entries_come_in_pages_and_fees_by_instrument() -> None:
    async with open_venue() as venue:
        for number in range(5):
            await venue.deposit(ALICE, "1", f"d{number}")
        references, token = [], ""
        while True:
            request = account_pb2.ListLedgerEntriesRequest(page_size=2, page_token=token)
            page = await venue.account.ListLedgerEntries(request, metadata=as_account(ALICE))
            references += [entry.reference for entry in page.entries]
            token = page.next_page_token
            if not token:
                break
        assert references == ["d4", "d3", "d2", "d1", "d0"]
        request = account_pb2.ListLedgerEntriesRequest(page_token="x")
        call = venue.account.ListLedgerEntries(request, metadata=as_account(ALICE))
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_INVALID")
        fees = await venue.account.GetFees(account_pb2.GetFeesRequest(), metadata=as_account(ALICE))
        assert [(f.instrument, f.maker_fee_ppm, f.taker_fee_ppm) for f in fees.fees] == [("ETH-USD", -50, 200)]


@pytest.mark.asyncio
async def test_a_stream_of_balances_starts_goes_on_and_says_when_it_cannot() -> None:
    async with open_venue() as venue:
        await venue.deposit(ALICE, "1", "d0")
        stream = venue.account.StreamBalances(account_pb2.StreamBalancesRequest(), metadata=as_account(ALICE))
        first = await stream.read()
        assert [(b.asset, b.available) for b in first.balances] == [("USD", "1.00")]
        await venue.deposit(BOB, "5", "b0")
        await venue.deposit(ALICE, "1", "d1")
        message = await stream.read()
        assert [(c.reference, c.change, c.source) for c in message.changes] == [("d1", "1.00", "ledger")]
        assert message.changes[0].reason == account_pb2.BALANCE_CHANGE_REASON_DEPOSIT
        stream.cancel()
        await venue.deposit(ALICE, "1", "d2")
        after = account_pb2.StreamBalancesRequest(after_sequences=message.sequences)
        resumed = venue.account.StreamBalances(after, metadata=as_account(ALICE))
        assert not (await resumed.read()).balances
        assert [c.reference for c in (await resumed.read()).changes] == ["d2"]
        resumed.cancel()
        for number in range(3, 7):
            await venue.deposit(ALICE, "1", f"d{number}")
        late = venue.account.StreamBalances(after, metadata=as_account(ALICE))
        assert await refused(late.read()) == (grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD")


@pytest.mark.asyncio
async def test_a_revoked_or_expired_key_ends_its_calls_and_its_streams() -> None:
    async with open_venue() as venue:
        key_id = venue.key(ALICE, "short", (1,))
        stream = venue.account.StreamBalances(account_pb2.StreamBalancesRequest(), metadata=with_secret("short"))
        await stream.read()
        await venue.admin.RevokeApiKey(admin_pb2.RevokeApiKeyRequest(key_id=key_id), metadata=as_account(OPERATOR))
        assert await refused(stream.read()) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")
        question = account_pb2.GetBalancesRequest()
        call = venue.account.GetBalances(question, metadata=with_secret("short"))
        assert await refused(call) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")

        venue.key(ALICE, "mortal", (1,), expire_time_ns=5 * SECOND_NS)
        await venue.account.GetBalances(question, metadata=with_secret("mortal"))
        # The rest of its life is over before the timer is even set.
        venue.now_ns = 5 * SECOND_NS - 1
        stream = venue.account.StreamBalances(account_pb2.StreamBalancesRequest(), metadata=with_secret("mortal"))
        await stream.read()
        venue.now_ns = 5 * SECOND_NS
        assert await refused(stream.read()) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_EXPIRED")
        call = venue.account.GetBalances(question, metadata=with_secret("mortal"))
        assert await refused(call) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_EXPIRED")
        assert not venue.replica._watchers


@pytest.mark.asyncio
async def test_a_key_works_from_the_addresses_that_it_allows() -> None:
    async with open_venue() as venue:
        venue.key(ALICE, "home", (1,), allowed_ips=("127.0.0.0/8", "::1"))
        venue.key(ALICE, "away", (1,), allowed_ips=("192.0.2.0/24",))
        question = account_pb2.GetBalancesRequest()
        await venue.account.GetBalances(question, metadata=with_secret("home"))
        call = venue.account.GetBalances(question, metadata=with_secret("away"))
        assert await refused(call) == (grpc.StatusCode.PERMISSION_DENIED, "ADDRESS_NOT_ALLOWED")


@pytest.mark.asyncio
async def test_while_the_ledger_is_away_what_is_known_is_still_answered() -> None:
    async with open_venue() as venue:
        await venue.deposit(ALICE, "1", "d0")
        venue.link.set_peer(None)
        assert await balances(venue, ALICE) == {"USD": "1.00"}
        request = account_pb2.TransferRequest(to_account_id=BOB, asset="USD", amount="1", reference="t")
        call = venue.account.Transfer(request, metadata=as_account(ALICE))
        assert await refused(call) == (grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE")


@pytest.mark.asyncio
async def test_a_reader_that_is_too_far_behind_is_ended() -> None:
    async with open_venue() as venue:
        context = SlowContext(as_account(ALICE))
        stream = asyncio.create_task(venue.service.StreamBalances(account_pb2.StreamBalancesRequest(), context))
        await context.writing.wait()
        for number in range(6):
            await venue.deposit(ALICE, "1", f"d{number}")
        context.may_go_on.set()
        with pytest.raises(Ended, match="SLOW_READER"):
            await stream
        assert not venue.hub._readers


@pytest.mark.asyncio
async def test_a_revoked_key_ends_a_stream_after_the_message_that_is_on_its_way() -> None:
    async with open_venue() as venue:
        context = SlowContext(as_account(ALICE))
        stream = asyncio.create_task(venue.service.StreamBalances(account_pb2.StreamBalancesRequest(), context))
        await context.writing.wait()
        request = admin_pb2.RevokeApiKeyRequest(key_id="id-secret-2")
        await venue.admin.RevokeApiKey(request, metadata=as_account(OPERATOR))
        assert not stream.done()
        context.may_go_on.set()
        with pytest.raises(Ended, match="KEY_REVOKED"):
            await stream


class Ended(Exception):
    pass


class SlowContext:
    """A call that stays in this process, so that nothing of it is buffered on the way."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self.writing = asyncio.Event()
        self.may_go_on = asyncio.Event()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"

    async def write(self, message: Any) -> None:
        self.writing.set()
        await self.may_go_on.wait()

    def time_remaining(self) -> None: ...

    async def abort(self, code: grpc.StatusCode, message: str, trailers: Any) -> None:
        raise Ended(str(trailers))


def test_addresses_are_read_as_grpc_writes_them() -> None:
    assert _is_allowed("ipv4:192.0.2.7:5000", ("192.0.2.0/24",))
    assert _is_allowed("ipv6:%5B2001:db8::1%5D:5000", ("2001:db8::/32",))
    assert _is_allowed("ipv6:[::1]:5000", ("::1",))
    assert _is_allowed("ipv6:[::ffff:192.0.2.7]:5000", ("192.0.2.7",))
    assert not _is_allowed("ipv4:192.0.3.7:5000", ("192.0.2.0/24", "::/0"))
    assert not _is_allowed("unix:/tmp/socket", ("0.0.0.0/0", "::/0"))
    assert not _is_allowed("", ("0.0.0.0/0",))


def test_every_refusal_says_what_was_expected() -> None:
    assert set(_MEANING) == set(LedgerRefusal) - {LedgerRefusal.NONE}
