"""What clients write down, a line for each thing that they did or were told; all that the checker gets from them.

Lines are JSON objects; `e` names the kind, `t` is CLOCK_MONOTONIC in ns, which all processes of a machine share.

    send    a command goes out: message `m`, place `i` in it, kind `k`, content, the gateway `gw`; `due` is when it
            was to go out, `until` when the exchange must have executed or refused it
    out     what was told of it: outcome `o` (1 acknowledged, 2 rejected, 3 unknown) and all of the result
    order   what GetOrder says of an order whose outcome was unknown; `found` false: there is none
    start   an execution stream begins anew, after these sequences
    resume  it goes on from where it was
    exec    an execution
    book    an update of a book
    end     the log is complete
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from exchange.v1 import market_data_pb2, trading_pb2

ACKNOWLEDGED, REJECTED, UNKNOWN = 1, 2, 3
Line = dict[str, Any]
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Logged:
    """Who wrote the logs of a directory: `NAME.log` and `NAME.executions.log` of each client, `MARKET.book-N.log`."""

    accounts: Mapping[str, int]
    """Of each client by its name."""
    markets: Mapping[str, str]
    """Each instrument, and its shard."""


class ClientLog:
    """Writes the lines of one client."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1 << 16)

    def __enter__(self) -> ClientLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, event: str, **fields: Any) -> None:
        self._file.write(_ENCODER.encode({"e": event, "t": time.monotonic_ns(), **fields}) + b"\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self.write("end")
            self._file.close()


def read_lines(path: Path) -> Iterator[tuple[Line, str]]:
    """Yield each line with its place, "FILE:LINE". A last line that is cut short, as by a kill, is left out."""
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if text.endswith("\n"):
                yield json.loads(text), f"{path.name}:{number}"


def fields_of_command(command: trading_pb2.Command) -> Line:
    """Return the content of a command as a line has it."""
    kind = command.WhichOneof("command")
    match kind:
        case "place":
            p = command.place
            return {
                "k": "place",
                "id": p.client_order_id,
                "sym": p.instrument,
                "side": int(p.side),
                "type": int(p.type),
                "tif": int(p.time_in_force),
                "px": p.price,
                "qty": p.quantity,
                "post": p.post_only,
                "stp": int(p.self_trade_prevention),
            }
        case "cancel":
            return {"k": "cancel", "id": command.cancel.client_order_id, "sym": command.cancel.instrument}
        case "amend":
            a = command.amend
            sizes = {"px": a.price, "qty": a.quantity, "open": a.open_quantity}
            return {"k": "amend", "id": a.client_order_id, "sym": a.instrument, **sizes}
        case _:
            return {"k": "cancel_all", "id": "", "sym": command.cancel_all.instrument}


def fields_of_result(result: trading_pb2.OrderResult) -> Line:
    """Return an outcome as a line has it."""
    return {
        "o": int(result.outcome),
        "oid": result.order_id,
        "st": int(result.status),
        "filled": result.filled_quantity,
        "left": result.open_quantity,
        "rej": int(result.reject_reason),
        "seq": result.sequence,
        "dup": result.duplicate,
        "cl": int(result.close_reason),
    }


def fields_of_execution(execution: trading_pb2.Execution) -> Line:
    x = execution
    return {
        "shard": x.shard,
        "seq": x.sequence,
        "x": [
            int(x.type),
            x.instrument,
            x.client_order_id,
            x.order_id,
            int(x.side),
            x.price,
            x.quantity,
            x.open_quantity,
            int(x.close_reason),
            x.trade_id,
            x.trade_price,
            x.trade_quantity,
            int(x.liquidity),
        ],
    }


def fields_of_update(update: market_data_pb2.OrderBookUpdate) -> Line:
    return {
        "sym": update.instrument,
        "snap": update.snapshot,
        "seq": update.sequence,
        "prev": update.previous_sequence,
        "bids": [[level.price, level.quantity, level.orders] for level in update.bids],
        "asks": [[level.price, level.quantity, level.orders] for level in update.asks],
        "crc": update.checksum,
    }
