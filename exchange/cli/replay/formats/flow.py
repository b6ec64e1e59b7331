"""`flow`: a CSV of commands for one symbol, prices in ticks and quantities in lots, without times.

Columns: `seq,cmd,id,side,price,qty,tif`. cmd `NEW`, `MARKET`, `CANCEL` or `REPLACE`; side `B` or `S`; tif `GTC`, `IOC`
or `FOK`, of a NEW only; what a command does not use is empty.
"""

from __future__ import annotations

from collections.abc import Iterable

from exchange.cli.replay.formats.cells import OrderIds, numbered, whole
from exchange.cli.replay.recording import Kind, Recording, RecordingInvalid, ReplayCommand

HEADER = "seq,cmd,id,side,price,qty,tif"
_SIDES = {"B": 1, "S": 2}
_TIMES_IN_FORCE = {"": 1, "GTC": 1, "IOC": 2, "FOK": 3}


def read_flow(name: str, lines: Iterable[str]) -> Recording:
    """Read a flow; RecordingInvalid names the first line that is not of the format."""
    commands: list[ReplayCommand] = []
    ids = OrderIds()
    has_header = False
    for number, line in numbered(lines):
        try:
            if not has_header:
                if line != HEADER:
                    raise ValueError(f"expected the header {HEADER}, was {line[:80]!r}")
                has_header = True
                continue
            commands.append(_command(line, number, ids))
        except ValueError as error:
            raise RecordingInvalid(name, number, str(error)) from error
    return Recording(commands, 0, 0, has_times=False)


def _command(line: str, number: int, ids: OrderIds) -> ReplayCommand:
    cells = line.split(",")
    if len(cells) != 7:
        raise ValueError(f"expected the 7 columns {HEADER}, was {line[:80]!r}")
    sequence, command, order, side, price, quantity, tif = cells
    seq = whole(sequence, "seq")
    match command:
        case "NEW":
            if tif not in _TIMES_IN_FORCE:
                raise ValueError(f"expected tif GTC, IOC or FOK, was {tif!r}")
            kind, terms = Kind.NEW, (whole(price, "price", 1), whole(quantity, "qty", 1), _TIMES_IN_FORCE[tif])
        case "MARKET":
            kind, terms = Kind.MARKET, (0, whole(quantity, "qty", 1), 0)
        case "CANCEL":
            return ReplayCommand(seq, 0, Kind.CANCEL, ids.check(order), 0, 0, 0, 0)
        case "REPLACE":
            terms = whole(price, "price", 1), whole(quantity, "qty", 1), 0
            return ReplayCommand(seq, 0, Kind.REPLACE, ids.check(order), 0, *terms)
        case _:
            raise ValueError(f"expected cmd NEW, MARKET, CANCEL or REPLACE, was {command!r}")
    if side not in _SIDES:
        raise ValueError(f"expected side B or S, was {side!r}")
    return ReplayCommand(seq, 0, kind, ids.enter(order, number), _SIDES[side], *terms)
