from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from exchange.cli import maintenance, run
from exchange.client import (
    Event,
    ExchangeStatus,
    Maintenance,
    MaintenanceAction,
    MaintenanceKind,
    MaintenanceState,
    MaintenanceStatus,
    MaintenanceStep,
)
from tests.cli.fake_client import FakeClient


def ended(state: MaintenanceState, detail: str = "") -> Maintenance:
    step = MaintenanceStep(MaintenanceAction.HAND_OVER, "shard-0", state, 1_000_000_000, 3_500_000_000, detail)
    return Maintenance(MaintenanceKind.RESTART, "", "shard-0", state, (step,), 1, 2, detail)


@pytest.fixture
def client(connected: Callable[..., FakeClient], monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeClient]:
    def make(last: Maintenance) -> FakeClient:
        client = connected(
            status=ExchangeStatus((), "0", 0),
            start_maintenance=last,
            maintenance=MaintenanceStatus(last, ("node-1",)),
        )
        monkeypatch.setattr(maintenance, "connect", lambda *_: _Held(client))
        return client

    return make


class _Held:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    def __enter__(self) -> FakeClient:
        return self._client

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


def test_a_shard_is_restarted_and_its_steps_are_shown(
    client: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = client(ended(MaintenanceState.DONE))
    assert run(["maintenance", "restart", "--shard", "shard-0"]) == 0
    asked = next(row for row in fake.asked if row[0] == "start_maintenance")
    assert asked[1:] == ((MaintenanceKind.RESTART,), {"node": "", "shard": "shard-0", "force": False})
    shown = capsys.readouterr().out
    assert "shard-0: hand over DONE in 2.5 s" in shown
    assert "restart shard-0: DONE" in shown


def test_what_failed_ends_with_1_and_its_reason(
    client: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client(ended(MaintenanceState.FAILED, "stopped at shard-0: gone"))
    assert run(["maintenance", "restart", "--all", "--force", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["state"] == "FAILED"
    assert shown.err == "error MAINTENANCE_FAILED: stopped at shard-0: gone\n"


@pytest.mark.parametrize("words", [[], ["--all", "--node", "node-1"]])
def test_one_thing_is_restarted_at_a_time(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["maintenance", "restart", *words]) == 2
    assert "expected one of --node, --shard and --all" in capsys.readouterr().err


def test_the_drained_nodes_are_shown(client: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]) -> None:
    client(ended(MaintenanceState.UNFINISHED))
    assert run(["maintenance", "show"]) == 0
    assert "drained: node-1" in capsys.readouterr().out


def test_events_are_shown_oldest_first_and_the_newest_so_many(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(events=tuple(Event(n, n, "lost", "shard-0", n, 1, "node-1", "gone") for n in range(1, 4)))
    assert run(["events", "--limit", "2", "--json"]) == 0
    assert [event["sequence"] for event in json.loads(capsys.readouterr().out)] == [2, 3]
