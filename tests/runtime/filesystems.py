"""A filesystem in memory that loses what was not synced, fails on demand, and crashes anywhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from random import Random

BLOCK_BYTES = 64  # smaller than a disk's sector, so that small records tear too


class Crash(BaseException):
    """The power is gone. Not an `Exception`, so that nothing handles it by accident."""


class Trouble(Enum):
    """What can happen to an operation."""

    CRASH = auto()
    IO_ERROR = auto()
    NO_SPACE = auto()


@dataclass
class _File:
    """`memory` is what a read sees, `disk` what survives; `dirty` blocks await the next sync."""

    memory: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)

    def touch(self, start: int, end: int) -> None:
        self.dirty.update(range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)))

    def store(self, blocks: set[int], size: int) -> None:
        """Bring the blocks and the length to the disk; what was never stored reads as zeros."""
        del self.disk[size:]
        self.disk.extend(bytes(size - len(self.disk)))
        for block in blocks:
            start = block * BLOCK_BYTES
            end = min(start + BLOCK_BYTES, size, len(self.memory))
            if start < end:
                self.disk[start:end] = self.memory[start:end]

    def store_some(self, random: Random) -> None:
        sizes = sorted((len(self.disk), len(self.memory)))
        size = random.choice([*sizes, random.randint(*sizes)])
        self.store({block for block in sorted(self.dirty) if random.random() < 0.5}, size)


@dataclass(frozen=True)
class _Rename:
    """A change of names that is not durable yet; `old` is None for a new file, `new` if removed."""

    old: Path | None
    new: Path | None
    file: _File


class CrashingFilesystem:
    """A `Filesystem` whose every changing operation can fail or be the last one before a crash.

    After a sync that failed, what was not stored counts as clean, as in Linux: only writing it
    again brings it to the disk.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.operations = 0
        self._trouble: tuple[range, Trouble] | None = None
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._pending: list[_Rename] = []
        self._open: dict[int, _File] = {}
        self._locks: dict[int, _File] = {}
        self._descriptors = 100
        self._is_down = False

    # What tests do to it.

    @contextmanager
    def trouble(self, trouble: Trouble, after_operations: int, for_operations: int = 1) -> Iterator[None]:
        """Inside the block, so many operations after so many others meet `trouble`."""
        first = self.operations + after_operations + 1
        self._trouble = (range(first, first + for_operations), trouble)
        try:
            yield
        finally:
            self._trouble = None

    def kill_processes(self) -> None:
        """All processes end: descriptors and locks are gone, what was written stays in memory."""
        self._open.clear()
        self._locks.clear()

    def cut_power(self) -> None:
        """What was not durable survives in any part, and the machine starts again."""
        self.kill_processes()
        self._is_down = False
        for change in self._pending:
            if self.random.random() < 0.5:
                self._apply(self._durable_names, change)
        self._pending.clear()
        self._names = dict(self._durable_names)
        for file in self._names.values():
            file.store_some(self.random)
            file.memory = bytearray(file.disk)
            file.dirty.clear()

    def content(self, path: Path) -> bytearray:
        """The bytes of a file, to damage them in place; call `settle` after."""
        return self._names[path].memory

    def settle(self) -> None:
        """Make everything durable as it is."""
        self._durable_names = dict(self._names)
        self._pending.clear()
        for file in self._names.values():
            file.disk = bytearray(file.memory)
            file.dirty.clear()

    # What a journal does with it.

    def make_directory(self, path: Path) -> None:
        del path

    def list_directory(self, path: Path) -> list[str]:
        return sorted(name.name for name in self._names if name.parent == path)

    def sync_directory(self, path: Path) -> None:
        self._change()
        for change in self._pending:
            self._apply(self._durable_names, change)
        self._pending.clear()

    def open_for_reading(self, path: Path) -> int:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._descriptors += 1
        self._open[self._descriptors] = self._names[path]
        return self._descriptors

    def open_for_writing(self, path: Path, *, create: bool = False) -> int:
        if create and path not in self._names:
            self._change()
            self._rename(_Rename(None, path, _File()))
        return self.open_for_reading(path)

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        self._locks.pop(descriptor, None)

    def size(self, descriptor: int) -> int:
        return len(self._open[descriptor].memory)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return bytes(self._open[descriptor].memory[offset : offset + size])

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        file = self._open[descriptor]
        data = b"".join(buffers)
        trouble = self._next_trouble()
        if trouble or self.random.random() < 0.1:
            data = data[: self.random.randint(0 if trouble else 1, len(data))]
        file.memory.extend(bytes(max(0, offset - len(file.memory))))
        file.memory[offset : offset + len(data)] = data
        file.touch(offset, offset + len(data))
        self._raise(trouble)
        return len(data)

    def truncate(self, descriptor: int, size: int) -> None:
        file = self._open[descriptor]
        self._change()
        if len(file.memory) != size:
            del file.memory[size:]
            file.touch(max(0, size - 1), size)

    def sync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        trouble = self._next_trouble()
        if trouble in {Trouble.IO_ERROR, Trouble.NO_SPACE}:
            file.store_some(self.random)
            file.dirty.clear()
        self._raise(trouble)
        file.store(file.dirty, len(file.memory))
        file.dirty.clear()

    def forget_cache(self, descriptor: int) -> None:
        file = self._open[descriptor]
        for start in range(0, len(file.memory), BLOCK_BYTES):
            if start // BLOCK_BYTES not in file.dirty:
                file.memory[start : start + BLOCK_BYTES] = file.disk[start : start + BLOCK_BYTES]

    def rename(self, old: Path, new: Path) -> None:
        self._change()
        self._rename(_Rename(old, new, self._names[old]))

    def unlink(self, path: Path) -> None:
        self._change()
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._rename(_Rename(path, None, self._names[path]))

    def try_lock(self, descriptor: int) -> bool:
        file = self._open[descriptor]
        if any(locked is file for locked in self._locks.values()):
            return False
        self._locks[descriptor] = file
        return True

    def _rename(self, change: _Rename) -> None:
        self._apply(self._names, change)
        self._pending.append(change)

    @staticmethod
    def _apply(names: dict[Path, _File], change: _Rename) -> None:
        if change.old:
            names.pop(change.old, None)
        if change.new:
            names[change.new] = change.file

    def _next_trouble(self) -> Trouble | None:
        assert not self._is_down, "an operation after the crash"
        self.operations += 1
        if self._trouble and self.operations in self._trouble[0]:
            return self._trouble[1]
        return None

    def _raise(self, trouble: Trouble | None) -> None:
        if trouble is Trouble.CRASH:
            self._is_down = True
            raise Crash
        if trouble:
            number = errno.EIO if trouble is Trouble.IO_ERROR else errno.ENOSPC
            raise OSError(number, os.strerror(number))

    def _change(self) -> None:
        self._raise(self._next_trouble())
