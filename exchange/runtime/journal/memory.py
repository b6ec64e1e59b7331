"""The journal in memory: the same contract without durability, for tests and for a bare engine."""

from __future__ import annotations

from collections.abc import Iterator

from exchange.runtime.journal.interface import (
    JournalCorrupt,
    JournalFenced,
    JournalRecordTooLarge,
    JournalTrimmed,
)
from exchange.runtime.journal.record import (
    PAYLOAD_BYTES_MAX,
    SEQUENCE_MAX,
    Record,
    encode_header,
    machine_identity,
)


class MemoryJournal:
    """A `Journal` that lives as long as the object.

    Several hosts may share one: the last that acquired it is the writer, and the epoch fences the
    others, as in a journal on a server. It never raises `JournalLocked`.
    """

    def __init__(self, machine_name: str) -> None:
        self._machine_name = machine_name
        self._machine = machine_identity(machine_name)
        self._records: list[Record] = []
        self._trimmed = 0
        self._epoch = 0
        self._checksum = 0

    @property
    def machine_name(self) -> str:
        """Whose log this is."""
        return self._machine_name

    @property
    def first_sequence(self) -> int:
        """The oldest record that is kept; `last_sequence + 1` if there is none."""
        return self._trimmed + 1

    @property
    def last_sequence(self) -> int:
        """The newest record; 0 if there never was one."""
        return self._trimmed + len(self._records)

    def acquire(self) -> int:
        """Fence every writer before and return the next epoch."""
        self._epoch += 1
        return self._epoch

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        """Add a record. Raises `JournalFenced` or `JournalRecordTooLarge`."""
        if epoch != self._epoch or epoch == 0:
            raise JournalFenced(f"expected epoch {self._epoch}, was {epoch}: stop for good")
        if sequence != self.last_sequence + 1:
            raise JournalFenced(f"expected sequence {self.last_sequence + 1}, was {sequence}")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise JournalRecordTooLarge(len(payload))
        _, checksum = encode_header(self._machine, epoch, sequence, self._checksum, payload)
        self._records.append(Record(epoch, sequence, payload, self._checksum, checksum))
        self._checksum = checksum

    def reopen(self) -> int:
        """Return the current epoch: an append here never fails half way."""
        return self._epoch

    def read(self, from_sequence: int, to_sequence: int | None = None) -> Iterator[Record]:
        """Yield the records in the range.

        Raises, while iterating, `JournalTrimmed`, or `JournalCorrupt` if the log ends before
        `from_sequence - 1`; `ValueError` below 1.
        """
        if from_sequence < 1:
            raise ValueError(f"from_sequence: expected 1 or more, was {from_sequence}")
        if from_sequence <= self._trimmed:
            raise JournalTrimmed(from_sequence, self.first_sequence)
        if from_sequence > self.last_sequence + 1:
            raise JournalCorrupt(
                "the log ends before a record that was durable",
                file=f"memory:{self._machine_name}",
                offset=0,
                sequence_expected=from_sequence - 1,
                sequence_found=self.last_sequence,
            )
        sequence = from_sequence
        limit = SEQUENCE_MAX if to_sequence is None else to_sequence
        while sequence <= min(limit, self.last_sequence):
            if sequence <= self._trimmed:
                raise JournalTrimmed(sequence, self.first_sequence)
            yield self._records[sequence - self._trimmed - 1]
            sequence += 1

    def follow(self, after_sequence: int) -> Iterator[Record]:
        """Yield all records after `after_sequence`. Raises as `read` does."""
        return self.read(after_sequence + 1)

    def trim(self, up_to_sequence: int) -> None:
        """Let go of the records up to `up_to_sequence`, but of the last one never."""
        count = min(up_to_sequence, self.last_sequence - 1) - self._trimmed
        if count > 0:
            del self._records[:count]
            self._trimmed += count

    def close(self) -> None:
        """Do nothing: the records stay for whoever acquires next."""
