from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from exchange.client import (
    AlreadyExists,
    Asset,
    AsyncClient,
    Balance,
    BalanceChange,
    BalanceChangeReason,
    BalanceUpdate,
    EntryResult,
    EntryType,
    Fee,
    GapDetected,
    InsufficientFunds,
    InvalidNumber,
    LedgerEntry,
    OutcomeUnknown,
    Unauthenticated,
)
from exchange.v1 import account_pb2, admin_pb2
from tests.client.fake_gateway import LOST, FakeGateway, Refusal, VirtualTime, plays, take

Move = Callable[[AsyncClient, str], Awaitable[EntryResult]]

RESPONSES: dict[str, Any] = {
    "Deposit": admin_pb2.DepositResponse,
    "Withdraw": admin_pb2.WithdrawResponse,
    "Transfer": account_pb2.TransferResponse,
}
MOVES: list[tuple[str, Move]] = [
    ("Deposit", lambda client, reference: client.deposit(2, "USDT", "12.50", reference=reference)),
    ("Withdraw", lambda client, reference: client.withdraw(2, "USDT", "12.50", reference=reference)),
    ("Transfer", lambda client, reference: client.transfer(3, "USDT", "12.50", reference=reference)),
]
moves = pytest.mark.parametrize(("name", "move"), MOVES, ids=[name for name, _ in MOVES])


def entry(sequence: int = 5, asset: str = "USDT", **fields: Any) -> account_pb2.LedgerEntry:
    values: dict[str, Any] = {"change": "12.50", "available": "100.00", "reference": "r-1", "time_ns": 7_000}
    return account_pb2.LedgerEntry(entry_id=sequence, account_id=2, asset=asset, sequence=sequence, **(values | fields))


# Questions.


