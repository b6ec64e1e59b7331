"""`lobster`: the message files of LOBSTER (lobsterdata.com), reconstructed from NASDAQ's feed.

Columns: time in s after midnight, type, order id, size, price × 10,000, direction of the resting order (1 buys, -1
sells).
Types: 1 new, 2 partial cancel, 3 delete, 4 visible execution, 5 hidden execution, 6 cross, 7 halt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal, DecimalException

from exchange.cli.replay.formats.cells import OrderIds, numbered, whole
from exchange.cli.replay.recording import Kind, Recording, RecordingInvalid, ReplayCommand

COLUMNS = 6
PRICE_SCALE, QUANTITY_SCALE = 4, 0
_SIDES = {"1": 1, "-1": 2}
_GTC, _IOC = 1, 2
_PASSED_OVER = {"5": "hidden executions", "6": "crosses", "7": "halts"}


def read_lobster(name: str, lines: Iterable[str]) -> Recording:
    """Read messages; RecordingInvalid names the first line that is not of the format.

    A visible execution enters an order of the other side, immediate or cancel, at its price and size. Hidden
    executions, crosses and halts leave no trace in the visible book and are counted.
    """
    commands: list[ReplayCommand] = []
    trades: list[tuple[int, int]] = []
    passed_over: Counter[str] = Counter()
    ids = OrderIds()
    for number, line in numbered(lines):
        try:
            cells = [cell.strip() for cell in line.split(",")]
            if len(cells) < COLUMNS:
                raise ValueError(f"expected the 6 columns time,type,id,size,price,direction, was {line[:80]!r}")
            kind = cells[1]
            if kind in _PASSED_OVER:
                passed_over[kind] += 1
                continue
            command = _command(cells, number, ids)
            if kind == "4":
                trades.append((command.price, command.quantity))
            commands.append(command)
        except ValueError as error:
            raise RecordingInvalid(name, number, str(error)) from error
    counts = ", ".join(f"{passed_over[kind]} {what}" for kind, what in _PASSED_OVER.items())
    return Recording(commands, PRICE_SCALE, QUANTITY_SCALE, trades, notes=[f"{counts} passed over"])


def _command(cells: list[str], number: int, ids: OrderIds) -> ReplayCommand:
    time, kind, order, size, price, direction = cells[:COLUMNS]
    if direction not in _SIDES:
        raise ValueError(f"expected direction 1 or -1, was {direction!r}")
    time_ns, side, quantity = _nanoseconds(time), _SIDES[direction], whole(size, "size", 1)
    match kind:
        case "1":
            order = ids.enter(order, number)
            return ReplayCommand(number, time_ns, Kind.NEW, order, side, whole(price, "price", 1), quantity, _GTC)
        case "2":
            return ReplayCommand(number, time_ns, Kind.REDUCE, ids.check(order), side, 0, quantity, 0)
        case "3":
            return ReplayCommand(number, time_ns, Kind.CANCEL, ids.check(order), side, 0, 0, 0)
        case "4":
            taker = ids.enter(f"x{number}", number)
            return ReplayCommand(number, time_ns, Kind.NEW, taker, 3 - side, whole(price, "price", 1), quantity, _IOC)
        case _:
            raise ValueError(f"expected type 1 to 7, was {kind!r}")


def _nanoseconds(seconds: str) -> int:
    """Return a time in ns; what it has beyond the ninth decimal is cut off."""
    try:
        value = Decimal(seconds)
        if 0 <= value < 1_000_000:
            return int(value.scaleb(9))
    except DecimalException:
        pass  # not a number at all: the same to the reader
    raise ValueError(f"expected time as seconds after midnight, was {seconds!r}")
