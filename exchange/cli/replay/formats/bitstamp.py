"""`bitstamp`: the order log of the Bitstamp exchange, a line each `RECEIVED_MS KIND JSON`.

Orders created and deleted are entered; `trade` lines are what should come out; `order_book` lines are not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from exchange.cli.replay.formats.cells import OrderIds, numbered, scaled, whole
from exchange.cli.replay.recording import Kind, Recording, RecordingInvalid, ReplayCommand

PRICE_SCALE, QUANTITY_SCALE = 2, 8
_NS_PER_MS = 1_000_000
_GTC = 1


class _Log:
    """What a log holds, as it is read line by line."""

    def __init__(self) -> None:
        self.entered: list[ReplayCommand] = []
        self.ids = OrderIds()
        self.changed: dict[int, ReplayCommand] = {}
        """What is first known of an order by its change or its end, while something of it was left: by id."""
        self.trades: list[tuple[int, int]] = []

    def add(self, number: int, line: str) -> None:
        received_ms, _, rest = line.partition(" ")
        kind, _, text = rest.partition(" ")
        time_ns = whole(received_ms, "time") * _NS_PER_MS
        if kind == "order_book":
            return
        if kind not in ("order_created", "order_changed", "order_deleted", "trade"):
            raise ValueError(f"expected order_created, order_changed, order_deleted, trade or order_book, was {kind!r}")
        data = _object(text)
        if kind == "trade":
            self.trades.append((_price(data), _amount(data)))
            return
        order, side = _identity(data)
        if kind == "order_deleted":
            self.entered.append(ReplayCommand(number, time_ns, Kind.CANCEL, order, side, 0, 0, 0))
        if kind == "order_created":
            terms = _price(data), _amount(data, 1), _GTC
            order = self.ids.enter(order, number)
            self.entered.append(ReplayCommand(number, time_ns, Kind.NEW, order, side, *terms))
        elif _amount(data) > 0:
            seen = ReplayCommand(number, 0, Kind.NEW, order, side, _price(data), _amount(data), _GTC)
            self.changed.setdefault(int(order), seen)


def read_bitstamp(name: str, lines: Iterable[str]) -> Recording:
    """Read a log; RecordingInvalid names the first line that is not of the format.

    Orders that were resting before the log began show only when they change or go: they are entered first, by id, at
    the time of the first line.
    """
    log = _Log()
    for number, line in numbered(lines):
        try:
            log.add(number, line)
        except ValueError as error:
            raise RecordingInvalid(name, number, str(error)) from error
    start_ns = log.entered[0].time_ns if log.entered else 0
    before = [c._replace(time_ns=start_ns) for _, c in sorted(log.changed.items()) if c.order not in log.ids]
    notes = [f"{len(before)} orders were resting before the recording began"]
    return Recording([*before, *log.entered], PRICE_SCALE, QUANTITY_SCALE, log.trades, notes=notes)


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON after the kind, was {text[:60]!r}: {error.msg}") from error
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, was {text[:60]!r}")
    return data


def _field(data: dict[str, Any], name: str) -> Any:
    if name not in data:
        raise ValueError(f"expected a field {name!r}, was {', '.join(data) or 'empty'}")
    return data[name]


def _identity(data: dict[str, Any]) -> tuple[str, int]:
    """Return an order's id and side."""
    order_type = _field(data, "order_type")
    if order_type not in (0, 1) or isinstance(order_type, bool):
        raise ValueError(f"expected order_type 0 for a bid or 1 for an ask, was {order_type!r}")
    return str(whole(str(_field(data, "id")), "id")), order_type + 1


def _price(data: dict[str, Any]) -> int:
    return scaled(_field(data, "price"), PRICE_SCALE, "price", 1)


def _amount(data: dict[str, Any], low: int = 0) -> int:
    return scaled(_field(data, "amount"), QUANTITY_SCALE, "amount", low)
