"""`exchange replay`: recorded order flow through the engine or a running exchange."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import typer
from rich.progress import Progress
from rich.table import Table

from exchange.cli.connection import find_address, find_key
from exchange.cli.errors import CommandFailed
from exchange.cli.output import console
from exchange.cli.replay.engine import SYMBOL, replay_engine
from exchange.cli.replay.formats import FORMATS, read
from exchange.cli.replay.outcome import Outcome, summary, write_files
from exchange.cli.replay.recording import Recording, ReplayCommand
from exchange.engine.instrument import Instrument, InstrumentInvalid


def run(
    file: Path,
    *,
    engine: bool,
    address: str,
    format_name: str,
    instrument: str,
    out: str,
    speed: float,
    key: str,
    data: Path,
    as_json: bool,
) -> None:
    """Replay a file, write what was asked for, and print the summary.

    Raises:
        RecordingInvalid: the file cannot be read as a recording.
        CommandFailed: it could not be entered, or what came of it is not known for certain; then no file is written.
    """
    _check_options(engine, address, format_name, instrument, speed)
    recording = read(file, format_name)
    if speed and not recording.has_times:
        raise CommandFailed("NO_TIMES", f"{file} records no times, so --speed has nothing to go by: leave it out")
    with Progress(console=console, disable=as_json or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(file.name, total=len(recording.commands))

        def progress(done: int) -> None:
            bar.update(task, completed=done)

        delay_s = pacer(recording, speed, time.monotonic)
        if engine:
            outcome = replay_engine(recording, lambda c: _sleep(delay_s(c)), progress, instrument or SYMBOL)
        else:
            outcome = _through_exchange(recording, address, key, data, instrument, delay_s, progress)
    files = [str(path) for path in write_files(out, recording, outcome)] if out and not outcome.fault else []
    _print(file, recording, outcome, files, as_json)
    if outcome.fault:
        raise CommandFailed("INCOMPLETE", f"{outcome.fault}; so no files were written" if out else outcome.fault)


def _check_options(engine: bool, address: str, format_name: str, instrument: str, speed: float) -> None:
    if engine == bool(address):
        raise typer.BadParameter("expected one of --engine and --exchange HOST:PORT")
    if format_name and format_name not in FORMATS:
        raise typer.BadParameter(f"--format: expected one of {', '.join(FORMATS)}, was {format_name!r}")
    if not 0 <= speed < float("inf"):
        raise typer.BadParameter(f"--speed: expected a number of at least 0, was {speed}")
    if instrument:
        try:
            Instrument(instrument, "REPLAY", "FLOW", 0, 0, 0).check()
        except InstrumentInvalid as error:
            raise typer.BadParameter(f"--instrument: {error}") from None


def _through_exchange(
    recording: Recording,
    address: str,
    key: str,
    data: Path,
    instrument: str,
    delay_s: Callable[[ReplayCommand], float],
    progress: Callable[[int], None],
) -> Outcome:
    found = find_key(key, data)
    if found is None:
        raise CommandFailed("NO_KEY", "expected an operator's key: --key, EVENKEEL_API_KEY, or --data DIR that has it")
    # Here, so that a replay through the engine does not load gRPC.
    from exchange.cli.replay.gateway import replay_exchange
    from exchange.cli.replay.market import new_symbol

    gateway = find_address(address, data)[0]
    return asyncio.run(replay_exchange(recording, gateway, found, instrument or new_symbol(), delay_s, progress))


def _sleep(delay_s: float) -> None:
    if delay_s > 0:
        time.sleep(delay_s)


def pacer(recording: Recording, speed: float, clock: Callable[[], float]) -> Callable[[ReplayCommand], float]:
    """Return a function that tells how long a command has still to wait, in seconds; negative: it is late.

    The recorded times run `speed` times as fast, from the first command and the first question on.
    """
    if not speed or not recording.commands:
        return lambda _: 0.0
    first_ns = recording.commands[0].time_ns
    started_s: float | None = None

    def delay_s(command: ReplayCommand) -> float:
        nonlocal started_s
        now_s = clock()
        if started_s is None:
            started_s = now_s
        return started_s + (command.time_ns - first_ns) / 1e9 / speed - now_s

    return delay_s


def _print(file: Path, recording: Recording, outcome: Outcome, files: list[str], as_json: bool) -> None:
    figures = summary(recording, outcome)
    if as_json:
        print(json.dumps({**figures, "notes": recording.notes, "files": files}))
        return
    table = Table("", file.name, title="Replay", title_justify="left")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), value if isinstance(value, str) else f"{value:,}")
    console.print(table)
    for note in [*recording.notes, *(f"written: {path}" for path in files)]:
        console.print(note, highlight=False)
