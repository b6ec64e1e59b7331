"""What clients say that they sent and were told, from their logs, in the shape in which it is checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from chaos.invariants.commands import Place
from chaos.load.client_log import ACKNOWLEDGED, REJECTED, Line, Logged, read_lines

OUTCOME_S_MAX = 10.0
REFUSED_FOR_LOAD = frozenset((601, 602))
"""QUEUE_FULL and RATE_LIMITED: no reasons to refuse a cancel. A stage that lets none through, a shard or a journal that
is out of reach, and a deadline that has passed on the way are."""
_WORDS_FOR_LOAD = ("QUEUE_FULL", "RATE_LIMITED")
CANCELS = ("cancel", "cancel_all")


class Outcome(NamedTuple):
    """What a client was told of a command that stands in a shard's history."""

    account: int
    kind: str
    id: str
    instrument: str
    order_id: int
    status: int
    filled: int
    left: int
    reject: int
    close: int
    duplicate: bool
    line: str


@dataclass(slots=True)
class OrderStory:
    """All that a client knows of one client order id."""

    placed: Place
    line: str
    sent_ns: list[int] = field(default_factory=list)
    outcomes: set[int] = field(default_factory=set)
    absent_ns: int = 0
    """When GetOrder last said that there is no such order."""
    absent_line: str = ""
    order_id: int = 0
    """As GetOrder found it."""
    order_line: str = ""


class Told(NamedTuple):
    """An execution that a client was told."""

    sequence: int
    row: tuple[int | str, ...]
    line: str


@dataclass(slots=True)
class ExecutionRun:
    """The executions of one account on one shard, without a break from the client's view: all after `start`."""

    account: int
    shard: str
    start: int
    told: list[Told] = field(default_factory=list)
    line: str = ""


class Update(NamedTuple):
    """A change of a book, or all of it."""

    sequence: int
    previous: int
    is_snapshot: bool
    bids: list[list[int]]
    asks: list[list[int]]
    checksum: int
    line: str


@dataclass(slots=True)
class BookRun:
    """A snapshot and what followed on it."""

    instrument: str
    updates: list[Update]


@dataclass(slots=True)
class ClientLogs:
    """Everything that all clients wrote down."""

    orders: dict[tuple[int, str], OrderStory] = field(default_factory=dict)
    outcomes: dict[str, dict[int, list[Outcome]]] = field(default_factory=lambda: defaultdict(dict))
    """By shard and sequence."""
    executions: list[ExecutionRun] = field(default_factory=list)
    books: list[BookRun] = field(default_factory=list)
    accounts: set[int] = field(default_factory=set)
    ended: dict[str, bool] = field(default_factory=dict)
    """Whether each log is complete."""
    messages: int = 0
    late: list[tuple[float, str]] = field(default_factory=list)
    """Messages whose outcome came later than it may: after how many seconds, and the line of it."""
    slowest_s: float = 0.0
    cancels: int = 0
    """Cancels that got an outcome."""
    cancels_shed: list[tuple[str, str]] = field(default_factory=list)
    """Those that were refused for load: the client order id, and the line of it."""


def read_logs(logged: Logged, directory: Path) -> ClientLogs:
    """Read the logs of all clients."""
    logs = ClientLogs()
    for name, account in logged.accounts.items():
        logs.accounts.add(account)
        _read_trader(directory / f"{name}.log", account, logged.markets, logs)
        _read_executions(directory / f"{name}.executions.log", account, logs)
    for path in sorted(directory.glob("*.book-*.log")):
        _read_books(path, logs)
    return logs


