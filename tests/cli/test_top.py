"""`exchange top`: what is on the screen at any size, and that it goes on while nobody answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from exchange.cli import run
from exchange.cli.top import RECONNECT_AFTER_S, Top
from exchange.cli.top_view import Look, Screen
from exchange.client import (
    ClassLoad,
    Component,
    ComponentState,
    EvenkeelError,
    Event,
    ExchangeStatus,
    GatewayLoad,
    LinkLoad,
    MachineLoad,
    Role,
    RolloutState,
    Stage,
)
from tests.cli.fake_client import FakeClient

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS


def component(name: str, **fields: Any) -> Component:
    plain = Component(
        name=name,
        state=ComponentState.UP,
        incarnation=3,
        pid=1,
        epoch=2,
        sequence=10,
        state_hash="",
        state_hash_sequence=0,
        stage=Stage.UNSPECIFIED,
        instruments=(),
        open_orders=0,
        address="",
        detail="",
        restarts=0,
        start_duration_ms=0,
        role=Role.UNSPECIFIED,
        node="node-1",
        record=100,
    )
    return replace(plain, **fields)


LOAD = MachineLoad(
    (ClassLoad("cancels", 0.4, 0, {}), ClassLoad("orders", 48.2, 3, {})), 1234.0, 25_000.0, 0.43, 1, 1, 0, 0, 2.5
)


def gateway(commands: int, shed: int) -> Component:
    classes = (ClassLoad("orders", 512.0, 40, {"queue": shed}), ClassLoad("cancels", 3.0, 2, {}))
    links = (LinkLoad("shard-0", classes, 64, 0.0), LinkLoad("ledger", (), 32, 0.0))
    return component("gateway-0", address="127.0.0.1:7700", gateway_load=GatewayLoad(1, commands, 0, links))


def status(*more: Component, commands: int = 0, shed: int = 0, **fields: Any) -> ExchangeStatus:
    shard = component(
        "shard-0",
        stage=Stage.LIMITED,
        instruments=("BTC-USDT",),
        next_stage_time_ns=NOW_NS + 3 * SECOND_NS,
        machine_load=LOAD,
    )
    parts = (shard, component("shard-0-standby", record=60), gateway(commands, shed), *more)
    return replace(ExchangeStatus(parts, "0.1.0", NOW_NS, settings_version=3), **fields)


EVENTS = tuple(
    Event(n, NOW_NS + n * SECOND_NS, "lost", "shard-0", 1, 1, "node-1", f"event {n} " + 90 * "x") for n in range(40)
)


def shown(screen: Screen, width: int, height: int = 30) -> list[str]:
    console = Console(width=width, height=height, force_terminal=False)
    with console.capture() as captured:
        console.print(screen)
    return captured.get().splitlines()


def screen(**fields: Any) -> Screen:
    before = Look(10.0, status(), (), ())
    now = Look(12.0, status(commands=2_000, shed=40, **fields), EVENTS, ())
    return Screen("127.0.0.1:7700", before, now)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("height", [24, 50])
def test_it_fits_any_terminal_and_the_newest_events_have_what_is_left(width: int, height: int) -> None:
    lines = shown(screen(), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "event 39" in lines[-1]
    events = sum("event" in line for line in lines)
    assert events >= (12 if height == 24 else 35)


def test_at_80_columns_there_are_stage_rate_delays_and_lags_of_each_machine_and_gateway() -> None:
    lines = shown(screen(), 80)
    (machine,) = [line.split() for line in lines if line.startswith("shard-0 ")]
    assert machine == ["shard-0", "LIMITED", "3", "s", "2", "1,234", "43%", "0.4", "ms", "48", "ms", "2.5", "ms", "-40"]
    (row,) = [line.split() for line in lines if line.startswith("gateway-0 ")]
    assert row == ["gateway-0", "UP", "1,000", "0", "20", "42", "3.0", "ms", "512", "ms", "64"]
    assert "settings 3" in lines[0]
    assert "3/3 up" in lines[0]


def test_what_is_wrong_stands_in_the_first_line_and_in_place_of_a_stage() -> None:
    down = component("shard-1", state=ComponentState.PARKED, machine_load=LOAD)
    before = Look(10.0, status(), (), ())
    now = Look(12.0, status(down, audit_breaks=2, rollout_state=RolloutState.REVERTED), (), ())
    lines = shown(Screen("there", before, now), 120)
    assert "the newest taken back" in lines[0]
    assert "3/4 up" in lines[0]
    assert "2 BREAKS IN THE BOOKS" in lines[0]
    assert any(line.split()[:2] == ["shard-1", "PARKED"] for line in lines)


def test_many_instruments_leave_room_for_events() -> None:
    many = tuple(f"COIN{n}-USDT" for n in range(30))
    shard = component("shard-1", stage=Stage.OPEN, instruments=many, machine_load=LOAD)
    now = Look(12.0, status(shard), EVENTS, ())
    lines = shown(Screen("there", None, now), 80, 24)
    assert len(lines) <= 24
    assert any(line.startswith("and ") and line.endswith(" more") for line in lines)
    assert sum("event" in line for line in lines) >= 3


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Answering(FakeClient):
    address = "127.0.0.1:7700"

    def __init__(self) -> None:
        no_copy = EvenkeelError("UNAVAILABLE: no copy of shard-0 yet")
        super().__init__(status=status(), events=EVENTS, ticker=no_copy, close=None)

    def fail(self, error: Exception | None) -> None:
        self._answers["status"] = error or status()


def test_it_goes_on_when_nobody_answers_says_so_and_connects_anew() -> None:
    clock, clients, asked = Clock(), [], []

    def connect(known: list[str]) -> Any:
        asked.append(known)
        clients.append(Answering())
        return clients[-1]

    top = Top(connect, monotonic_s=clock)
    assert top.look().trouble == ""
    clients[0].fail(EvenkeelError("UNAVAILABLE: connection refused"))
    clock.now_s = 2.0
    screen = top.look()
    assert screen.trouble == "no answer for 2 s, trying again: UNAVAILABLE: connection refused"
    assert screen.now is not None
    assert screen.trouble in shown(screen, 120)[1]
    clock.now_s = RECONNECT_AFTER_S + 0.1
    top.look()
    assert ("close", (), {}) in clients[0].asked
    assert top.look().trouble == ""
    assert asked == [[], ["127.0.0.1:7700"]]


def test_once_prints_plain_values_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("exchange.cli.app.connect", lambda *_: Answering())
    assert run(["top", "--once", "--json", "--interval", "0.1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["now"]["status"]["components"][0]["stage"] == "LIMITED"
    assert run(["top", "--once", "--interval", "0.1"]) == 0
    assert "shard-0" in capsys.readouterr().out


def test_once_fails_if_nobody_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    client = Answering()
    client.fail(EvenkeelError("UNAVAILABLE: connection refused"))
    monkeypatch.setattr("exchange.cli.app.connect", lambda *_: client)
    assert run(["top", "--once"]) == 1
    assert "error NO_ANSWER" in capsys.readouterr().err
