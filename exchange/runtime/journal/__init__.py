"""The log of a machine's commands: durable before it is acknowledged, one writer per epoch."""

from __future__ import annotations

from exchange.runtime.journal.file import FileJournal, TailCut
from exchange.runtime.journal.filesystem import Filesystem, OsFilesystem
from exchange.runtime.journal.interface import (
    Journal,
    JournalCorrupt,
    JournalError,
    JournalFenced,
    JournalLocked,
    JournalRecordTooLarge,
    JournalTrimmed,
    JournalUnavailable,
    JournalUnsafe,
)
from exchange.runtime.journal.memory import MemoryJournal
from exchange.runtime.journal.record import PAYLOAD_BYTES_MAX, Record

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "FileJournal",
    "Filesystem",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalFenced",
    "JournalLocked",
    "JournalRecordTooLarge",
    "JournalTrimmed",
    "JournalUnavailable",
    "JournalUnsafe",
    "MemoryJournal",
    "OsFilesystem",
    "Record",
    "TailCut",
]