def _read_trader(path: Path, account: int, markets: Mapping[str, str], logs: ClientLogs) -> None:
    logs.ended[path.name] = False
    sent_ns: dict[int, int] = {}
    for line, where in read_lines(path):
        if line["e"] == "send":
            sent_ns.setdefault(line["m"], line["t"])
        elif line["e"] == "out" and line["i"] == 0:
            _read_time(line, where, sent_ns.pop(line["m"]), logs)
        match line["e"]:
            case "send" if line["k"] == "place":
                placed = _place_of(line, account)
                story = logs.orders.setdefault((account, placed.id), OrderStory(placed, where))
                story.sent_ns.append(line["t"])
            case "out":
                _read_outcome(line, where, account, markets, logs)
            case "order":
                story = logs.orders[account, line["id"]]
                if line["found"]:
                    story.order_id, story.order_line = line["oid"], where
                else:
                    story.absent_ns, story.absent_line = line["t"], where
            case "end":
                logs.ended[path.name] = True


def _read_outcome(line: Line, where: str, account: int, markets: Mapping[str, str], logs: ClientLogs) -> None:
    if line["k"] == "place":
        logs.orders[account, line["id"]].outcomes.add(line["o"])
    elif line["k"] in CANCELS:
        logs.cancels += 1
        if is_shed(line):
            logs.cancels_shed.append((line["id"], where))
    if line["o"] not in (ACKNOWLEDGED, REJECTED) or not line.get("seq"):
        return
    outcome = Outcome(
        account,
        line["k"],
        line["id"],
        line["sym"],
        line["oid"],
        line["st"],
        line["filled"],
        line["left"],
        line["rej"],
        line["cl"],
        line["dup"],
        where,
    )
    logs.outcomes[markets[line["sym"]]].setdefault(line["seq"], []).append(outcome)


def is_shed(line: Line) -> bool:
    """Whether a command was refused for load; a client that got a status of gRPC has the reason in its words alone."""
    if line["o"] != REJECTED:
        return False
    return line.get("rej") in REFUSED_FOR_LOAD or any(word in line.get("why", "") for word in _WORDS_FOR_LOAD)


def _read_time(line: Line, where: str, sent_ns: int, logs: ClientLogs) -> None:
    took_s = (line["t"] - sent_ns) / 1e9
    logs.messages += 1
    logs.slowest_s = max(logs.slowest_s, took_s)
    if took_s > OUTCOME_S_MAX:
        logs.late.append((took_s, where))


def _place_of(line: Line, account: int) -> Place:
    return Place(
        account,
        line["id"],
        line["sym"],
        line["side"],
        line["type"],
        line["tif"],
        line["px"],
        line["qty"],
        line["post"],
        line["stp"],
        0,
    )


def _read_executions(path: Path, account: int, logs: ClientLogs) -> None:
    logs.ended[path.name] = False
    runs: dict[str, ExecutionRun] = {}
    for line, where in read_lines(path):
        match line["e"]:
            case "start":
                runs = {}
                for shard, start in line["seqs"].items():
                    runs[shard] = ExecutionRun(account, shard, start, line=where)
                    logs.executions.append(runs[shard])
            case "resume":
                for shard, start in line["seqs"].items():
                    if shard not in runs:
                        runs[shard] = ExecutionRun(account, shard, start, line=where)
                        logs.executions.append(runs[shard])
            case "exec":
                shard = line["shard"]
                if shard not in runs:
                    # A shard that the gateway had no copy of when the stream began.
                    runs[shard] = ExecutionRun(account, shard, line["seq"] - 1, line=where)
                    logs.executions.append(runs[shard])
                runs[shard].told.append(Told(line["seq"], tuple(line["x"]), where))
            case "end":
                logs.ended[path.name] = True


def _read_books(path: Path, logs: ClientLogs) -> None:
    logs.ended[path.name] = False
    run: BookRun | None = None
    for line, where in read_lines(path):
        match line["e"]:
            case "book":
                numbers = line["seq"], line["prev"], line["snap"]
                update = Update(*numbers, line["bids"], line["asks"], line["crc"], where)
                if run is None or update.is_snapshot:
                    run = BookRun(line["sym"], [])
                    logs.books.append(run)
                run.updates.append(update)
            case "broken":
                run = None
            case "end":
                logs.ended[path.name] = True
