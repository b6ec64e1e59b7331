"""What the commands ask of an exchange, and how they show its answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace

import grpc
import pytest

from exchange.cli import run, status
from exchange.client import (
    Account,
    ApiKey,
    CloseReason,
    NewApiKey,
    OrderResult,
    OrderStatus,
    OrderType,
    Outcome,
    Permission,
    RejectReason,
    Side,
    Stage,
    TimeInForce,
    Trade,
    Unavailable,
)
from tests.cli.fake_client import FakeClient, Stream


def result(**fields: object) -> OrderResult:
    values: dict[str, object] = {
        "outcome": Outcome.ACKNOWLEDGED,
        "instrument": "BTC-USDT",
        "client_order_id": "first",
        "order_id": 7,
        "status": OrderStatus.OPEN,
        "filled_quantity": Decimal("0.0000"),
        "open_quantity": Decimal("0.5000"),
        "reject_reason": RejectReason.UNSPECIFIED,
        "close_reason": CloseReason.UNSPECIFIED,
        "sequence": 7,
        "duplicate": False,
        "cancelled_orders": 0,
        "retry_after": None,
    }
    return OrderResult(**{**values, **fields})  # type: ignore[arg-type]  # built by name


REJECTED = result(
    outcome=Outcome.REJECTED, status=OrderStatus.REJECTED, reject_reason=RejectReason.CLIENT_ORDER_ID_REUSED
)

# ---------------------------------------------------------------- errors


def test_a_failed_call_ends_with_1_and_no_traceback(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(order_book=Unavailable("UNAVAILABLE: gone", code=grpc.StatusCode.UNAVAILABLE))
    assert run(["book", "BTC-USDT"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error UNAVAILABLE: gone")
    assert shown.err.count("\n") == 1


def test_ctrl_c_ends_with_130(connected: Callable[..., FakeClient], monkeypatch: pytest.MonkeyPatch) -> None:
    connected()

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "connect", interrupted)
    assert run(["status"]) == 130


# ---------------------------------------------------------------- what is asked and shown


def test_an_order_is_placed_as_the_words_say(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(place_order=result())
    assert (
        run(["orders", "place", "BTC-USDT", "buy", "0.5", "60000.10", "--tif", "gtc", "--id", "first", "--json"]) == 0
    )
    ((name, args, kwargs),) = client.asked
    assert (name, args) == ("place_order", ("BTC-USDT", Side.BUY, "0.5", "60000.10"))
    assert (kwargs["order_type"], kwargs["time_in_force"]) == (OrderType.LIMIT, TimeInForce.GTC)
    assert kwargs["client_order_id"] == "first"
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["outcome"], shown["open_quantity"], shown["order_id"]) == ("ACKNOWLEDGED", "0.5000", 7)


def test_an_order_without_a_price_is_a_market_order(connected: Callable[..., FakeClient]) -> None:
    client = connected(place_order=result(status=OrderStatus.FILLED))
    assert run(["orders", "place", "BTC-USDT", "sell", "0.5"]) == 0
    assert client.asked[0][1] == ("BTC-USDT", Side.SELL, "0.5", None)
    assert client.asked[0][2]["order_type"] == OrderType.MARKET


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (["place", "BTC-USDT", "buy", "1", "5"], "place_order"),
        (["amend", "BTC-USDT", "first", "--price", "6"], "amend_order"),
        (["cancel", "BTC-USDT", "first"], "cancel_order"),
    ],
)
def test_a_rejected_command_shows_its_whole_reason_and_ends_with_1(
    words: list[str], method: str, connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(**{method: REJECTED})
    assert run(["orders", *words]) == 1
    assert "CLIENT_ORDER_ID_REUSED" in capsys.readouterr().out


def test_a_table_in_a_pipe_cuts_nothing_off(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    accounts = [Account(number, "a" * 60 + str(number), 1_430_438_404_518_000_000) for number in (1, 2)]
    connected(list_accounts=iter(accounts))
    assert run(["admin", "account", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(account.name in shown for account in accounts)
    assert "2015-05-01 00:00:04.518" in shown


def test_orders_are_listed_open_ones_only_unless_all_are_wanted(connected: Callable[..., FakeClient]) -> None:
    for words, closed in ((["list"], False), (["list", "--all"], True), (["list", "--closed"], True)):
        client = connected(list_orders=iter([]))
        assert run(["orders", *words]) == 0
        assert client.asked[0][2]["include_closed"] is closed


def test_a_key_is_printed_alone_so_that_a_shell_can_take_it(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    api_key = ApiKey("k1", 2, (Permission.READ, Permission.TRADE), 0, False)
    client = connected(create_api_key=NewApiKey(api_key, "ek_k1_secret"))
    assert run(["admin", "key", "create", "2"]) == 0
    assert capsys.readouterr().out == "ek_k1_secret\n"
    assert client.asked[0][1] == (2, [Permission.READ, Permission.TRADE])
    assert run(["admin", "key", "create", "2", "-p", "read", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["key"], shown["permissions"]) == ("ek_k1_secret", ["READ", "TRADE"])


def test_a_stage_is_held_and_told_as_json(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(hold_stage=["shard-0", "shard-1"])
    assert run(["stage", "hold", "cancel_only", "--all", "--reason", "drill", "--json"]) == 0
    where = {"instrument": "", "shard": "", "orders_per_s": 0, "reason": "drill"}
    assert client.asked[0][1:] == ((Stage.CANCEL_ONLY,), where)
    assert json.loads(capsys.readouterr().out) == {"stage": "CANCEL_ONLY", "names": ["shard-0", "shard-1"]}


def test_a_market_is_halted_and_resumed(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(hold_stage=["BTC-USDT"], resume=["BTC-USDT"])
    assert run(["halt", "-i", "BTC-USDT", "--reason", "wrong tick size"]) == 0
    assert run(["resume", "-i", "BTC-USDT", "--reason", "right again", "--at-once"]) == 0
    held, resumed = client.asked
    assert held[1:] == ((Stage.HALTED,), {"instrument": "BTC-USDT", "shard": "", "reason": "wrong tick size"})
    assert resumed[2] == {"instrument": "BTC-USDT", "shard": "", "reason": "right again", "at_once": True}
    assert capsys.readouterr().out == "HALTED: BTC-USDT\nRESUMED: BTC-USDT\n"


def level(price: str, quantity: str) -> SimpleNamespace:
    return SimpleNamespace(price=Decimal(price), quantity=Decimal(quantity))


def book(sequence: int = 9) -> SimpleNamespace:
    return SimpleNamespace(
        instrument=SimpleNamespace(symbol="BTC-USDT"),
        sequence=sequence,
        bids=[level("100.00", "0.5"), level("99.00", "1.0")],
        asks=[level("101.00", "1E+1")],
    )


def test_a_book_is_shown_to_its_depth(connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]) -> None:
    connected(order_book=book())
    assert run(["book", "BTC-USDT", "--depth", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "instrument": "BTC-USDT",
        "sequence": 9,
        "bids": [["100.00", "0.5"]],
        "asks": [["101.00", "10"]],
    }
    assert run(["book", "BTC-USDT"]) == 0
    assert "99.00" in capsys.readouterr().out


@pytest.mark.parametrize(("depth", "asked"), [("1", 1), ("5", 5), ("10", 50), ("51", 0), ("0", 0)])
def test_a_followed_book_is_a_line_of_json_for_each_change(
    depth: str, asked: int, connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(stream_order_book=Stream(book(9), book(10)))
    assert run(["book", "BTC-USDT", "--follow", "--json", "--depth", depth]) == 0
    assert client.asked[0][1] == ("BTC-USDT", asked)
    assert [json.loads(line)["sequence"] for line in capsys.readouterr().out.splitlines()] == [9, 10]


def test_followed_trades_begin_with_the_last_ones(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        Trade("BTC-USDT", number, Decimal("100.10"), Decimal("0.5"), Side.BUY, number, 0) for number in (1, 2)
    )
    connected(trades=[first], stream_trades=Stream(second))
    assert run(["trades", "BTC-USDT", "--follow", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["trade_id"], line["price"], line["taker_side"]) for line in lines] == [
        (1, "100.10", "BUY"),
        (2, "100.10", "BUY"),
    ]
