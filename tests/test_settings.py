"""Settings as text: what is wrong is refused by name, with the range, what was found, and the reason."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from exchange.settings import Recovery, Settings, SettingsInvalid
from exchange.settings_text import (
    Change,
    changes_between,
    format_settings,
    parse_settings,
    recover_settings,
)


def refused(toml: str) -> SettingsInvalid:
    with pytest.raises(SettingsInvalid) as caught:
        parse_settings(toml)
    return caught.value


def test_what_is_not_named_keeps_its_default_also_within_a_table() -> None:
    assert parse_settings("") == Settings()
    warm = parse_settings("[stages.warm]\nramp_ms = 0").stages.warm
    assert warm == msgspec.structs.replace(Settings().stages.warm, ramp_ms=0)
    assert isinstance(warm, Recovery)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            "[queues]\norders_wait_ms = 3",
            "queues.orders_wait_ms: expected a whole number from 10 to 5,000, was 3"
            " (less sheds what a short pause would have served, more than clients wait is in vain)",
        ),
        (
            "[rollout]\nrefused_max = 1.5",
            "rollout.refused_max: expected a number from 0 to 1, was 1.5"
            " (a share of what was asked, at most all of it)",
        ),
        ("profile = 'fast'", 'profile: expected one of "naive", "staged", was "fast"'),
        ("queues = 3", "queues: expected a table [queues], was 3"),
        ("[queues]\norder_wait_ms = 30", "queues.order_wait_ms: no such setting, the nearest is queues.orders_wait_ms"),
        ("[codel]\nspeed = 3", "codel.speed: no such setting, expected one of codel.target_ms, codel.interval_ms"),
        ("[codels]\ntarget_ms = 3", "codels: no such setting, the nearest is codel"),
        ("[codel]\ntarget_ms = 200", "codel.target_ms: expected at most codel.interval_ms, which is 100, was 200"),
    ],
)
def test_a_bad_value_is_refused_with_the_range_what_was_found_and_the_reason(toml: str, message: str) -> None:
    assert str(refused(toml)) == message


@pytest.mark.parametrize("value", ["true", "nan", "inf", "'3'", "[3]", "{ a = 3 }", "2024-01-01"])
def test_what_is_no_number_is_none(value: str) -> None:
    assert refused(f"[governor]\nutilisation_max = {value}").names == ("governor.utilisation_max",)
    assert refused(f"[codel]\ntarget_ms = {value}").names == ("codel.target_ms",)


def test_a_share_of_a_millisecond_is_no_whole_number() -> None:
    assert refused("[codel]\ntarget_ms = 2.5").names == ("codel.target_ms",)


def test_all_that_is_wrong_is_told_at_once() -> None:
    names = refused("[codel]\ntarget_ms = 0\n[queues]\nx = 1\n[stages.cold]\nramp_ms = -1").names
    assert names == ("codel.target_ms", "queues.x", "stages.cold.ramp_ms")


def test_what_is_no_toml_is_refused_with_the_place() -> None:
    assert "line 1" in str(refused("[queues\n"))


def test_every_range_has_two_ends_and_a_reason() -> None:
    for path in (change for section in format_settings(Settings()).split("\n\n") for change in _names(section)):
        for huge in ("-1e300", "1e300"):
            message = str(refused(_nested(path, huge)))
            if path == "profile":
                continue
            assert re.search(r"expected a .*number from [\d.,]+ to [\d.,]+, was .+ \(.+\)$", message), message


def _names(section: str) -> list[str]:
    lines = section.strip().splitlines()
    table = lines[0].strip("[]") + "." if lines[0].startswith("[") else ""
    return [table + line.partition(" =")[0] for line in lines if " = " in line]


def _nested(path: str, value: str) -> str:
    table, _, name = path.rpartition(".")
    return (f"[{table}]\n" if table else "") + f"{name} = {value}"


@effort(deadline=None, max_examples=30)
@given(st.integers(100, 5_000), st.floats(0.5, 1), st.sampled_from(["staged", "naive"]), st.integers(1, 100))
def test_settings_come_back_from_their_text(margin: int, goodput: float, profile: str, regresses: int) -> None:
    settings = parse_settings(
        f"profile = '{profile}'\n[queues]\norders_wait_ms = {margin}\n"
        f"[stages]\ngoodput_min = {goodput}\nregresses_max = {regresses}"
    )
    assert parse_settings(format_settings(settings)) == settings
    assert recover_settings(format_settings(settings)) == (settings, "")


def test_changes_are_named_with_both_values() -> None:
    after = parse_settings("profile = 'naive'\n[credits]\nstart = 2_000")
    assert changes_between(Settings(), after) == [
        Change("profile", '"staged"', '"naive"'),
        Change("credits.start", "64", "2,000"),
    ]
    assert changes_between(after, after) == []


def test_what_another_version_took_and_this_one_does_not_has_its_default_and_is_told() -> None:
    old = "[codel]\ntarget_ms = 90\ninterval_ms = 0\ngone = 3\n[queues]\norders_wait_ms = 70"
    settings, wrong = recover_settings(old)
    assert (settings.codel.target_ms, settings.codel.interval_ms, settings.queues.orders_wait_ms) == (90, 100, 70)
    assert "codel.interval_ms" in wrong
    assert "codel.gone" in wrong


def test_a_rule_that_an_old_value_breaks_with_a_default_is_mended_too() -> None:
    settings, wrong = recover_settings("[codel]\ninterval_ms = 10\n[credits]\nstart = 7")
    assert (settings.codel, settings.credits.start) == (Settings().codel, 7)
    assert "codel.target_ms" in wrong
