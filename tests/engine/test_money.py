"""Amounts: what is read, what is refused, and that nothing is lost between text and units."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.engine.money import AMOUNT_MAX, SCALE_MAX, AmountFault, AmountInvalid, format_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "scale", "units"),
    [
        ("1", 0, 1),
        ("1", 2, 100),
        ("0.01", 2, 1),
        ("12.50", 2, 1_250),
        ("12.5000", 2, 1_250),
        ("007", 0, 7),
        ("999999999999.999999999999999999", 18, AMOUNT_MAX),
    ],
)
def test_an_amount_is_read(text: str, scale: int, units: int) -> None:
    assert parse_amount(text, scale) == units


@pytest.mark.parametrize(
    ("text", "scale", "fault"),
    [
        ("", 2, AmountFault.INVALID),
        ("0", 2, AmountFault.INVALID),
        ("0.00", 2, AmountFault.INVALID),
        ("-1", 2, AmountFault.INVALID),
        ("+1", 2, AmountFault.INVALID),
        ("1e3", 2, AmountFault.INVALID),
        ("1,5", 2, AmountFault.INVALID),
        (".5", 2, AmountFault.INVALID),
        ("5.", 2, AmountFault.INVALID),
        (" 1", 2, AmountFault.INVALID),
        ("1\n", 2, AmountFault.INVALID),
        ("١", 2, AmountFault.INVALID),
        ("NaN", 2, AmountFault.INVALID),
        ("9" * 1_000, 2, AmountFault.INVALID),
        ("0.001", 2, AmountFault.TOO_PRECISE),
        ("1.5", 0, AmountFault.TOO_PRECISE),
        ("1000000000000", 18, AmountFault.TOO_LARGE),
        ("9" * 31, 0, AmountFault.TOO_LARGE),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, scale: int, fault: AmountFault) -> None:
    with pytest.raises(AmountInvalid) as caught:
        parse_amount(text, scale)
    assert caught.value.fault == fault


@given(st.integers(1, AMOUNT_MAX), st.integers(0, SCALE_MAX))
def test_text_and_units_say_the_same(units: int, scale: int) -> None:
    text = format_amount(units, scale)
    assert parse_amount(text, scale) == units
    assert Fraction(text) * 10**scale == units
    assert format_amount(-units, scale) == f"-{text}"


def test_zero_has_all_its_digits() -> None:
    assert format_amount(0, 0) == "0"
    assert format_amount(0, 3) == "0.000"


def test_a_fault_says_what_was_expected() -> None:
    with pytest.raises(AmountInvalid, match=r"at most 9{28}\.99, was '1{31}'"):
        parse_amount("1" * 31, 2)
    with pytest.raises(AmountInvalid, match=r"at most 2 digits after the point, was '0\.001'"):
        parse_amount("0.001", 2)
