"""What a run writes down. All times `t` are in s since the run's load began, on one monotonic clock.

experiment.yaml    as it was run
manifest.json      `Manifest`
events.jsonl       an `Event` a line: what was done, seen and decided
samples.jsonl      a `Sample` a line, for each second
logs/              of the clients (`chaos/load/client_log.py`)
history/           of the journals (`chaos/invariants/history.py`)
status.log, events.log   what the exchange said of itself (`chaos/worlds/health.py`)
public/            what the public was told, with `status_page` (`chaos/run/public.py`)
histograms.hlog    HDR histograms of latency, by kind of request
verdict.json       `Verdict`
report.html, incident.md
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

EXPERIMENT_FILE, MANIFEST_FILE, EVENTS_FILE = "experiment.yaml", "manifest.json", "events.jsonl"
SAMPLES_FILE, VERDICT_FILE, HISTOGRAMS_FILE = "samples.jsonl", "verdict.json", "histograms.hlog"
REPORT_FILE, INCIDENT_FILE = "report.html", "incident.md"
LOGS, HISTORY, STATUS_LOG = "logs", "history", "status.log"
EventKind = Literal["phase", "fault", "proof", "rollback", "stage", "component", "abort", "check", "sometimes", "note"]
T = TypeVar("T")


class ExitCode(IntEnum):
    HELD = 0
    """As expected: it held, or it deviated and was to."""
    BROKEN = 1
    INVALID = 2
    NO_STEADY_STATE = 3
    NOT_INJECTED = 4
    ABORTED = 5
    ROLLBACK_FAILED = 6


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """How to do it again."""

    name: str
    seed: int
    begun_utc: str
    """When the load began: ISO 8601, in ms."""
    begun_monotonic_ns: int
    versions: dict[str, str]
    """Of Evenkeel, Python, Ray, grpcio, the kernel."""
    schedule_sha256: str
    """Of what is sent and when: the same seed gives the same."""
    configuration_sha256: str
    command: tuple[str, ...]
    cores: int = 0
    target: str = "private"
    """Or the addresses of the exchange that it was attached to."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened."""

    t: float
    kind: EventKind
    name: str
    """Of the phase, fault, component or check."""
    what: str
    """Such as "begun", "injected", "took effect", "OPEN", "DOWN", "held", "broken"."""
    detail: str = ""
    target: str = ""


def found_by(component: str, target: str) -> str:
    """Return the detail of a fault's event whose target was found by a component, as a node is by a shard on it.

    "" if the component is the target, or none was named.
    """
    return "" if component in ("", target) else f"of {component}"


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of one class of requests in one second, from the intended time, in ms."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One second: rates are of requests that were due in it, but for `attempts_per_s`, which were made in it."""

    t: int
    offered_per_s: float
    attempts_per_s: float
    goodput_per_s: float
    """Acknowledged within the deadline of the intended time."""
    refused_per_s: float
    """Surely not executed: shed, rate limited, forbidden by the stage."""
    unknown_per_s: float
    not_sent_per_s: float
    delays: dict[str, Delay]
    """By class of request: `place`, `cancel`, `amend`, `query`."""
    stages: dict[str, str]
    """Of each shard, as it was last seen."""
    goodput_by_market: dict[str, float]
    offered_by_market: dict[str, float]
    memory_mb: float
    """Of the exchange's processes together."""
    late_p99_ms: float
    """Of the load generator itself."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was promised, and what was found."""

    name: str
    """A rule (`I1`), a service level (`recover_s`), `sometimes:shed`, `steady_state`, `blast_radius`."""
    held: bool
    wanted: str
    found: str
    looked_at: int = 0
    """How many things were looked at: a check that looked at nothing has not held."""
    evidence: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    expect: Literal["hold", "deviate"]
    exit_code: int
    summary: str
    """A sentence."""
    checks: tuple[Check, ...] = ()
    figures: dict[str, float] = {}
    """`recover_s`, `goodput`, `amplification`, `p99_ms`, `cancel_p99_ms`, `memory_mb_max`, … as far as seen."""


class LineWriter:
    """Appends structs to a file, a line of JSON each, so that a run that is cut short has left what it knew."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, line: msgspec.Struct) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Yield the structs of a file; a last line that was cut short is left out."""
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
