import decimal
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.client import InvalidNumber
from exchange.client._numbers import (
    INT64_MAX,
    digits_after_point,
    from_amount,
    from_scaled,
    from_time_ns,
    to_amount,
    to_scaled,
    to_time_ns,
)

scales = st.integers(0, 18)
units = st.integers(1, INT64_MAX)


@given(units, scales)
def test_every_integer_of_the_wire_survives_the_way_to_decimal_and_back(n: int, scale: int) -> None:
    assert to_scaled(from_scaled(n, scale), scale, "price") == n
    assert to_scaled(str(from_scaled(n, scale)), scale, "price") == n


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0), scales)
def test_a_decimal_is_scaled_exactly_or_refused(value: Decimal, scale: int) -> None:
    with decimal.localcontext(prec=200, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN):
        scaled = value * 10**scale
        fits = 0 < scaled <= INT64_MAX and scaled == scaled.to_integral_value()
    if fits:
        assert to_scaled(value, scale, "price") == int(scaled)
    else:
        with pytest.raises(InvalidNumber):
            to_scaled(value, scale, "price")


@given(st.integers(1, 10**6), scales)
def test_the_programs_decimal_context_does_not_matter(n: int, scale: int) -> None:
    with decimal.localcontext(prec=2):
        assert to_scaled(from_scaled(n, scale), scale, "price") == n


@pytest.mark.parametrize(
    ("value", "scaled"),
    [(Decimal("60000.10"), 6000010), ("0.01", 1), (3, 300), (Decimal("1.2300"), 123), ("1e2", 10000)],
)
def test_decimals_strings_and_integers_are_taken(value: Decimal | int | str, scaled: int) -> None:
    assert to_scaled(value, 2, "price") == scaled


@pytest.mark.parametrize("value", [0.5, 1.0, float("nan"), True, None, b"1", [1]])
def test_floats_and_what_is_no_number_are_refused_by_type(value: object) -> None:
    with pytest.raises(TypeError, match="price: expected Decimal, int or str, was"):
        to_scaled(value, 2, "price")  # type: ignore[arg-type]  # the point of the test


def test_the_error_for_a_float_says_what_to_write_instead() -> None:
    with pytest.raises(TypeError, match=r'write Decimal\("0.5"\)'):
        to_scaled(0.5, 2, "price")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    "value",
    ["0.001", "NaN", "sNaN", "Infinity", "-1", "0", "", "1,5", "1e999999", "1e-999999", 2**63],
)
def test_what_the_scale_cannot_hold_is_refused(value: str | int) -> None:
    with pytest.raises(InvalidNumber, match="price: expected"):
        to_scaled(value, 2, "price")


def test_an_invalid_number_is_a_value_error() -> None:
    assert issubclass(InvalidNumber, ValueError)


@pytest.mark.parametrize(("value", "digits"), [("0.01", 2), ("0.50", 1), ("1", 0), (100, 0), ("1e-8", 8)])
def test_the_digits_of_a_tick_give_its_scale(value: str | int, digits: int) -> None:
    assert digits_after_point(value, "tick_size") == digits


@given(units, scales)
def test_an_amount_survives_the_way_to_the_wire_and_back(n: int, scale: int) -> None:
    amount = from_scaled(n, scale)
    assert from_amount(to_amount(amount, "amount")) == amount


@pytest.mark.parametrize(
    ("value", "text"),
    [(Decimal("12.50"), "12.5"), ("1e3", "1000"), (100, "100"), ("1e-18", "0.000000000000000001"), ("00.10", "0.1")],
)
def test_an_amount_is_a_plain_decimal_without_needless_zeros(value: Decimal | int | str, text: str) -> None:
    assert to_amount(value, "amount") == text


def test_an_amount_that_the_wire_does_not_set_is_zero() -> None:
    assert from_amount("") == 0


@pytest.mark.parametrize(
    "value", ["NaN", "sNaN", "Infinity", "-1", "0", "", "1,5", "1e999999", "1e-999999", "1" * 39, "0." + "1" * 61]
)
def test_what_can_be_no_amount_is_refused(value: str) -> None:
    with pytest.raises(InvalidNumber, match="amount: expected"):
        to_amount(value, "amount")


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds the time zone
def test_a_moment_survives_the_way_to_nanoseconds_and_back(moment: datetime) -> None:
    assert from_time_ns(to_time_ns(moment, "expire_time")) == moment


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="expire_time: expected a datetime with a time zone"):
        to_time_ns(datetime(2026, 1, 1), "expire_time")  # noqa: DTZ001 - the point of the test
