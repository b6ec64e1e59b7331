"""Disks that are slow, full or failing, for one process, and a journal whose end is torn.

The first three are done by strace, which delays or fails the system calls of a process as it makes them: the disk and
everybody else's files stay as they are. Attaching takes a while in which the process stands still: some hundredths of a
second.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from chaos.faults.fault import Target
from chaos.faults.injection import FaultNotInjected, RollbackFailed, Wish
from chaos.faults.signals import find, wait_until_gone
from chaos.worlds.lab import Lab
from exchange.processes import read_process, send_signal

STRACE = "strace"
SYNC = "fdatasync,fsync"
WRITE = "pwritev,pwritev2,pwrite64,write"
EFFECT_S_MAX = 15.0
END_S_MAX = 10.0
POLL_S = 0.02
TORN_BYTES = 100
_JOURNAL = re.compile(r"\d+\.journal")


class SlowDiskArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fsync_ms: Annotated[int, Meta(ge=1, le=60_000)]
    """What each sync takes longer."""


class InjectedCalls:
    """Has strace change what some system calls of a process do; the file calls alone that reach its journal."""

    def __init__(self, target: Target, directory: Path | None, calls: str, effect: str, what: str) -> None:
        self._pid = target.pid
        self._directory = directory
        self._calls = calls
        self._effect = effect
        self._what = what
        self._strace: Process | None = None
        self._log = Path(tempfile.mkdtemp(prefix="evenkeel-strace-")) / "log"
        self.target = target.name

    async def inject(self) -> None:
        command = [STRACE, "-f", "-p", str(self._pid), "-o", str(self._log), "-e", f"trace={self._calls}"]
        command += ["-e", f"inject={self._calls}:{self._effect}", "-e", "signal=none"]
        for path in self._journal_paths():
            command += ["-P", str(path)]
        self._strace = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)

    def _journal_paths(self) -> list[Path]:
        """Return the segments that are written: only calls on them are changed, so that logs go on."""
        if self._directory is None:
            return []
        return sorted(path for path in self._directory.glob("*.journal") if _JOURNAL.fullmatch(path.name))[-1:]

    async def proof(self) -> str:
        """Wait until one call was really changed."""
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while not (count := self._changed()):
                    if self._strace is not None and self._strace.returncode is not None:
                        assert self._strace.stderr is not None
                        said = (await self._strace.stderr.read()).decode(errors="replace").strip()
                        raise FaultNotInjected(f"expected strace to attach to process {self._pid}, it said: {said}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(f"expected a call of {self._calls} within {EFFECT_S_MAX:g} s, saw none") from error
        return f"{self._what}, seen at {count} call{'s' if count > 1 else ''} of process {self._pid}"

    def _changed(self) -> int:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return 0
        return sum("(INJECTED)" in line or "(DELAYED)" in line for line in lines)

    async def rollback(self) -> None:
        strace, self._strace = self._strace, None
        if strace is not None and strace.returncode is None:
            strace.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(strace.wait(), END_S_MAX)
            except TimeoutError as error:
                strace.kill()
                raise RollbackFailed(f"expected strace to let go of process {self._pid}, it did not") from error
        process = read_process(self._pid)
        if process is not None and process.state in "Tt":
            # Its tracer left it stopped: it goes on by a signal.
            os.kill(self._pid, signal.SIGCONT)
        shutil.rmtree(self._log.parent, ignore_errors=True)


class TornJournal:
    """The primary stands still, half a record is put at the end of its journal, and it is killed."""

    def __init__(self, target: Target, directory: Path) -> None:
        self._pid = target.pid
        self._directory = directory
        self._where = ""
        self.target = target.name

    async def inject(self) -> None:
        try:
            await _stop(self._pid)
            segment = _last_segment(self._directory)
            with segment.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                # As a record that was begun: the same first bytes as the newest one has, and no more.
                file.seek(max(size - TORN_BYTES, 0))
                piece = file.read(TORN_BYTES)
                file.seek(0, os.SEEK_END)
                file.write(piece)
                os.fsync(file.fileno())
        finally:
            send_signal(signal.SIGKILL, [self._pid])
        self._where = f"{len(piece)} bytes behind the record that ends at byte {size:,} of {segment.name}"

    async def proof(self) -> str:
        await wait_until_gone([self._pid])
        return f"process {self._pid} is gone, {self._where}"

    async def rollback(self) -> None:
        """Who takes over cuts it; that is what is looked at."""


class FlipArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    back_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 50
    """How far from the end: near to it, it is in the record that was written last."""


class FlippedJournal:
    """The primary stands still, a byte of its journal is another one, and it is killed."""

    def __init__(self, target: Target, directory: Path, back_bytes: int) -> None:
        self._pid = target.pid
        self._directory = directory
        self._back_bytes = back_bytes
        self._flipped: tuple[Path, int, bytes] | None = None
        self.target = target.name

    async def inject(self) -> None:
        try:
            await _stop(self._pid)
            segment = _last_segment(self._directory)
            at = segment.stat().st_size - self._back_bytes
            if at < 0:
                raise FaultNotInjected(f"expected {self._back_bytes} bytes or more in {segment.name}, found fewer")
            with segment.open("r+b") as file:
                file.seek(at)
                before = file.read(1)
                self._flipped = segment, at, before
                file.seek(at)
                file.write(_flip(before))
                os.fsync(file.fileno())
        finally:
            send_signal(signal.SIGKILL, [self._pid])

    async def proof(self) -> str:
        await wait_until_gone([self._pid])
        assert self._flipped is not None, "it is injected first"
        segment, at, before = self._flipped
        return (
            f"process {self._pid} is gone, byte {at:,} of {segment.name} was {before.hex()}, is {_flip(before).hex()}"
        )

    async def rollback(self) -> None:
        """Put the byte back, unless it was cut off meanwhile, or written over."""
        if self._flipped is None:
            return
        segment, at, before = self._flipped
        try:
            with segment.open("r+b") as file:
                file.seek(at)
                if file.read(1) == _flip(before):
                    file.seek(at)
                    file.write(before)
                    os.fsync(file.fileno())
        except FileNotFoundError:
            pass  # the exchange has let go of the segment
        except OSError as error:
            raise RollbackFailed(f"expected to put byte {at:,} of {segment} back to {before.hex()}: {error}") from error
        self._flipped = None


def _flip(byte: bytes) -> bytes:
    return bytes([byte[0] ^ 0xFF])


async def _stop(pid: int) -> None:
    """Stop a process, and return when it stands still. Raises `FaultNotInjected` if it is gone."""
    send_signal(signal.SIGSTOP, [pid])
    while (process := read_process(pid)) and process.state not in "TZ":
        await asyncio.sleep(POLL_S)
    if process is None or process.state == "Z":
        raise FaultNotInjected(f"expected process {pid} to be stopped, found it gone")


def _last_segment(directory: Path) -> Path:
    segments = sorted(path for path in directory.glob("*.journal") if _JOURNAL.fullmatch(path.name))
    if not segments:
        raise FaultNotInjected(f"expected a journal in files at {directory}, found none")
    return segments[-1]


def slow_disk(lab: Lab, wish: Wish, arguments: SlowDiskArguments) -> InjectedCalls:
    target = find(lab, wish)
    what = f"a sync takes {arguments.fsync_ms} ms longer"
    return InjectedCalls(target, lab.journal_dir(target.name), SYNC, f"delay_enter={arguments.fsync_ms * 1_000}", what)


def full_disk(lab: Lab, wish: Wish, arguments: object) -> InjectedCalls:
    target = find(lab, wish)
    return InjectedCalls(target, _journal_of(lab, target), WRITE, "error=ENOSPC", "no space is left")


def failing_disk(lab: Lab, wish: Wish, arguments: object) -> InjectedCalls:
    target = find(lab, wish)
    return InjectedCalls(target, _journal_of(lab, target), SYNC, "error=EIO", "a sync fails")


def torn_journal(lab: Lab, wish: Wish, arguments: object) -> TornJournal:
    target = find(lab, wish)
    return TornJournal(target, _journal_of(lab, target))


def flipped_journal(lab: Lab, wish: Wish, arguments: FlipArguments) -> FlippedJournal:
    target = find(lab, wish)
    return FlippedJournal(target, _journal_of(lab, target), arguments.back_bytes)


def _journal_of(lab: Lab, target: Target) -> Path:
    directory = lab.journal_dir(target.name)
    if directory is None:
        raise FaultNotInjected(f"expected a machine with a journal in files, was {target.name}")
    return directory
