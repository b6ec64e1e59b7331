"""Reads a run's directory, whatever state it is in: what cannot be read is named, and the rest is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from chaos.experiment import document
from chaos.experiment.document import DocumentInvalid
from chaos.experiment.model import Experiment
from chaos.report.latencies import Latency, LatencyUnreadable, read_latencies
from chaos.run.record import (
    EVENTS_FILE,
    EXPERIMENT_FILE,
    HISTOGRAMS_FILE,
    MANIFEST_FILE,
    SAMPLES_FILE,
    VERDICT_FILE,
    Event,
    Manifest,
    Sample,
    Verdict,
)

T = TypeVar("T")
_ANY_OF = (MANIFEST_FILE, EVENTS_FILE, SAMPLES_FILE, VERDICT_FILE)


class NotARun(ValueError):
    """There is nothing of a run in a directory."""

    code = "RUN_INVALID"


@dataclass(frozen=True, slots=True)
class Run:
    """What there is of a run."""

    directory: Path
    name: str
    manifest: Manifest | None = None
    experiment: Experiment | None = None
    verdict: Verdict | None = None
    events: tuple[Event, ...] = ()
    """By time; those before the load began are negative."""
    samples: tuple[Sample, ...] = ()
    latencies: tuple[Latency, ...] = ()
    missing: tuple[str, ...] = ()
    """What could not be read, a sentence each."""

    @property
    def begun_utc(self) -> datetime | None:
        """When the load began; None if that is not known."""
        if self.manifest is None:
            return None
        try:
            moment = datetime.fromisoformat(self.manifest.begun_utc)
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @property
    def end_s(self) -> float:
        """The end of the last second that was measured, or of what was planned if nothing was."""
        if self.samples:
            return float(self.samples[-1].t + 1)
        planned_s = self.experiment.duration_s if self.experiment else 0.0
        return max([planned_s, *(event.t for event in self.events)], default=0.0) or 1.0


def is_run(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _ANY_OF)


def read_run(directory: Path) -> Run:
    """Return what there is of a run. Raises `NotARun`."""
    if not is_run(directory):
        found = "no such directory" if not directory.is_dir() else "none of them"
        raise NotARun(f"expected a run's directory, with {', '.join(_ANY_OF)}, found {found}: {directory}")
    missing: list[str] = []
    manifest = _read_whole(directory / MANIFEST_FILE, Manifest, missing)
    verdict = _read_whole(directory / VERDICT_FILE, Verdict, missing)
    events = _read_lines(directory / EVENTS_FILE, Event, missing)
    samples = _read_lines(directory / SAMPLES_FILE, Sample, missing)
    name = manifest.name if manifest else verdict.name if verdict else directory.name
    return Run(
        directory=directory,
        name=name,
        manifest=manifest,
        experiment=_read_experiment(directory / EXPERIMENT_FILE, missing),
        verdict=verdict,
        events=tuple(sorted(events, key=lambda event: event.t)),
        samples=tuple(sorted(samples, key=lambda sample: sample.t)),
        latencies=_read_latencies(directory / HISTOGRAMS_FILE, missing),
        missing=tuple(missing),
    )


def previous_of(run: Run) -> Run | None:
    """Return the last run before this one of the same experiment, of those that lie beside it."""
    begun = run.begun_utc
    if begun is None:
        return None
    earlier = []
    for directory in run.directory.resolve().parent.iterdir():
        if directory == run.directory.resolve() or not (directory / MANIFEST_FILE).is_file():
            continue
        other = read_run(directory)
        if other.name == run.name and other.begun_utc is not None and other.begun_utc < begun:
            earlier.append((other.begun_utc, other))
    return max(earlier, key=lambda pair: pair[0])[1] if earlier else None


def _read_whole(path: Path, kind: type[T], missing: list[str]) -> T | None:
    if not path.is_file():
        missing.append(f"{path.name}: expected it, found none: the run was cut short, or goes on")
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        missing.append(f"{path.name}: not read, it is half-written or of another version: {error}")
        return None


def _read_lines(path: Path, kind: type[T], missing: list[str]) -> Sequence[T]:
    if not path.is_file():
        missing.append(f"{path.name}: expected it, found none")
        return ()
    decoder = msgspec.json.Decoder(kind)
    read: list[T] = []
    unread: list[str] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            read.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            unread.append(f"line {number}: {error}")
    if unread:
        missing.append(f"{path.name}: {len(unread)} of {len(lines) - 1} lines not read; {unread[0]}")
    if lines[-1]:
        missing.append(f"{path.name}: the last line was cut short")
    if not read and not unread:
        missing.append(f"{path.name}: empty")
    return read


def _read_experiment(path: Path, missing: list[str]) -> Experiment | None:
    if not path.is_file():
        missing.append(f"{path.name}: expected it, found none")
        return None
    try:
        return msgspec.convert(document.parse(path.read_text(encoding="utf-8")).values, Experiment)
    except (DocumentInvalid, UnicodeDecodeError, msgspec.ValidationError) as error:
        missing.append(f"{path.name}: not read, it is half-written or of another version: {error}")
        return None


def _read_latencies(path: Path, missing: list[str]) -> tuple[Latency, ...]:
    if not path.is_file():
        # The page says with the percentiles themselves what they are without it.
        return ()
    try:
        return read_latencies(path)
    except LatencyUnreadable as error:
        missing.append(f"{path.name}: not read: {error}")
        return ()
