"""Processes as /proc shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was there when it was looked at."""

    pid: int
    parent: int
    state: str
    """As in /proc/PID/stat: R, S, D, T (stopped), Z (dead, not reaped) …"""
    command: str
    """The command line, its arguments separated by spaces."""

    @property
    def program(self) -> str:
        """The file name of what it runs."""
        return self.command.partition(" ")[0].rpartition("/")[2]


def read_process(pid: int) -> Process | None:
    """Return a process, or None if there is none with this id."""
    try:
        # The name in brackets may hold anything, brackets too.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(parent), state, command)


def descendants(ancestor: int) -> list[Process]:
    """Return all processes below one, parents before their children."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (process := read_process(int(entry.name))):
            children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    below = [ancestor]
    while below:
        next_below = [process for pid in below for process in children.get(pid, ())]
        found += next_below
        below = [process.pid for process in next_below]
    return found


def send_signal(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
