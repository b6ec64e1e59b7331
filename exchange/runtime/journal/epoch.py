"""The file that remembers the highest epoch of a journal, and where the log ended when it began."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exchange.runtime.journal.filesystem import Filesystem, write_aside
from exchange.runtime.journal.interface import JournalCorrupt
from exchange.runtime.journal.record import crc32c

EPOCH_FILE = "epoch"
_WORD = "evenkeel-epoch-1"
_REMEDY = "restore the file from a backup; an epoch that is used twice would let two writers pass for one"


@dataclass(frozen=True, slots=True)
class EpochMark:
    """The highest epoch given out, and the last sequence of the log at that moment."""

    epoch: int
    last_sequence: int


def read_epoch(filesystem: Filesystem, directory: Path, machine_name: str) -> EpochMark | None:
    """Return what the file says, None if there is none. Raises `JournalCorrupt` if it is damaged
    or belongs to another machine, and `OSError`."""
    path = directory / EPOCH_FILE
    try:
        descriptor = filesystem.open_for_reading(path)
    except FileNotFoundError:
        return None
    try:
        data = filesystem.read(descriptor, 4096, 0)
    finally:
        filesystem.close(descriptor)
    content, _, checksum = data.rpartition(b" ")
    if checksum != f"{crc32c(content):08x}\n".encode():
        raise JournalCorrupt("the epoch file does not match its checksum", file=str(path), offset=0, remedy=_REMEDY)
    word, machine_found, epoch, last_sequence = content.decode().split(" ")
    if word != _WORD or machine_found != machine_name:
        raise JournalCorrupt(
            f"expected the epoch of {machine_name}, found {content.decode()!r}",
            file=str(path),
            offset=0,
            remedy="check that the journal's directory is the right one for this machine",
        )
    return EpochMark(int(epoch), int(last_sequence))


def write_epoch(filesystem: Filesystem, directory: Path, machine_name: str, mark: EpochMark) -> None:
    """Replace the file; durable on return. Raises `OSError`, with the old one still in place."""
    content = f"{_WORD} {machine_name} {mark.epoch} {mark.last_sequence}".encode()
    line = content + f" {crc32c(content):08x}\n".encode()
    write_aside(filesystem, directory / EPOCH_FILE, [line])


def missing_epoch(directory: Path) -> JournalCorrupt:
    """Return the error for a journal that has records and no epoch file."""
    return JournalCorrupt(
        "the journal has records, but its epoch file is missing",
        file=str(directory / EPOCH_FILE),
        offset=0,
        remedy=_REMEDY,
    )
