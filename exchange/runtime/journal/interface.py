"""What every journal does, and every way in which it can refuse.

JournalError
├── JournalFenced           another writer took over, or the position is not the next one
├── JournalLocked           a living process holds the journal
├── JournalUnavailable      the storage failed; nothing was acknowledged
├── JournalCorrupt          acknowledged records are damaged or missing
├── JournalTrimmed          the records asked for are gone; start from a snapshot
├── JournalUnsafe           the storage may acknowledge what it has not made durable
└── JournalRecordTooLarge   the payload is over the limit
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from exchange.runtime.journal.record import PAYLOAD_BYTES_MAX, Record


class JournalError(Exception):
    """The base of what a journal raises. `code` is stable and made for programs."""

    code: ClassVar[str] = "JOURNAL_ERROR"


class JournalFenced(JournalError):
    """The writer may not write: its epoch is not the current one, or its record not the next one.

    A writer that gets this once stops for good: somebody else is the primary now.
    """

    code = "JOURNAL_FENCED"


class JournalLocked(JournalError):
    """A living process holds the journal; `holder_pid` is its id, None if it is not known."""

    code = "JOURNAL_LOCKED"

    def __init__(self, message: str, holder_pid: int | None) -> None:
        super().__init__(message)
        self.holder_pid = holder_pid


class JournalUnavailable(JournalError):
    """The storage failed, and the record was not acknowledged.

    `surely_absent` tells what to answer for the commands in that record: if true, the record is
    not in the journal and never will be (they were not executed); if false, a crash now could
    still bring it back, so their outcome is unknown until `reopen` succeeds.
    `errno` is the operating system's number, None if it gave none.
    """

    code = "JOURNAL_UNAVAILABLE"

    def __init__(self, message: str, *, surely_absent: bool, errno: int | None = None) -> None:
        super().__init__(message)
        self.surely_absent = surely_absent
        self.errno = errno


class JournalCorrupt(JournalError):
    """Records that were acknowledged are damaged or missing. Nothing is repaired by itself.

    `file` and `offset` say where (bytes; of a stream: its name and the number of the message); the two
    sequences say what the log should have held there and what it held, None where that could not be read.
    """

    code = "JOURNAL_CORRUPT"

    def __init__(
        self,
        reason: str,
        *,
        file: str,
        offset: int,
        offset_unit: str = "byte",
        sequence_expected: int | None = None,
        sequence_found: int | None = None,
        remedy: str = "keep the files as they are, and restore them from a backup, or start the "
        "machine with a new journal from the state of its standby or a snapshot",
    ) -> None:
        expected = "" if sequence_expected is None else f", expected sequence {sequence_expected}"
        found = "" if sequence_found is None else f", found sequence {sequence_found}"
        super().__init__(f"{file} at {offset_unit} {offset}{expected}{found}: {reason}; {remedy}")
        self.reason = reason
        self.file = file
        self.offset = offset
        self.sequence_expected = sequence_expected
        self.sequence_found = sequence_found


class JournalTrimmed(JournalError):
    """The records asked for were trimmed; `first_sequence` is the oldest that is left."""

    code = "JOURNAL_TRIMMED"

    def __init__(self, from_sequence: int, first_sequence: int) -> None:
        super().__init__(
            f"record {from_sequence} was trimmed, the oldest kept is {first_sequence}: "
            f"start from a snapshot at {first_sequence - 1} or later"
        )
        self.from_sequence = from_sequence
        self.first_sequence = first_sequence


class JournalUnsafe(JournalError):
    """The storage may acknowledge what is not durable, or it is not proven that it does not.

    The message says how to set it.
    """

    code = "JOURNAL_UNSAFE"


class JournalRecordTooLarge(JournalError):
    """The payload is larger than a record can be. Nothing was written, the journal goes on."""

    code = "JOURNAL_RECORD_TOO_LARGE"

    def __init__(self, payload_bytes: int, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        super().__init__(f"expected at most {payload_bytes_max} bytes, was {payload_bytes}")


class Journal(Protocol):
    """The log of one machine. Records are numbered 1, 2, 3, … without a gap.

    One thread writes (`acquire`, `append`, `trim`, `reopen`, `close`); any one thread may `read` or `follow`.
    Every method raises `JournalUnavailable` when the storage fails and `JournalCorrupt` when it
    finds damage.
    """

    @property
    def machine_name(self) -> str:
        """Whose log this is."""
        ...

    @property
    def first_sequence(self) -> int:
        """The oldest record that is kept; `last_sequence + 1` if there is none."""
        ...

    @property
    def last_sequence(self) -> int:
        """The newest record; 0 if there never was one."""
        ...

    def acquire(self) -> int:
        """Become the writer and return the epoch: higher than any before it, and durable.

        Raises `JournalLocked` while another writer lives.
        """
        ...

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        """Add the record `sequence`, which must be `last_sequence + 1`; return once it is durable.

        Raises `JournalFenced` if `epoch` is not the current one or the sequence is another,
        `JournalRecordTooLarge`, or `JournalUnavailable`, after which only `reopen` helps.
        """
        ...

    def reopen(self) -> int:
        """After `JournalUnavailable`: settle where the log ends, and return the epoch to write with.

        An append whose outcome was unknown is decided by this: its record is in the log, as the one
        after the last that was acknowledged, or it never will be. So read and apply what is new
        before going on. Raises `JournalFenced` if another writer took over meanwhile, and
        `JournalUnavailable` if the storage still fails; it can be tried again at any time.
        """
        ...

    def read(self, from_sequence: int, to_sequence: int | None = None) -> Iterator[Record]:
        """Yield the records from `from_sequence` to `to_sequence` (the newest if None), verified.

        Raises `JournalTrimmed` if `from_sequence` is gone, and `JournalCorrupt` at damage or if
        the log ends before `from_sequence - 1`.
        """
        ...

    def follow(self, after_sequence: int) -> Iterator[Record]:
        """Yield, verified, the records after `after_sequence` that are there and will surely stay.

        For a standby, which does not hold the journal; it may `acquire` the same object later. Calling it again
        with the last sequence that it gave, every few milliseconds, is cheap. Raises, while iterating,
        `JournalTrimmed` if the next record is gone, and `JournalCorrupt` at damage.
        """
        ...

    def trim(self, up_to_sequence: int) -> None:
        """Let go of records up to `up_to_sequence`, all of them or as many as is convenient."""
        ...

    def close(self) -> None:
        """Let go of the journal, so that another can acquire it. Closing twice is allowed."""
        ...
