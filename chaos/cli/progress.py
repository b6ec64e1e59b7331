"""How a run goes on: a live table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import sys
import termios
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chaos.experiment.model import Experiment
from chaos.run.record import Check, Event, ExitCode, Sample, Verdict

REFRESH_PER_S = 4
SAMPLE_LINE_EVERY_S = 5
RECENT_EVENTS_MAX = 8
_STYLES = {"took effect": "yellow", "injected": "yellow", "taken back": "green", "held": "green", "broken": "bold red"}
_ALARMS = frozenset({"broken", "failed", "did not take effect", "cut short"})
_QUIET = frozenset({"component"})
_LOCAL_FLAGS = 3
"""Of what `tcgetattr` returns."""


class Progress(Protocol):
    """Is told of a run as it goes on."""

    def event(self, event: Event) -> None: ...

    def sample(self, sample: Sample) -> None: ...

    def showing(self) -> AbstractContextManager[object]: ...


def progress_for(console: Console, name: str, experiment: Experiment) -> Progress:
    """Return what fits a console."""
    return LiveProgress(console, name, experiment) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """A line for each event, and one every few seconds with the figures."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def showing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def event(self, event: Event) -> None:
        if event.kind not in _QUIET:
            self._print(event.t, text_of(event).plain)

    def sample(self, sample: Sample) -> None:
        if sample.t % SAMPLE_LINE_EVERY_S == 0:
            p99s = ", ".join(f"{kind} p99 {delay.p99_ms:.0f} ms" for kind, delay in sample.delays.items())
            rates = f"offered {sample.offered_per_s:.0f}/s, goodput {sample.goodput_per_s:.0f}/s"
            self._print(sample.t, f"{rates}, refused {sample.refused_per_s:.0f}/s, {p99s}")

    def _print(self, at_s: float, text: str) -> None:
        self._console.print(f"{at_s:7.1f} s  {text}", highlight=False, markup=False, soft_wrap=True)


class LiveProgress:
    """Phase and time, load by class, stages, faults that are on, checks so far, and the last events."""

    def __init__(self, console: Console, name: str, experiment: Experiment) -> None:
        self._console = console
        self._name = name
        self._experiment = experiment
        self._events: list[Event] = []
        self._phase = "starting"
        self._faults: dict[tuple[str, str], str] = {}
        self._checks: dict[str, bool] = {}
        self._stages: dict[str, str] = {}
        self._sample: Sample | None = None
        self._begun_s: float | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        with without_echo(), Live(get_renderable=self._view, console=self._console, refresh_per_second=REFRESH_PER_S):
            yield

    def sample(self, sample: Sample) -> None:
        self._sample = sample

    def event(self, event: Event) -> None:
        match event.kind:
            case "phase":
                self._phase = event.name
                if self._begun_s is None:
                    self._begun_s = time.monotonic() - event.t
            case "fault" | "proof":
                self._faults[event.name, event.target] = event.what
            case "rollback":
                if event.what == "taken back":
                    self._faults.pop((event.name, event.target), None)
            case "check":
                self._checks[event.name] = event.what == "held"
            case "stage":
                self._stages[event.name] = event.what
            case "abort":
                self._phase = "ending early"
            case _:
                pass
        if event.kind not in _QUIET:
            self._events.append(event)

    def _view(self) -> RenderableType:
        return Group(self._head(), *self._load(), *self._state(), *self._recent())

    def _head(self) -> RenderableType:
        total_s = self._experiment.duration_s
        elapsed_s = 0.0 if self._begun_s is None else time.monotonic() - self._begun_s
        return Text.assemble(
            (self._name, "bold"),
            f"  {self._phase}  ",
            (f"{min(elapsed_s, total_s):.0f} of {total_s:.0f} s", "cyan"),
            "  Ctrl-C takes everything back",
            style="",
        )

    def _load(self) -> Iterable[RenderableType]:
        sample = self._sample
        if sample is None:
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("offered/s", "attempts/s", "goodput/s", "refused/s", "unknown/s", "not sent/s", "late p99"):
            table.add_column(name, justify="right", no_wrap=True)
        rates = (sample.offered_per_s, sample.attempts_per_s, sample.goodput_per_s, sample.refused_per_s)
        others = (sample.unknown_per_s, sample.not_sent_per_s)
        table.add_row(*(f"{rate:.0f}" for rate in (*rates, *others)), f"{sample.late_p99_ms:.1f} ms")
        yield table
        delays = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("class", "count", "p50 ms", "p99 ms", "max ms"):
            delays.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
        for kind, delay in sample.delays.items():
            delays.add_row(kind, str(delay.count), f"{delay.p50_ms:.1f}", f"{delay.p99_ms:.1f}", f"{delay.max_ms:.1f}")
        yield delays

    def _state(self) -> Iterable[RenderableType]:
        if self._stages:
            yield Text("stages   " + "  ".join(f"{shard} {stage}" for shard, stage in sorted(self._stages.items())))
        if self._faults:
            on = "  ".join(f"{fault} {target} ({what})" for (fault, target), what in self._faults.items())
            yield Text(f"faults   {on}", style="yellow")
        if self._checks:
            checks = Text("checks   ")
            for name, held in self._checks.items():
                checks.append(f"{name} {'held' if held else 'BROKEN'}  ", style="green" if held else "bold red")
            yield checks

    def _recent(self) -> Iterable[RenderableType]:
        for event in self._events[-RECENT_EVENTS_MAX:]:
            yield Text.assemble((f"{event.t:7.1f} s  ", "dim"), text_of(event))


@contextmanager
def without_echo() -> Iterator[None]:
    """Keep the terminal from writing ^C into the middle of a table."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[_LOCAL_FLAGS] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def text_of(event: Event) -> Text:
    """Return an event as a line."""
    target = f" {event.target}" if event.target else ""
    detail = f": {event.detail}" if event.detail else ""
    kind = "" if event.kind in {"note", "stage"} else f"{event.kind} "
    style = "bold red" if event.what in _ALARMS or event.kind == "abort" else _STYLES.get(event.what, "")
    return Text(f"{kind}{event.name}{target} {event.what}{detail}", style=style)


def show_verdict(console: Console, verdict: Verdict, directory: str) -> None:
    """Print what a run has shown: a line for each check, then the verdict."""
    for check in verdict.checks:
        console.print(_check_line(check), soft_wrap=True)
    figures = "  ".join(f"{name} {value:,.4g}" for name, value in verdict.figures.items())
    if figures:
        console.print(Text(figures, style="dim"), soft_wrap=True)
    code = ExitCode(verdict.exit_code)
    style = "bold green" if code is ExitCode.HELD else "bold red"
    console.print(Text(f"{verdict.name}: {code.name}: {verdict.summary}", style=style), soft_wrap=True)
    console.print(Text(directory), soft_wrap=True)


def _check_line(check: Check) -> Text:
    what, style = ("held  ", "green") if check.held else ("BROKEN", "bold red")
    return Text.assemble((what, style), f"  {check.name}: {check.found} (expected {check.wanted})")
