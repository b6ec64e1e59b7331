"""Assets and amounts: integers at the asset's scale inside, decimal strings outside the exchange."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

SCALE_MAX = 18
AMOUNT_MAX = 10**30 - 1
"""Of any balance, and of all of an asset together: 30 digits, those after the point included."""
_SYMBOL = re.compile(r"[A-Z0-9]{1,16}")
_AMOUNT = re.compile(r"([0-9]{1,64})(?:\.([0-9]{1,64}))?")


class Asset(NamedTuple):
    """What accounts hold. `scale`: digits after the point."""

    symbol: str
    scale: int

    @property
    def is_valid(self) -> bool:
        return _SYMBOL.fullmatch(self.symbol) is not None and 0 <= self.scale <= SCALE_MAX


class AmountFault(IntEnum):
    """What is wrong with an amount."""

    INVALID = 1
    """Not a decimal number greater than 0."""
    TOO_LARGE = 2
    TOO_PRECISE = 3
    """More digits after the point than the asset has."""


class AmountInvalid(ValueError):
    """An amount that cannot be meant."""

    def __init__(self, fault: AmountFault, text: str, scale: int) -> None:
        expected = f"a decimal number > 0 with at most {scale} digits after the point"
        if fault == AmountFault.TOO_LARGE:
            expected = f"at most {format_amount(AMOUNT_MAX, scale)}"
        super().__init__(f"expected {expected}, was {text[:80]!r}")
        self.fault = fault


def parse_amount(text: str, scale: int) -> int:
    """Return a decimal string as units of 10^-scale. Zeros beyond the scale are no fault.

    Raises:
        AmountInvalid: it is no decimal number, not greater than 0, too precise or too large.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise AmountInvalid(AmountFault.INVALID, text, scale)
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > scale:
        raise AmountInvalid(AmountFault.TOO_PRECISE, text, scale)
    units = int(whole + fraction.ljust(scale, "0"))
    if not units:
        raise AmountInvalid(AmountFault.INVALID, text, scale)
    if units > AMOUNT_MAX:
        raise AmountInvalid(AmountFault.TOO_LARGE, text, scale)
    return units


def format_amount(units: int, scale: int) -> str:
    """Return units of 10^-scale as a decimal string with all digits of the scale."""
    digits = str(abs(units)).rjust(scale + 1, "0")
    sign = "-" if units < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else sign + digits
