"""The formats: `flow` CSV, `bitstamp` order log, `lobster` message file."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any

from exchange.cli.replay.recording import Kind, Recording, RecordingInvalid, ReplayCommand

FLOW_HEADER = "seq,cmd,id,side,price,qty,tif"
_SIDES = {"B": 1, "S": 2, "": 0}
_TIMES_IN_FORCE = {"GTC": 1, "IOC": 2, "FOK": 3, "": 0}
_IOC = 2
_MS, _NS = 1_000_000, 1_000_000_000


def read(path: Path, format_name: str = "") -> Recording:
    """Read a recording; the format is guessed from its first line if it is not named.

    Raises:
        RecordingInvalid: a line is not of the format, or the format is unknown.
    """
    with _open(path) as file:
        first = file.readline()
    name = format_name or _guess(first)
    if name not in FORMATS:
        raise RecordingInvalid(str(path), 1, f"expected format flow, bitstamp or lobster, was {name or first[:60]!r}")
    with _open(path) as file:
        return FORMATS[name](str(path), file)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="ascii", errors="replace")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="ascii", errors="replace")
    return path.open(encoding="ascii", errors="replace")


def _guess(first: str) -> str:
    if first.strip() == FLOW_HEADER:
        return "flow"
    if "{" in first:
        return "bitstamp"
    return "lobster" if first.count(",") == 5 else ""


def read_flow(name: str, lines: IO[str]) -> Recording:
    """Read `seq,cmd,id,side,price,qty,tif`; prices in ticks, quantities in lots, without times."""
    commands = []
    kinds = {"NEW": Kind.NEW, "MARKET": Kind.MARKET, "CANCEL": Kind.CANCEL, "REPLACE": Kind.REPLACE}
    for number, line in _numbered(lines, skip=1):
        cells = line.split(",")
        try:
            sequence, command, order, side, price, quantity, tif = cells
            commands.append(
                ReplayCommand(
                    int(sequence),
                    0,
                    kinds[command],
                    order,
                    _SIDES[side],
                    int(price or 0),
                    int(quantity or 0),
                    _TIMES_IN_FORCE[tif],
                )
            )
        except (ValueError, KeyError) as error:
            raise RecordingInvalid(name, number, f"expected {FLOW_HEADER}, was {line!r}") from error
    return Recording(commands, 0, 0, has_times=False)


def read_bitstamp(name: str, lines: IO[str]) -> Recording:
    """Read `RECEIVED_MS KIND JSON`: orders created and deleted are entered, trades are what should come out.

    Orders that were resting before the log began show only when they change or go; they are entered first, by id.
    """
    entered: list[ReplayCommand] = []
    created: set[str] = set()
    resting: dict[int, ReplayCommand] = {}
    trades: list[tuple[int, int]] = []
    for number, line in _numbered(lines):
        try:
            received_ms, kind, text = line.split(" ", 2)
            time_ns = int(received_ms) * _MS
            if kind == "order_book":
                continue
            data: dict[str, Any] = json.loads(text)
            price, quantity = _scaled(data["price"], 2), _scaled(data["amount"], 8)
            if kind == "trade":
                trades.append((price, quantity))
                continue
            order, side = str(data["id"]), data["order_type"] + 1
            if kind == "order_created":
                created.add(order)
                entered.append(ReplayCommand(number, time_ns, Kind.NEW, order, side, price, quantity, 1))
                continue
            if quantity > 0 and int(order) not in resting:
                resting[int(order)] = ReplayCommand(number, 0, Kind.NEW, order, side, price, quantity, 1)
            if kind == "order_deleted":
                entered.append(ReplayCommand(number, time_ns, Kind.CANCEL, order, side, 0, 0, 0))
            elif kind != "order_changed":
                raise ValueError(kind)
        except (ValueError, KeyError, TypeError, InvalidOperation) as error:
            raise RecordingInvalid(name, number, f"expected RECEIVED_MS KIND JSON, was {line[:80]!r}") from error
    start_ns = entered[0].time_ns if entered else 0
    before = [c._replace(time_ns=start_ns) for _, c in sorted(resting.items()) if c.order not in created]
    notes = [f"{len(before)} orders were resting before the recording began"]
    return Recording([*before, *entered], 2, 8, trades, notes=notes)


def read_lobster(name: str, lines: IO[str]) -> Recording:
    """Read LOBSTER messages: time in s, type, order id, size, price x 10000, direction of the resting order.

    A visible execution (4) enters a marketable order of the other side. Hidden executions (5), crosses (6) and halts
    (7) leave no trace in the visible book and are counted.
    """
    commands = []
    trades = []
    skipped = {5: 0, 6: 0, 7: 0}
    for number, line in _numbered(lines):
        try:
            seconds, kind, order, size, price, direction = line.split(",")[:6]
            time_ns, quantity, level = _scaled(seconds, 9), int(size), int(price)
            side = {1: 1, -1: 2}[int(direction)] if int(kind) < 5 else 0
            if int(kind) == 1:
                commands.append(ReplayCommand(number, time_ns, Kind.NEW, order, side, level, quantity, 1))
            elif int(kind) == 2:
                commands.append(ReplayCommand(number, time_ns, Kind.REDUCE, order, side, 0, quantity, 0))
            elif int(kind) == 3:
                commands.append(ReplayCommand(number, time_ns, Kind.CANCEL, order, side, 0, 0, 0))
            elif int(kind) == 4:
                trades.append((level, quantity))
                commands.append(ReplayCommand(number, time_ns, Kind.NEW, f"x{number}", 3 - side, level, quantity, _IOC))
            else:
                skipped[int(kind)] += 1
        except (ValueError, KeyError, InvalidOperation) as error:
            raise RecordingInvalid(name, number, f"expected a LOBSTER message, was {line[:80]!r}") from error
    notes = [f"{skipped[5]} hidden executions, {skipped[6]} crosses, {skipped[7]} halts passed over"]
    return Recording(commands, 4, 0, trades, notes=notes)


def _numbered(lines: IO[str], skip: int = 0) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if number > skip and line.strip():
            yield number, line.rstrip("\n")


def _scaled(value: Any, scale: int) -> int:
    scaled = Decimal(str(value)).scaleb(scale)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{value} has more than {scale} digits")
    return int(scaled)


FORMATS: dict[str, Callable[[str, IO[str]], Recording]] = {
    "flow": read_flow,
    "bitstamp": read_bitstamp,
    "lobster": read_lobster,
}
