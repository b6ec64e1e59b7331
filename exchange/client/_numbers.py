"""Decimals at the edge, scaled integers (of amounts: decimal strings) on the wire.

Nothing is ever rounded, and no float gets in.
"""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TypeAlias

from exchange.client._errors import InvalidNumber

Number: TypeAlias = Decimal | int | str
"""What stands for a price, a quantity or an amount. A float does not: 0.1 is not a tenth."""

INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19
_AMOUNT_DIGITS_MAX = 38
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Its own context, so that a program's `decimal.getcontext()` cannot make a price inexact.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])


def to_scaled(value: Number, scale: int, name: str) -> int:
    """`value` in units of 10^-`scale`; `name` is for the error.

    It must be positive: on the wire, 0 means that a field is not set.

    Raises:
        TypeError: for a float, or what is no number at all.
        InvalidNumber: not a finite positive number, more digits than the scale has, or too large.
    """
    number = _decimal(value, name)
    if not number.is_finite() or number <= 0:
        raise InvalidNumber(f"{name}: expected a finite positive number, was {value!r}")
    # `adjusted` bounds the size first: Decimal("1e999999") must not become an integer.
    if number.adjusted() + scale >= _INT64_DIGITS:
        raise InvalidNumber(f"{name}: expected at most {INT64_MAX} units of 1e-{scale}, was {value!r}")
    try:
        scaled = number.scaleb(scale, _EXACT)
        units = int(scaled.to_integral_exact(context=_EXACT))
    except (Inexact, InvalidOperation):
        raise InvalidNumber(
            f"{name}: expected at most {scale} digits after the point, was {value!r};"
            " round it to the instrument's tick or lot first"
        ) from None
    if units > INT64_MAX:
        raise InvalidNumber(f"{name}: expected at most {INT64_MAX} units of 1e-{scale}, was {value!r}")
    return units


def from_scaled(units: int, scale: int) -> Decimal:
    """`units` of 10^-`scale`, exactly."""
    return Decimal(units).scaleb(-scale, _EXACT)


def to_amount(value: Number, name: str) -> str:
    """`value` as the wire has amounts: a plain decimal, such as "12.5".

    How many digits the asset allows is for the exchange to say.

    Raises:
        TypeError: for a float, or what is no number at all.
        InvalidNumber: not a finite positive number, or far too large or too precise for any asset.
    """
    number = _decimal(value, name)
    if not number.is_finite() or number <= 0:
        raise InvalidNumber(f"{name}: expected a finite positive number, was {value!r}")
    # The exponent is bounded first: Decimal("1e999999") must not become a text.
    if abs(number.adjusted()) >= _AMOUNT_DIGITS_MAX:
        raise InvalidNumber(f"{name}: expected at most {_AMOUNT_DIGITS_MAX} digits, was {value!r}")
    try:
        # Without zeros at the end, which would count as digits after the point.
        return format(number.normalize(_EXACT), "f")
    except Inexact:
        raise InvalidNumber(f"{name}: expected at most {_EXACT.prec} digits, was {value!r}") from None


def from_amount(text: str) -> Decimal:
    """Of the wire's decimal string; one that is not set is 0."""
    return Decimal(text or "0")


def digits_after_point(value: Number, name: str) -> int:
    """How many digits after the point `value` needs: the scale that fits a tick or a lot."""
    exponent = _decimal(value, name).normalize(_EXACT).as_tuple().exponent
    if not isinstance(exponent, int):
        raise InvalidNumber(f"{name}: expected a finite number, was {value!r}")
    return max(0, -exponent)


def to_time_ns(moment: datetime, name: str) -> int:
    """Nanoseconds since the Unix epoch.

    Raises:
        ValueError: `moment` has no time zone, so that it names no moment.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{name}: expected a datetime with a time zone, was {moment!r}")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def from_time_ns(time_ns: int) -> datetime:
    """UTC, cut to the microsecond: a datetime has no nanoseconds."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def _decimal(value: Number, name: str) -> Decimal:
    if isinstance(value, Decimal):
        return value
    # bool is an int to Python, but never a quantity.
    if isinstance(value, bool) or not isinstance(value, int | str):
        hint = f'; write Decimal("{value}")' if isinstance(value, float) else ""
        raise TypeError(f"{name}: expected Decimal, int or str, was {type(value).__name__} {value!r}{hint}")
    try:
        return Decimal(value)
    except InvalidOperation:
        raise InvalidNumber(f"{name}: expected a number, was {value!r}") from None
