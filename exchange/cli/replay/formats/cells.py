"""Reading lines and the numbers in them, strictly: a `ValueError` says what was expected and what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, DecimalException

INT64_MAX = 2**63 - 1
_ORDER = re.compile(r"[A-Za-z0-9_-]{1,36}")


def numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers from 1."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text:
            yield number, text


def whole(text: str, name: str, low: int = 0) -> int:
    """Return a number of plain digits, from `low` to what 64 bits hold."""
    if text.isascii() and text.isdigit() and low <= int(text) <= INT64_MAX:
        return int(text)
    raise ValueError(f"expected {name} as a whole number of at least {low}, was {text!r}")


def scaled(value: object, scale: int, name: str, low: int = 0) -> int:
    """Return a decimal, as text or as a float of JSON, in units of `scale` digits after its point.

    A float is rounded, as what was written may be off in its last binary digit; text must be exact.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected {name} as a number, was {value!r}")
    try:
        units = Decimal(str(value)).scaleb(scale)
        whole_units = units.to_integral_value()
        if low <= whole_units <= INT64_MAX and (isinstance(value, float) or units == whole_units):
            return int(whole_units)
    except DecimalException:
        pass  # not a number at all: the same to the reader
    raise ValueError(f"expected {name} as a number of at least {low} with at most {scale} decimals, was {value!r}")


class OrderIds:
    """The ids of the orders that a recording has entered: each once, and each fit to be a client order id."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def __contains__(self, order: str) -> bool:
        return order in self._lines

    def enter(self, order: str, line: int) -> str:
        """Note that an order is entered under an id, and return the id."""
        self.check(order)
        if order in self._lines:
            raise ValueError(f"expected an id of its own for each order, was {order!r} as on line {self._lines[order]}")
        self._lines[order] = line
        return order

    @staticmethod
    def check(order: str) -> str:
        """Return an id if it can be one."""
        if not _ORDER.fullmatch(order):
            raise ValueError(f"expected an id of 1 to 36 of A-Z, a-z, 0-9, _ and -, was {order!r}")
        return order
