from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exchange.cli import run
from exchange.client import RolloutState, SettingChange, SettingsStatus, SettingsVersion
from tests.cli.fake_client import FakeClient

STEPS = (("gateway-0",), ("gateway-0", "gateway-1"))
CHANGES = (SettingChange("codel.target_ms", "25", "20"),)
HELD = SettingsVersion(1, 'profile = "staged"\n', "", "first start", RolloutState.APPLIED, (), 0, 1, 1, "", ())
ROLLING = SettingsVersion(2, "", "k1", "calmer", RolloutState.ROLLING, STEPS, 1, 2, 0, "", CHANGES)
APPLIED = replace(ROLLING, state=RolloutState.APPLIED, steps_begun=2, end_time_ns=3)
REVERTED = replace(ROLLING, state=RolloutState.REVERTED, end_time_ns=3, detail="p99 delay: expected at most 500 ms")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "settings.toml"
    path.write_text("[codel]\ntarget_ms = 20\n")
    return str(path)


def test_the_settings_that_hold_are_shown_as_apply_takes_them(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(settings=SettingsStatus(HELD, ROLLING))
    assert run(["config", "show", "--toml"]) == 0
    assert capsys.readouterr().out == HELD.toml
    assert run(["config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["newest"]["state"] == "ROLLING"


def test_a_difference_is_shown_with_the_steps_and_nothing_is_done(
    connected: Callable[..., FakeClient], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = connected(check_settings=ROLLING)
    assert run(["config", "diff", file]) == 0
    shown = capsys.readouterr().out
    assert "codel.target_ms" in shown
    assert "step 2: gateway-0, gateway-1" in shown
    assert [name for name, *_ in fake.asked] == ["check_settings"]


def test_apply_says_what_has_begun_and_does_not_wait(
    connected: Callable[..., FakeClient], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = connected(apply_settings=ROLLING)
    assert run(["config", "apply", file, "--reason", "calmer"]) == 0
    assert fake.asked == [("apply_settings", ("[codel]\ntarget_ms = 20\n",), {"reason": "calmer", "force": False})]
    assert capsys.readouterr().out == "version 2 ROLLING, step 1/2\n"


@pytest.mark.parametrize(("last", "code"), [(APPLIED, 0), (REVERTED, 1)])
def test_apply_that_waits_tells_the_steps_and_ends_with_what_became_of_it(
    connected: Callable[..., FakeClient],
    file: str,
    capsys: pytest.CaptureFixture[str],
    last: SettingsVersion,
    code: int,
) -> None:
    connected(apply_settings=ROLLING, settings_history=(HELD, last))
    assert run(["config", "apply", file, "--reason", "calmer", "--wait"]) == code
    shown = capsys.readouterr()
    assert shown.out.startswith("version 2: step 1/2: gateway-0\n")
    assert f"version 2 {last.state.name}" in shown.out
    assert shown.err == (f"error SETTINGS_REVERTED: {last.detail}\n" if code else "")


def test_a_revert_of_what_is_under_way_is_no_failure(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(revert_settings=REVERTED)
    assert run(["config", "revert", "--reason", "a mistake", "--wait"]) == 0
    assert "version 2 REVERTED" in capsys.readouterr().out


def test_the_history_is_listed_with_its_reasons(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected(settings_history=(HELD, REVERTED))
    assert run(["config", "history"]) == 0
    shown = capsys.readouterr().out
    for text in ("first start", "calmer", "REVERTED", "codel.target_ms 25 → 20", "k1"):
        assert text in shown


@pytest.mark.parametrize("words", [["config", "apply", "FILE"], ["config", "revert"]])
def test_a_change_needs_a_reason(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert "--reason" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(
    connected: Callable[..., FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    connected()
    assert run(["config", "diff", "/nowhere/settings.toml"]) == 1
    assert capsys.readouterr().err.startswith("error FILE_UNREADABLE: expected settings as TOML in /nowhere/")


def test_an_exchange_is_not_started_with_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[codel]\ntarget_ms = 0\n")
    assert run(["up", "--settings", str(path), "--data", str(tmp_path / "data")]) == 1
    assert "error SETTINGS_INVALID: codel.target_ms: expected a whole number from 1 to 1,000" in capsys.readouterr().err
