"""Wall clocks of single processes that the lab can move, by a library that is preloaded when the exchange starts."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMPILER = "gcc"
SLOT = struct.Struct("qq")
_SOURCE = Path(__file__).with_name("clock_shim.c")
_PRELOAD, _FILE = "LD_PRELOAD", "EVENKEEL_CLOCK"
_PID_MAX = Path("/proc/sys/kernel/pid_max")


class ClocksUnavailable(RuntimeError):
    """The library cannot be made here; the message says why."""

    code = "CLOCKS_UNAVAILABLE"


class Clocks:
    """Of the processes that are started while `preloaded`."""

    def __init__(self, directory: Path) -> None:
        self._library = directory / "clock_shim.so"
        self._file = directory / "clocks"
        self._slots: mmap.mmap | None = None

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        """Have what is started meanwhile run with clocks that can be moved. Raises `ClocksUnavailable`."""
        self._make()
        before = os.environ.get(_PRELOAD)
        os.environ[_PRELOAD] = f"{self._library.absolute()}:{before}" if before else str(self._library.absolute())
        os.environ[_FILE] = str(self._file.absolute())
        try:
            yield
        finally:
            del os.environ[_FILE]
            if before is None:
                del os.environ[_PRELOAD]
            else:
                os.environ[_PRELOAD] = before

    def _make(self) -> None:
        if shutil.which(COMPILER) is None:
            raise ClocksUnavailable(f"expected {COMPILER}, to move clocks by a small library, found none: install it")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        command = [COMPILER, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE), "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ClocksUnavailable(f"expected {COMPILER} to make {self._library.name}, it said: {made.stderr[-500:]}")
        with self._file.open("w+b") as file:
            file.truncate((int(_PID_MAX.read_text()) + 1) * SLOT.size)  # sparse: a page for each that is used
            self._slots = mmap.mmap(file.fileno(), 0)

    def move(self, pid: int, by_s: float) -> None:
        """Set by how much a process's clock is off; 0: it is true."""
        assert self._slots is not None, "nothing was started with such clocks"
        SLOT.pack_into(self._slots, pid * SLOT.size, round(by_s * 1e9), 0)

    def reads(self, pid: int) -> int:
        """Return how often a process has read its clock since it was moved."""
        assert self._slots is not None, "nothing was started with such clocks"
        return int(SLOT.unpack_from(self._slots, pid * SLOT.size)[1])
