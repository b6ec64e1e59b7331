"""Commands on their way, and how each attempt that a client makes is written down."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from chaos.load.client_log import ClientLog, Line, fields_of_command
from exchange.v1 import trading_pb2

CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # clients are many, and each has its own connection
)
Metadata = tuple[tuple[str, str], ...]
Command = trading_pb2.Command


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


def kind_of(command: Command) -> str:
    """Return `place`, `cancel`, `amend` or `cancel_all`."""
    kind = command.WhichOneof("command")
    assert kind is not None, "an empty command"
    return kind


class Told(NamedTuple):
    """What became of a command as far as its client knows. `line`: the fields of its line in the log."""

    outcome: int
    line: Line
    reason: str = ""


class Attempt(NamedTuple):
    """One that is under way: its number, and what names the command in the log."""

    message: int
    named: Line


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Writes the attempts of one client down, or nothing if it keeps no log."""

    log: ClientLog | None
    numbers: count[int] = field(default_factory=lambda: count(1))

    def begin(self, command: Command, due_ns: int, timeout_s: float, address: str) -> Attempt:
        message = next(self.numbers)
        if self.log is None:
            return Attempt(message, {})
        content = fields_of_command(command)
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        self.log.write("send", due=due_ns, until=until_ns, m=message, i=0, **content, gw=address)
        return Attempt(message, {"m": message, "i": 0, "k": content["k"], "id": content["id"], "sym": content["sym"]})

    def end(self, attempt: Attempt, told: Told, address: str) -> None:
        if self.log is not None:
            self.log.write("out", **attempt.named, **told.line, gw=address)
