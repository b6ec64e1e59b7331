"""Writes down a run as it goes on, so that one that is cut short has left what it knew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from chaos.run.record import (
    EVENTS_FILE,
    MANIFEST_FILE,
    SAMPLES_FILE,
    VERDICT_FILE,
    Event,
    EventKind,
    LineWriter,
    Manifest,
    Sample,
    Verdict,
)


class Observer(Protocol):
    """Is told of everything as it is written."""

    def event(self, event: Event) -> None: ...

    def sample(self, sample: Sample) -> None: ...


class RunWriter:
    """The files of one run; the directory is there already. `now_s`: since its load began, negative before."""

    def __init__(self, directory: Path, now_s: Callable[[], float], observer: Observer) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.samples: list[Sample] = []
        self._now_s = now_s
        self._observer = observer
        self._event_lines = LineWriter(directory / EVENTS_FILE)
        self._sample_lines = LineWriter(directory / SAMPLES_FILE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._event_lines.__exit__(kind, error, traceback)
        self._sample_lines.__exit__(kind, error, traceback)

    def note(self, kind: EventKind, name: str, what: str, detail: str = "", target: str = "") -> None:
        event = Event(t=round(self._now_s(), 3), kind=kind, name=name, what=what, detail=detail, target=target)
        self.events.append(event)
        self._event_lines.write(event)
        self._observer.event(event)

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._sample_lines.write(sample)
        self._observer.sample(sample)

    def manifest(self, manifest: Manifest) -> None:
        self._whole(MANIFEST_FILE, manifest)

    def verdict(self, verdict: Verdict) -> None:
        self._whole(VERDICT_FILE, verdict)

    def _whole(self, name: str, content: msgspec.Struct) -> None:
        """Write a file in one piece: whoever reads it reads all of it."""
        aside = self.directory / f".{name}"
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
        aside.rename(self.directory / name)
