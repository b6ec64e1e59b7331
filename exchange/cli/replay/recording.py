"""Recorded order flow, whatever its format, as one kind of command."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    NEW = 1
    MARKET = 2
    CANCEL = 3
    REPLACE = 4
    """New price and new open quantity; goes to the back of the queue."""
    REDUCE = 5
    """Open quantity smaller by `quantity`; keeps its place."""


class ReplayCommand(NamedTuple):
    """`number` is that of the recording (its line or sequence); side 1 buys, 2 sells, 0 as the order it names."""

    number: int
    time_ns: int
    kind: Kind
    order: str
    side: int
    price: int
    quantity: int
    time_in_force: int


@dataclass(slots=True)
class Recording:
    """`trades` are those that the recorded exchange made, (price, quantity); empty if it does not say."""

    commands: list[ReplayCommand]
    price_scale: int
    quantity_scale: int
    trades: list[tuple[int, int]] = field(default_factory=list)
    has_times: bool = True
    notes: list[str] = field(default_factory=list)


class RecordingInvalid(ValueError):
    """A file cannot be read; says which line (0: no line of it), what was expected and what was found."""

    code = "RECORDING_INVALID"

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}")
        self.file = file
        self.line = line
