"""The command line before it talks to anyone: help, wrong usage, errors, and which exchange is meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import typer
from typer.testing import CliRunner

from exchange import __version__
from exchange.cli import app as commands
from exchange.cli import run
from exchange.cli.app import app
from exchange.cli.connection import find_address, find_key
from exchange.cli.errors import CommandFailed, describe
from exchange.client import InsufficientFunds, OutcomeUnknown, RejectReason, Unauthenticated, Unavailable
from exchange.compiled import described
from exchange.engine import shard

LEAVES = [
    ["up"],
    ["demo"],
    ["status"],
    ["audit"],
    ["instruments"],
    ["book"],
    ["trades"],
    ["replay"],
    ["bench"],
    *(["orders", name] for name in ("list", "executions", "place", "amend", "cancel", "cancel-all")),
    *(["account", name] for name in ("balances", "entries", "fees", "transfer", "follow")),
    *(["admin", "instrument", name] for name in ("create", "list")),
    *(["admin", "asset", name] for name in ("create", "list")),
    *(["admin", "account", name] for name in ("create", "list")),
    *(["admin", "key", name] for name in ("create", "list", "revoke")),
    ["admin", "deposit"],
    ["admin", "withdraw"],
    ["halt"],
    ["resume"],
    *(["stage", name] for name in ("show", "hold", "skip")),
    ["status", "show"],
    ["status", "letters", "list"],
]
ACTIONS = [
    *(["status", "incident", name] for name in ("update", "correct", "draft", "publish")),
    *(["status", "maintenance", name] for name in ("schedule", "reschedule", "cancel")),
    *(["status", "notice", name] for name in ("put", "remove")),
    ["status", "letters", "resend"],
]


# ---------------------------------------------------------------- help and usage


@pytest.mark.parametrize("words", [*LEAVES, *ACTIONS], ids=" ".join)
def test_every_command_explains_itself(words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


@pytest.mark.parametrize("words", [w for w in LEAVES if w not in (["up"], ["demo"])], ids=" ".join)
def test_every_command_that_asks_has_json_for_programs(words: list[str]) -> None:
    assert "--json" in CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output


def test_the_version_comes_with_how_the_engine_runs() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.output == f"evenkeel {__version__}, engine {described(shard)}\n"


def test_the_help_shows_how_to_begin() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for line in ("exchange up", "exchange admin instrument create BTC-USDT", "exchange orders place BTC-USDT buy"):
        assert line in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "usage: No such command 'fly'"),
        (["orders", "place"], "usage: Missing argument"),
        (["book", "BTC-USDT", "--depth", "many"], "usage: Invalid value for '--depth'"),
        (["book", "BTC-USDT", "--depth", "-1"], "expected at least 0, was -1"),
        (["orders", "place", "BTC-USDT", "hold", "1"], "expected buy or sell, was 'hold'"),
        (["orders", "place", "BTC-USDT", "buy", "1", "5", "--tif", "DAY"], "GTC, IOC, FOK, GTD, was 'DAY'"),
        (["stage", "hold", "FLY", "--all", "--reason", "x"], "was 'FLY'"),
        (["stage", "hold", "POST_ONLY", "--reason", "x"], "expected one of --instrument, --shard and --all"),
        (["halt", "-i", "BTC-USDT"], "Missing option '--reason'"),
        (["halt", "-i", "BTC-USDT", "--all", "--reason", "x"], "expected one of --instrument, --shard and --all"),
        (["admin", "key", "create", "2", "-p", "FLY"], "was 'FLY'"),
        (["admin", "key", "create", "2", "--expires", "soon"], "such as 12h or 30d, was 'soon'"),
        (["admin", "key", "create", "2", "--expires", "2020-01-31"], "was '2020-01-31'"),
        (["admin", "asset", "create", "USDT", "--scale", "19"], "Invalid value for '--scale'"),
        (["admin", "deposit", "2", "USDT", "5"], "Missing option '--reference'"),
        (["admin", "withdraw", "2", "USDT", "5"], "Missing option '--reference'"),
        (["account", "transfer", "bob", "USDT", "5"], "usage: Invalid value for"),
        (["replay", "flow.csv"], "expected one of --engine and --exchange HOST:PORT"),
        (["replay", "flow.csv", "--engine", "--exchange", "127.0.0.1:1"], "expected one of --engine"),
        (["replay", "flow.csv", "--engine", "--format", "fix"], "expected one of flow, bitstamp, lobster, was 'fix'"),
        (["replay", "flow.csv", "--engine", "--speed", "-1"], "expected a number of at least 0, was -1"),
        (["replay", "flow.csv", "--engine", "--speed", "nan"], "expected a number of at least 0, was nan"),
        (["replay", "flow.csv", "--engine", "--instrument", "no"], "expected 3 to 32 of A-Z, 0-9 and -, was 'no'"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: ")
    assert shown.err.endswith("--help`)\n")
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["orders"]) == 2
    shown = capsys.readouterr()
    assert "cancel-all" in shown.out + shown.err
    assert "error" not in shown.err


def test_help_loads_neither_ray_nor_the_engine() -> None:
    code = (
        "import sys; from exchange.cli import run; code = run(['--help']);"
        "loaded = [m for m in ('ray', 'exchange.engine', 'exchange.cluster') if m in sys.modules];"
        "sys.exit(f'loaded: {loaded}' if loaded or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CommandFailed("NO_TIMES", "no times"), "error NO_TIMES: no times"),
        (ValueError("two\nlines"), "error VALUE_ERROR: two lines"),
        (
            Unavailable("UNAVAILABLE: failed to connect", code=grpc.StatusCode.UNAVAILABLE),
            "error UNAVAILABLE: failed to connect (is an exchange running there? `exchange up` starts one)",
        ),
        (
            Unavailable("UNAVAILABLE: away (SHARD_UNAVAILABLE)", reason=RejectReason.SHARD_UNAVAILABLE),
            "error SHARD_UNAVAILABLE: UNAVAILABLE: away",
        ),
        (
            InsufficientFunds(
                "FAILED_PRECONDITION: expected 5 USDT, has 3 (INSUFFICIENT_FUNDS)",
                reason=RejectReason.INSUFFICIENT_FUNDS,
                code=grpc.StatusCode.FAILED_PRECONDITION,
            ),
            "error INSUFFICIENT_FUNDS: expected 5 USDT, has 3",
        ),
        (
            Unauthenticated(
                "UNAUTHENTICATED: it ended (KEY_EXPIRED)",
                reason_name="KEY_EXPIRED",
                code=grpc.StatusCode.UNAUTHENTICATED,
            ),
            "error KEY_EXPIRED: it ended (`exchange admin key create ACCOUNT` makes a new one)",
        ),
        (
            OutcomeUnknown("Deposit 'r-1': may or may not have been executed", reference="r-1"),
            "error OUTCOME_UNKNOWN: Deposit 'r-1': may or may not have been executed"
            " (`--reference r-1` sends it again, and it happens once)",
        ),
        (
            grpc.aio.AioRpcError(
                grpc.StatusCode.PERMISSION_DENIED, grpc.aio.Metadata(), grpc.aio.Metadata(), "lacks OPERATOR"
            ),
            "error PERMISSION_DENIED: lacks OPERATOR",
        ),
    ],
)
def test_an_error_is_one_line_with_a_code(error: Exception, line: str) -> None:
    assert describe(error) == (line, 1)


def test_a_command_ends_with_the_code_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise typer.Exit(3)

    other = typer.Typer()
    other.command()(fail)
    monkeypatch.setattr(commands, "app", other)
    assert run([]) == 3


def test_a_replay_that_cannot_be_read_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flow.csv"
    path.write_text("seq,cmd,id,side,price,qty,tif\n1,NEW,1,B,ten,1,GTC\n")
    assert run(["replay", str(path), "--engine"]) == 1
    assert capsys.readouterr().err == (
        f"error RECORDING_INVALID: {path}:2: expected price as a whole number of at least 1, was 'ten'\n"
    )


def test_a_flow_without_times_cannot_be_paced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flow.csv"
    path.write_text("seq,cmd,id,side,price,qty,tif\n")
    assert run(["replay", str(path), "--engine", "--speed", "2"]) == 1
    assert "error NO_TIMES" in capsys.readouterr().err


def test_a_replay_through_an_exchange_asks_for_a_key_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENKEEL_API_KEY", raising=False)
    path = tmp_path / "flow.csv"
    path.write_text("seq,cmd,id,side,price,qty,tif\n")
    assert run(["replay", str(path), "--exchange", "127.0.0.1:1", "--data", str(tmp_path)]) == 1
    assert "error NO_KEY: expected an operator's key" in capsys.readouterr().err


# ---------------------------------------------------------------- which exchange


def test_a_local_exchange_is_found_by_its_data_directory(tmp_path: Path) -> None:
    (tmp_path / "operator.key").write_text("ek_secret\n")
    (tmp_path / "address").write_text("127.0.0.1:7701\n")
    assert find_address("", tmp_path) == ["127.0.0.1:7701"]
    assert find_key("", tmp_path) == "ek_secret"


def test_what_is_given_goes_before_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "operator.key").write_text("ek_secret\n")
    (tmp_path / "address").write_text("127.0.0.1:7701\n")
    assert find_address("a:1, b:2", tmp_path) == ["a:1", "b:2"]
    assert find_key("ek_mine", tmp_path) == "ek_mine"


def test_without_anything_it_is_the_default_address_and_no_key(tmp_path: Path) -> None:
    assert find_address("", tmp_path) == ["127.0.0.1:7700"]
    assert find_key("", tmp_path) is None
