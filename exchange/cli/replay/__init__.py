"""`exchange replay`: recorded order flow through the engine or a running exchange."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from exchange.cli.connection import find_address, find_key
from exchange.cli.errors import CommandFailed
from exchange.cli.output import console
from exchange.cli.replay.engine import replay_engine
from exchange.cli.replay.formats import read
from exchange.cli.replay.outcome import Outcome, summary, write_files
from exchange.cli.replay.recording import Recording, ReplayCommand


def run(
    file: Path,
    *,
    engine: bool,
    address: str,
    format_name: str,
    out: str,
    speed: float,
    key: str,
    data: Path,
    as_json: bool,
) -> None:
    """Replay a file, write what was asked for, and print the summary."""
    if engine == bool(address):
        raise CommandFailed("USAGE", "expected one of --engine and --exchange HOST:PORT")
    if not file.exists():
        raise CommandFailed("NO_FILE", f"{file} is not there")
    recording = read(file, format_name)
    if speed and not recording.has_times:
        raise CommandFailed("NO_TIMES", f"{file} records no times, so --speed has nothing to go by")
    with Progress(console=console, disable=as_json or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(file.name, total=len(recording.commands))
        outcome = _replay(recording, engine, address, key, data, speed, lambda done: bar.update(task, completed=done))
    figures = summary(recording, outcome)
    files = [str(path) for path in write_files(out, recording, outcome)] if out else []
    if as_json:
        print(json.dumps({**figures, "notes": recording.notes, "files": files}))
        return
    table = Table("", file.name, title="Replay", title_justify="left")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    console.print(table)
    for note in [*recording.notes, *(f"written: {path}" for path in files)]:
        console.print(note)


def _replay(
    recording: Recording,
    engine: bool,
    address: str,
    key: str,
    data: Path,
    speed: float,
    progress: Callable[[int], None],
) -> Outcome:
    delay_s = _pacer(recording, speed)
    if engine:

        def wait(command: ReplayCommand) -> None:
            delay = delay_s(command)
            if delay:
                time.sleep(delay)

        return replay_engine(recording, wait, progress)
    found = find_key(key, data)
    if found is None:
        raise CommandFailed(
            "NO_KEY", "expected an operator's key: --key, EVENKEEL_API_KEY, or --data with the directory"
        )

    async def pace(command: ReplayCommand) -> None:
        delay = delay_s(command)
        if delay:
            await asyncio.sleep(delay)

    from exchange.cli.replay.gateway import replay_exchange

    return asyncio.run(replay_exchange(recording, find_address(address, data)[0], found, pace, progress))


def _pacer(recording: Recording, speed: float) -> Callable[[ReplayCommand], float]:
    """Return a function that tells how long a command has still to wait, in seconds."""
    if not speed or not recording.commands:
        return lambda _: 0.0
    first_ns = recording.commands[0].time_ns
    started_s = time.monotonic()

    def delay_s(command: ReplayCommand) -> float:
        due_s = started_s + (command.time_ns - first_ns) / 1e9 / speed
        return max(due_s - time.monotonic(), 0.0)

    return delay_s
