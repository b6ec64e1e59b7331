"""The few file operations that durability rests on, behind a protocol so that tests can fail each.

Every operation raises `OSError` as the operating system does.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

PENDING_SUFFIX = ".pending"
_WRITE_BYTES_MAX = 1 << 30  # Linux writes at most 2 GiB at a time


class Filesystem(Protocol):
    """What is written is durable after `sync`; a name that was made, changed or removed after
    `sync_directory` of its directory. Until then a crash may keep any part of it."""

    def make_directory(self, path: Path) -> None:
        """Make the directory and its parents, durably, where they are missing."""
        ...

    def list_directory(self, path: Path) -> list[str]:
        """Return the names in the directory, sorted."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Make the names in the directory durable."""
        ...

    def open_for_reading(self, path: Path) -> int:
        """Return a descriptor for the existing file."""
        ...

    def open_for_writing(self, path: Path, *, create: bool = False) -> int:
        """Return a descriptor for reading and writing the file, which `create` makes if missing."""
        ...

    def close(self, descriptor: int) -> None:
        """Close the descriptor; a lock on it is let go."""
        ...

    def size(self, descriptor: int) -> int:
        """Return the length of the file in bytes."""
        ...

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """Write the buffers one after the other; return how many bytes went out, maybe not all."""
        ...

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def sync(self, descriptor: int) -> None:
        """Make the file's content and length durable."""
        ...

    def forget_cache(self, descriptor: int) -> None:
        """Let go of what memory holds of the file, so that the next read comes from the disk."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give the file another name, replacing what had it."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove the name."""
        ...

    def try_lock(self, descriptor: int) -> bool:
        """Lock the file for this descriptor without waiting; False if another one has it."""
        ...


class OsFilesystem:
    """The operating system's files."""

    def make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self.make_directory(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_directory(path.parent)

    def list_directory(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open_for_reading(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY)

    def open_for_writing(self, path: Path, *, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o640)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        data = os.pread(descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(descriptor, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        return os.pwritev(descriptor, buffers, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def forget_cache(self, descriptor: int) -> None:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def try_lock(self, descriptor: int) -> bool:
        # flock, not lockf: a POSIX lock would be lost when any other descriptor of the file is
        # closed in this process, and would not keep out a second journal in the same process.
        # A child made by fork alone shares the lock; one that runs another program does not.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def write_all(filesystem: Filesystem, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
    """Write all buffers from `offset` on, in as many calls as it takes; return where they end."""
    expected = sum(len(buffer) for buffer in buffers)
    written = filesystem.write(descriptor, buffers, offset) if expected < _WRITE_BYTES_MAX else 0
    if written == expected:
        return offset + written
    done = 0
    for buffer in buffers:
        rest = memoryview(buffer)
        while rest:
            if written <= done:
                piece = rest[:_WRITE_BYTES_MAX]
                count = filesystem.write(descriptor, [piece], offset + done)
                if count <= 0:
                    raise OSError(errno.EIO, "the write made no progress")
            else:
                count = min(written - done, len(rest))
            done += count
            rest = rest[count:]
    return offset + done


def write_aside(filesystem: Filesystem, path: Path, buffers: Sequence[bytes | memoryview]) -> None:
    """Give `path` the content, all of it or nothing whatever happens, and durably.

    It is written beside, synced, renamed, and the directory synced. A crash may leave a file
    that ends in `PENDING_SUFFIX`; `remove_pending` removes it.
    """
    pending = path.with_name(path.name + PENDING_SUFFIX)
    descriptor = filesystem.open_for_writing(pending, create=True)
    try:
        filesystem.truncate(descriptor, 0)
        write_all(filesystem, descriptor, buffers, 0)
        filesystem.sync(descriptor)
    finally:
        filesystem.close(descriptor)
    filesystem.rename(pending, path)
    filesystem.sync_directory(path.parent)


def remove_pending(filesystem: Filesystem, directory: Path) -> None:
    """Remove what interrupted writes left behind."""
    for name in filesystem.list_directory(directory):
        if name.endswith(PENDING_SUFFIX):
            filesystem.unlink(directory / name)
