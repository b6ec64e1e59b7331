"""Money on the command line: what is asked, and how it is shown; and keys that end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest
import typer

from exchange.cli import run
from exchange.cli.expiry import parse_expiry
from exchange.client import (
    ApiKey,
    Asset,
    Balance,
    BalanceChange,
    BalanceChangeReason,
    Balances,
    BalanceUpdate,
    CloseReason,
    EntryResult,
    EntryType,
    Execution,
    ExecutionType,
    Fee,
    GapDetected,
    InsufficientFunds,
    LedgerEntry,
    Liquidity,
    NewApiKey,
    OrderStatus,
    Permission,
    RejectReason,
    Side,
)
from tests.cli.fake_client import FakeClient, Stream

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DEPOSIT = LedgerEntry(
    entry_id=4,
    account_id=2,
    asset="USDT",
    type=EntryType.DEPOSIT,
    change=Decimal("12.50"),
    available=Decimal("1E+2"),
    reference="wire-17",
    counterparty_id=None,
    time_ns=1_430_438_404_518_000_000,
    sequence=9,
)


# ---------------------------------------------------------------- questions


def test_balances_are_those_of_the_keys_account_unless_another_is_named(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    balance = Balance("USDT", Decimal("0.000001"), Decimal("1.5"), Decimal("1.500001"), {"BTC-USDT": Decimal("1.5")})
    client = connected(balances=Balances((balance,), {}, ("shard-1",)))
    assert run(["account", "balances", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == [
        {
            "asset": "USDT",
            "available": "0.000001",
            "held": "1.5",
            "total": "1.500001",
            "markets": {"BTC-USDT": "1.5"},
        }
    ]
    assert shown.err == "not counted, because away: what the account has in shard-1\n"
    assert run(["account", "balances", "--account", "7"]) == 0
    table = capsys.readouterr().out
    for cell in ("0.000001", "1.500001", "BTC-USDT 1.5"):
        assert cell in table
    assert [args for _, args, _ in client.asked] == [(0,), (7,)]


def test_entries_are_shown_with_their_change_and_reference(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(ledger_entries=[DEPOSIT])
    assert run(["account", "entries", "USDT", "--limit", "5", "--account", "2"]) == 0
    shown = capsys.readouterr().out
    for cell in ("DEPOSIT", "12.50", "100", "wire-17", "2015-05-01 00:00:04.518"):
        assert cell in shown
    assert "None" not in shown
    assert client.asked[0][1:] == ((2, "USDT"), {"limit": 5})
    assert run(["account", "entries", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["type"], entry["change"], entry["available"], entry["sequence"]) == ("DEPOSIT", "12.50", "100", 9)
    assert entry["counterparty_id"] is None


def test_fees_are_shown_by_instrument(connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]) -> None:
    connected(fees=[Fee("BTC-USDT", -50, 400)])
    assert run(["account", "fees", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"instrument": "BTC-USDT", "maker_fee_ppm": -50, "taker_fee_ppm": 400}
    ]


def test_assets_are_created_and_listed(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(create_asset=Asset("USDT", 6), assets=[Asset("USDT", 6)])
    assert run(["admin", "asset", "create", "USDT", "--scale", "6", "--json"]) == 0
    assert client.asked[0][1] == ("USDT", 6)
    assert run(["admin", "asset", "list", "--json"]) == 0
    shown = capsys.readouterr().out
    assert shown.count('"symbol": "USDT"') == 2


# ---------------------------------------------------------------- moving money


@pytest.mark.parametrize("method", ["deposit", "withdraw"])
def test_money_comes_in_and_goes_out_under_a_reference(
    method: str, connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(**{method: EntryResult(DEPOSIT, duplicate=False)})
    assert run(["admin", method, "2", "USDT", "12.50", "--reference", "wire-17"]) == 0
    assert client.asked == [(method, (2, "USDT", "12.50"), {"reference": "wire-17"})]
    shown = capsys.readouterr().out
    assert "wire-17" in shown
    assert "duplicate" not in shown


def test_a_repeat_says_that_nothing_was_done(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(deposit=EntryResult(DEPOSIT, duplicate=True))
    words = ["admin", "deposit", "2", "USDT", "12.50", "--reference", "wire-17"]
    assert run(words) == 0
    assert "duplicate: the reference was known, nothing was done this time" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["duplicate"], shown["entry"]["reference"]) == (True, "wire-17")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], {"reference": None, "from_account_id": 0}),
        (["--reference", "rent", "--account", "2"], {"reference": "rent", "from_account_id": 2}),
    ],
)
def test_a_transfer_goes_from_the_keys_account_unless_another_is_named(
    words: list[str], asked: dict[str, object], connected: Callable[..., FakeClient]
) -> None:
    client = connected(transfer=EntryResult(DEPOSIT, duplicate=False))
    assert run(["account", "transfer", "3", "USDT", "12.50", *words]) == 0
    assert client.asked == [("transfer", (3, "USDT", "12.50"), asked)]


def test_a_transfer_that_is_not_covered_is_one_line_with_its_reason(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(
        transfer=InsufficientFunds(
            "FAILED_PRECONDITION: 3 USDT available (INSUFFICIENT_FUNDS)",
            reason=RejectReason.INSUFFICIENT_FUNDS,
            code=grpc.StatusCode.FAILED_PRECONDITION,
        )
    )
    assert run(["account", "transfer", "3", "USDT", "5"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error INSUFFICIENT_FUNDS: 3 USDT available\n"


# ---------------------------------------------------------------- following

FIRST = BalanceUpdate(
    (Balance("BTC", Decimal(1), Decimal(0), Decimal(1)), Balance("USDT", Decimal(50), Decimal(7), Decimal(57))),
    (),
    {"ledger": 8, "shard-0": 3},
)
ENTERED = BalanceChange(
    "ledger",
    9,
    "USDT",
    Decimal("12.50"),
    BalanceChangeReason.DEPOSIT,
    1_430_438_404_518_000_000,
    entry_id=4,
    reference="wire-17",
)
PAID = BalanceChange(
    "shard-0",
    5,
    "USDT",
    Decimal("-0.30"),
    BalanceChangeReason.FEE,
    1_430_438_404_518_000_000,
    instrument="BTC-USDT",
    trade_id=2,
)
SECOND = BalanceUpdate((), (ENTERED, PAID), {"ledger": 9, "shard-0": 5})


def test_followed_balances_are_a_line_each_and_then_a_line_for_each_change(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(stream_balances=Stream(FIRST, SECOND))
    assert run(["account", "follow"]) == 0
    assert client.asked[0][1] == (0, {})
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "BTC 1 0 1",
        "USDT 50 7 57",
        "2015-05-01 00:00:04.518 DEPOSIT USDT 12.50 wire-17",
        "2015-05-01 00:00:04.518 FEE USDT -0.30 BTC-USDT 2",
    ]


def test_followed_balances_are_a_line_of_json_for_each_update(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(stream_balances=Stream(FIRST, SECOND))
    after = ["--after", "ledger=7", "--after", "shard-0=2"]
    assert run(["account", "follow", "--json", "--account", "2", *after]) == 0
    assert client.asked[0][1] == (2, {"ledger": 7, "shard-0": 2})
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["sequences"]["ledger"], first["balances"][0]["available"]) == (8, "1")
    assert (second["sequences"]["shard-0"], second["changes"][0]["reference"]) == (5, "wire-17")
    assert second["changes"][1]["reason"] == "FEE"


@pytest.mark.parametrize("after", ["7", "ledger", "=7", "ledger=x"])
def test_a_place_to_go_on_from_that_names_none_is_wrong_usage(
    after: str, connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected()
    assert run(["account", "follow", "--after", after]) == 2
    assert "expected ledger=SEQUENCE or SHARD=SEQUENCE" in capsys.readouterr().err


def test_a_gap_ends_following_with_one_line(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(stream_balances=Stream(GapDetected("StreamBalances: OUT_OF_RANGE: not held")))
    assert run(["account", "follow", "--after", "ledger=1"]) == 1
    assert capsys.readouterr().err == "error GAP_DETECTED: StreamBalances: OUT_OF_RANGE: not held\n"


def test_executions_are_a_line_each_and_trades_show_their_fee(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    trade = Execution(
        shard="shard-0",
        sequence=9,
        type=ExecutionType.TRADE,
        instrument="BTC-USDT",
        client_order_id="first",
        order_id=5,
        side=Side.SELL,
        status=OrderStatus.OPEN,
        price=Decimal("60000.10"),
        quantity=Decimal("0.5"),
        filled_quantity=Decimal("0.2"),
        open_quantity=Decimal("0.3"),
        close_reason=CloseReason.UNSPECIFIED,
        trade_id=3,
        trade_price=Decimal("60000.10"),
        trade_quantity=Decimal("0.2"),
        liquidity=Liquidity.MAKER,
        time_ns=1_430_438_404_518_000_000,
        fee=Decimal("-2.40"),
        fee_asset="USDT",
    )
    connected(stream_executions=Stream(trade))
    assert run(["orders", "executions"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.endswith("TRADE BTC-USDT first SELL OPEN 60000.10 0.2 -2.40 USDT MAKER 0.3")


# ---------------------------------------------------------------- keys that end


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", NOW + timedelta(days=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("90m", NOW + timedelta(minutes=90)),
        ("2w", NOW + timedelta(weeks=2)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:30", datetime(2027, 1, 31, 12, 30, tzinfo=UTC)),
        ("2027-01-31T12:30+02:00", datetime(2027, 1, 31, 10, 30, tzinfo=UTC)),
    ],
)
def test_an_end_is_a_date_or_a_duration(text: str, moment: datetime) -> None:
    assert parse_expiry(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "soon", "999999999w", "0d", "2026-11-24", "2027-13-01"])
def test_an_end_that_is_none_or_is_past_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--expires: expected"):
        parse_expiry(text, NOW)


def test_a_key_is_made_with_its_end_and_its_addresses(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    moment = datetime(2999, 1, 31, tzinfo=UTC)
    api_key = ApiKey("k1", 2, (Permission.READ,), 0, False, int(moment.timestamp()) * 10**9, ("192.0.2.7",))
    client = connected(create_api_key=NewApiKey(api_key, "ek_k1_secret"), list_api_keys=[api_key])
    words = ["admin", "key", "create", "2", "--expires", "2999-01-31", "--allow-ip", "192.0.2.7"]
    assert run([*words, "--allow-ip", "10.0.0.0/8"]) == 0
    assert client.asked[0][2] == {"expire_time": moment, "allowed_ips": ["192.0.2.7", "10.0.0.0/8"]}
    assert run(["admin", "key", "create", "2"]) == 0
    assert client.asked[1][2] == {"expire_time": None, "allowed_ips": ()}
    assert run(["admin", "key", "list"]) == 0
    shown = capsys.readouterr().out
    assert "2999-01-31" in shown
    assert "192.0.2.7" in shown
