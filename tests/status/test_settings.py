"""The settings of the status service."""

from __future__ import annotations

from pathlib import Path

import pytest

from status.settings import SettingsInvalid, parse_settings, read_settings


def test_without_a_file_the_defaults_hold() -> None:
    assert read_settings(None) == parse_settings("")


def test_relative_places_start_from_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "status.toml").write_text('data_dir = "data"\n[exchange]\nprobe_key_file = "/etc/key"\n')
    settings = read_settings(tmp_path / "status.toml")
    assert settings.data_path == tmp_path / "data"
    assert settings.key_path(settings.exchange.probe_key_file) == Path("/etc/key")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[probing]\ninterval_ms = 50", "probing.interval_ms"),
        ("[probing]\nintervall_ms = 500", "intervall_ms"),
        ("[exchange]\naddresses = []", "exchange.addresses"),
        ("probing = 3", "probing"),
        ("[probing", "TOML"),
    ],
)
def test_what_is_wrong_is_named(toml: str, said: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"expected|Expected|Object") as found:
        parse_settings(toml)
    assert said in str(found.value)
    assert found.value.code == "STATUS_SETTINGS_INVALID"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"none\.toml"):
        read_settings(tmp_path / "none.toml")
