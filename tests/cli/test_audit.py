"""`exchange audit`: what it shows, and the exit code that says whether the books balance."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import grpc
import pytest

from exchange.cli import run
from exchange.client import Audit, AuditBreak, AuditedAsset, AuditedMachine, Unavailable
from tests.cli.fake_client import FakeClient

USDT = AuditedAsset(
    "USDT",
    Decimal("30.00"),
    Decimal("10.00"),
    {"shard-0": Decimal("12.00"), "shard-1": Decimal("7.00")},
    Decimal(1),
    Decimal(0),
)
HOLD = AuditBreak(
    "I4",
    "HOLD",
    "USDT",
    (7,),
    ("shard-0",),
    "BTC-USDT",
    Decimal("1.00"),
    Decimal("1.05"),
    (AuditedMachine("shard-0", 41, 0),),
    ("OrderAccepted(...)",),
    "I4 HOLD shard-0 account 7 USDT BTC-USDT: expected 1.00, was 1.05",
)


def audit(*breaks: AuditBreak, unavailable: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> Audit:
    complete = not unavailable
    machines = (AuditedMachine("ledger", 9, 3), AuditedMachine("shard-0", 41, 5))
    return Audit(complete and not breaks, complete, unavailable, (USDT,), 3, 2, 1, machines, breaks, notes, 5)


def test_books_that_balance_end_with_0(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(audit=audit(notes=("shard-0: started over",)))
    assert run(["audit"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "USDT",
        "30.00",
        "19.00",
        "ledger 9",
        "3 accounts, 2 open orders, 1 trades",
        "started over",
        "BALANCED",
    ):
        assert part in " ".join(shown.split())


def test_a_break_ends_with_1_and_shows_its_evidence(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(audit=audit(HOLD))
    assert run(["audit"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "I4 HOLD shard-0 account 7 USDT BTC-USDT: expected 1.00, was 1.05 (at shard-0 41)" in shown
    assert "OrderAccepted(...)" in shown
    assert "BROKEN" in shown
    assert "BALANCED" not in shown


def test_an_audit_that_is_not_complete_does_not_say_that_the_books_balance(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(audit=audit(unavailable=("shard-1",)))
    assert run(["audit"]) == 3
    shown = capsys.readouterr().out
    assert "INCOMPLETE: shard-1" in shown
    assert "BALANCED" not in shown


def test_an_audit_that_fails_is_not_taken_for_a_break(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(audit=Unavailable("UNAVAILABLE: gone", code=grpc.StatusCode.UNAVAILABLE))
    assert run(["audit"]) == 3
    assert capsys.readouterr().err.startswith("error UNAVAILABLE: gone")


def test_programs_get_all_of_it(connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]) -> None:
    client = connected(audit=audit(HOLD))
    assert run(["audit", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["balanced"], shown["complete"]) == (False, True)
    assert shown["assets"][0]["escrow"] == {"shard-0": "12.00", "shard-1": "7.00"}
    assert shown["breaks"][0]["found"] == "1.05"
    ((name, _, kwargs),) = client.asked
    assert name == "audit"
    assert float(str(kwargs["timeout"])) >= 30