async def test_assets_have_their_scale(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("ListAssets", account_pb2.ListAssetsResponse(assets=[account_pb2.Asset(symbol="USDT", scale=6)]))
    assert await client.assets() == [Asset("USDT", 6)]


async def test_balances_are_decimals_over_ledger_and_markets_as_of_a_place_in_each_history(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    markets = [account_pb2.MarketHold(instrument="BTC-USDT", held="0.25")]
    rows = [
        account_pb2.Balance(asset="BTC", available="0.50", held="0.25", total="0.75", markets=markets),
        account_pb2.Balance(asset="USDT", available="0"),
    ]
    sequences = {"ledger": 9, "shard-0": 40}
    response = account_pb2.GetBalancesResponse(balances=rows, sequences=sequences, unavailable_shards=["shard-1"])
    gateway.script("GetBalances", response)
    balances = await client.balances()
    bitcoin, nothing = balances
    assert bitcoin == Balance("BTC", Decimal("0.50"), Decimal("0.25"), Decimal("0.75"), {"BTC-USDT": Decimal("0.25")})
    assert (len(balances), balances[0].asset, balances[1:]) == (2, "BTC", (nothing,))
    assert (balances.available("BTC"), balances.held("BTC"), balances.total("BTC")) == (
        Decimal("0.5"),
        Decimal("0.25"),
        Decimal("0.75"),
    )
    assert balances.available("DOGE") == balances.total("DOGE") == 0
    assert (balances.sequences, balances.unavailable_shards) == (sequences, ("shard-1",))
    await client.balances(7)
    assert [request.account_id for request in gateway.requests["GetBalances"]] == [0, 7]


async def test_entries_are_listed_over_pages_up_to_a_limit(client: AsyncClient, gateway: FakeGateway) -> None:
    def page(request: Any) -> Message:
        start = int(request.page_token or 0)
        return account_pb2.ListLedgerEntriesResponse(
            entries=[entry(start + i) for i in range(2)], next_page_token=str(start + 2)
        )

    gateway.script("ListLedgerEntries", page)
    entries = client.ledger_entries(7, "USDT", limit=3, page_size=2)
    assert [entry.sequence async for entry in entries] == [0, 1, 2]
    assert gateway.requests["ListLedgerEntries"] == [
        account_pb2.ListLedgerEntriesRequest(account_id=7, asset="USDT", page_size=2),
        account_pb2.ListLedgerEntriesRequest(account_id=7, asset="USDT", page_size=1, page_token="2"),
    ]


async def test_an_entry_says_what_happened_in_decimals(client: AsyncClient, gateway: FakeGateway) -> None:
    sent = entry(type=account_pb2.ENTRY_TYPE_TRANSFER, change="-12.50", counterparty_id=3)
    got = entry(type=account_pb2.ENTRY_TYPE_DEPOSIT)
    gateway.script("ListLedgerEntries", account_pb2.ListLedgerEntriesResponse(entries=[sent, got]))
    transfer, deposit = [entry async for entry in client.ledger_entries()]
    assert transfer == LedgerEntry(
        entry_id=5,
        account_id=2,
        asset="USDT",
        type=EntryType.TRANSFER,
        change=Decimal("-12.50"),
        available=Decimal("100.00"),
        reference="r-1",
        counterparty_id=3,
        time_ns=7_000,
        sequence=5,
    )
    assert transfer.time.microsecond == 7
    assert (deposit.type, deposit.counterparty_id) == (EntryType.DEPOSIT, None)


async def test_fees_are_told_by_instrument(client: AsyncClient, gateway: FakeGateway) -> None:
    fee = account_pb2.Fee(instrument="BTC-USDT", maker_fee_ppm=-50, taker_fee_ppm=400)
    gateway.script("GetFees", account_pb2.GetFeesResponse(fees=[fee]))
    assert await client.fees(7) == [Fee("BTC-USDT", -50, 400)]
    assert gateway.requests["GetFees"][0].account_id == 7


async def test_an_asset_that_is_there_with_another_scale_is_an_error(client: AsyncClient, gateway: FakeGateway) -> None:
    created = admin_pb2.CreateAssetResponse(asset=account_pb2.Asset(symbol="USDT", scale=6))
    gateway.script("CreateAsset", LOST, created, Refusal(grpc.StatusCode.ALREADY_EXISTS, "ASSET_EXISTS"))
    assert await client.create_asset("USDT", 6) == Asset("USDT", 6)
    with pytest.raises(AlreadyExists) as caught:
        await client.create_asset("USDT", 8)
    assert caught.value.reason_name == "ASSET_EXISTS"


# Moving money.


@moves
async def test_money_is_moved_under_a_reference(
    client: AsyncClient, gateway: FakeGateway, name: str, move: Move
) -> None:
    gateway.script(name, RESPONSES[name](entry=entry()))
    result = await move(client, "r-1")
    assert (result.entry.change, result.entry.available, result.duplicate) == (Decimal("12.50"), Decimal(100), False)
    (request,) = gateway.requests[name]
    assert (request.asset, request.amount, request.reference) == ("USDT", "12.5", "r-1")


@moves
@pytest.mark.parametrize("lost", [LOST, Refusal(grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")], ids=["lost", "unknown"])
async def test_what_was_lost_is_sent_again_under_the_same_reference(
    client: AsyncClient, gateway: FakeGateway, name: str, move: Move, lost: Refusal
) -> None:
    gateway.script(name, lost, RESPONSES[name](entry=entry(), duplicate=True))
    result = await move(client, "r-1")
    assert result.duplicate
    first, second = gateway.requests[name]
    assert first == second


@moves
async def test_an_outcome_that_stays_unknown_carries_its_reference(
    client: AsyncClient, gateway: FakeGateway, name: str, move: Move
) -> None:
    gateway.script(name, LOST)
    with pytest.raises(OutcomeUnknown, match=f"^{name} 'r-1': may or may not have been executed after 3") as caught:
        await move(client, "r-1")
    assert caught.value.reference == "r-1"
    assert caught.value.__cause__ is not None
    assert client.statistics.outcomes_unknown == 1


@moves
async def test_a_refusal_after_a_lost_attempt_leaves_the_outcome_open(
    client: AsyncClient, gateway: FakeGateway, name: str, move: Move
) -> None:
    # The lost attempt may still be on its way, and find what this one did not.
    gateway.script(name, LOST, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS"))
    with pytest.raises(OutcomeUnknown) as caught:
        await move(client, "r-1")
    assert isinstance(caught.value.__cause__, InsufficientFunds)


@moves
async def test_too_little_money_is_an_error_of_its_own(
    client: AsyncClient, gateway: FakeGateway, name: str, move: Move
) -> None:
    gateway.script(name, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS"))
    with pytest.raises(InsufficientFunds) as caught:
        await move(client, "r-1")
    assert caught.value.reason_name == "INSUFFICIENT_FUNDS"
    assert len(gateway.requests[name]) == 1


@moves
@pytest.mark.parametrize("reference", ["", "a b", "a" * 65, "ä"])
async def test_a_reference_that_cannot_be_one_is_not_sent(
    client: AsyncClient, gateway: FakeGateway, name: str, move: Move, reference: str
) -> None:
    with pytest.raises(ValueError, match="reference: expected 1 to 64 characters"):
        await move(client, reference)
    assert gateway.requests[name] == []


async def test_the_sides_of_a_transfer_are_named(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("Transfer", account_pb2.TransferResponse(entry=entry()))
    await client.transfer(3, "USDT", Decimal("0.1"), reference="r-1", from_account_id=2)
    assert gateway.requests["Transfer"] == [
        account_pb2.TransferRequest(from_account_id=2, to_account_id=3, asset="USDT", amount="0.1", reference="r-1")
    ]


async def test_a_transfers_reference_is_made_up_once_for_all_attempts(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("Transfer", LOST)
    with pytest.raises(OutcomeUnknown) as caught:
        await client.transfer(3, "USDT", 1)
    references = {request.reference for request in gateway.requests["Transfer"]}
    assert references == {caught.value.reference}
    with pytest.raises(OutcomeUnknown):
        await client.transfer(3, "USDT", 1)
    assert gateway.requests["Transfer"][-1].reference not in references


async def test_an_amount_is_never_a_float(client: AsyncClient, gateway: FakeGateway) -> None:
    with pytest.raises(TypeError, match=r'write Decimal\("0.1"\)'):
        await client.transfer(3, "USDT", 0.1)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InvalidNumber, match="amount: expected a finite positive number, was '-1'"):
        await client.transfer(3, "USDT", "-1")
    assert gateway.requests["Transfer"] == []


# The stream.


def change(sequence: int, source: str = "ledger", **fields: Any) -> account_pb2.BalanceChange:
    values: dict[str, Any] = {"asset": "USDT", "change": "10.00", "reason": account_pb2.BALANCE_CHANGE_REASON_DEPOSIT}
    return account_pb2.BalanceChange(source=source, sequence=sequence, **(values | fields))


def told(
    *changes: account_pb2.BalanceChange, balances: dict[str, str] | None = None, **sequences: int
) -> account_pb2.StreamBalancesResponse:
    rows = [account_pb2.Balance(asset=asset, available=available) for asset, available in (balances or {}).items()]
    places = {source.replace("_", "-"): sequence for source, sequence in sequences.items()}
    return account_pb2.StreamBalancesResponse(changes=changes, balances=rows, sequences=places)


async def test_balances_come_as_they_are_and_then_every_change_of_them(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    fee = change(
        7,
        "shard-0",
        change="-0.50",
        reason=account_pb2.BALANCE_CHANGE_REASON_FEE,
        instrument="BTC-USDT",
        trade_id=3,
        order_id=5,
        client_order_id="o1",
        time_ns=7_000,
    )
    gateway.script_stream(
        "StreamBalances",
        plays(
            told(balances={"BTC": "1", "USDT": "50"}, ledger=10, shard_0=4),
            told(change(11, entry_id=2, reference="r-1", counterparty_id=3), fee, ledger=11, shard_0=7),
            None,
        ),
    )
    async with client.stream_balances(7) as stream:
        first, second = await take(stream, 2)
    assert [balance.asset for balance in first.balances] == ["BTC", "USDT"]
    assert (first.changes, first.sequences) == ((), {"ledger": 10, "shard-0": 4})
    deposit, paid = second.changes
    assert deposit == BalanceChange(
        "ledger", 11, "USDT", Decimal("10.00"), BalanceChangeReason.DEPOSIT, 0, 2, "r-1", counterparty_id=3
    )
    assert (paid.reason, paid.change, paid.instrument) == (BalanceChangeReason.FEE, Decimal("-0.5"), "BTC-USDT")
    assert (paid.trade_id, paid.order_id, paid.client_order_id, paid.time.microsecond) == (3, 5, "o1", 7)
    assert second.sequences == {"ledger": 11, "shard-0": 7}
    (request,) = gateway.requests["StreamBalances"]
    assert (request.account_id, dict(request.after_sequences)) == (7, {})


async def test_a_stream_of_balances_goes_on_after_the_last_sequences(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script_stream(
        "StreamBalances",
        plays(LOST),
        plays(told(balances={"USDT": "50"}, ledger=10, shard_0=4), told(change(11), ledger=11), told(ledger=15), LOST),
        plays(told(ledger=15, shard_0=4), told(change(16), ledger=16), None),
    )
    async with client.stream_balances() as stream:
        updates = await take(stream, 3)
        assert stream.position == {"ledger": 16, "shard-0": 4}
        assert stream.reconnects == 2
    # 15 was told without a change: nothing to yield, but a place to go on from.
    assert [update.sequences["ledger"] for update in updates] == [10, 11, 16]
    after = [dict(request.after_sequences) for request in gateway.requests["StreamBalances"]]
    assert after == [{}, {}, {"ledger": 15, "shard-0": 4}]


async def test_what_a_gateway_that_is_behind_tells_again_is_left_out(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream(
        "StreamBalances",
        plays(told(change(11), ledger=11), LOST),
        plays(told(ledger=9), told(change(11), change(12), ledger=12), None),
    )
    async with client.stream_balances(after={"ledger": 10}) as stream:
        updates = await take(stream, 2)
    assert [[change.sequence for change in update.changes] for update in updates] == [[11], [12]]


async def test_half_a_command_is_kept_back_until_it_is_whole_and_comes_once(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    half = told(change(5, "shard-0"), change(6, "shard-0", trade_id=1), shard_0=5)
    gateway.script_stream(
        "StreamBalances",
        plays(half, LOST),
        plays(told(change(6, "shard-0", trade_id=1)), told(change(6, "shard-0", trade_id=2), shard_0=6), None),
    )
    async with client.stream_balances(after={"shard-0": 4}) as stream:
        first, second = await take(stream, 2)
    assert [change.sequence for change in first.changes] == [5]
    assert [(change.sequence, change.trade_id) for change in second.changes] == [(6, 1), (6, 2)]
    assert [dict(r.after_sequences) for r in gateway.requests["StreamBalances"]] == [{"shard-0": 4}, {"shard-0": 5}]


async def test_an_account_without_balances_is_told_so(client: AsyncClient, gateway: FakeGateway) -> None:
    away = account_pb2.StreamBalancesResponse(sequences={"ledger": 10}, unavailable_shards=["shard-1"])
    gateway.script_stream("StreamBalances", plays(away, None))
    async with client.stream_balances() as stream:
        assert await take(stream, 1) == [BalanceUpdate((), (), {"ledger": 10}, ("shard-1",))]


async def test_balances_that_are_no_longer_held_are_a_gap(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream(
        "StreamBalances",
        plays(told(balances={"USDT": "50"}, ledger=10), LOST),
        plays(Refusal(grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD")),
    )
    stream = client.stream_balances()
    await take(stream, 1)
    with pytest.raises(GapDetected) as caught:
        await anext(stream)
    assert caught.value.position == {"ledger": 10}


async def test_a_key_that_ends_ends_the_stream(client: AsyncClient, gateway: FakeGateway) -> None:
    expired = Refusal(grpc.StatusCode.UNAUTHENTICATED, "KEY_EXPIRED")
    gateway.script_stream("StreamBalances", plays(told(ledger=10), expired))
    stream = client.stream_balances()
    await take(stream, 1)
    with pytest.raises(Unauthenticated) as caught:
        await anext(stream)
    assert caught.value.reason_name == "KEY_EXPIRED"
