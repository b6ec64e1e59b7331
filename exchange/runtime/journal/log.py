"""The segments of a journal as one log: reading across them, and finding where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from exchange.runtime.journal.filesystem import Filesystem
from exchange.runtime.journal.interface import JournalCorrupt, JournalTrimmed
from exchange.runtime.journal.record import Record, RecordInvalid
from exchange.runtime.journal.segment import Position, SegmentReader, list_segments, segment_path

NOWHERE = Position(segment=0, offset=0, sequence=0, epoch=0, checksum=0)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log ends, where its last record or else segment header starts, what is torn."""

    position: Position
    last_write_offset: int
    torn: RecordInvalid | None = None


class SegmentedLog:
    """Reads the segments in a directory. Nothing here writes, and no lock is needed.

    Every method raises `OSError` as the filesystem does, and `JournalCorrupt` at damage.
    """

    def __init__(self, filesystem: Filesystem, directory: Path, machine: int) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._machine = machine

    def segments(self) -> list[int]:
        """Return the first sequences of the segments, oldest first."""
        return list_segments(self._filesystem, self._directory)

    def newest(self) -> tuple[int, int]:
        """Return the last segment, 0 if there is none, and its length in bytes: unchanged if nothing was written."""
        segments = self.segments()
        if not segments:
            return 0, 0
        descriptor = self._filesystem.open_for_reading(segment_path(self._directory, segments[-1]))
        try:
            return segments[-1], self._filesystem.size(descriptor)
        finally:
            self._filesystem.close(descriptor)

    def find_end(self) -> LogEnd:
        """Read the last segment to its end; `NOWHERE` if there is none."""
        segments = self.segments()
        if not segments:
            return LogEnd(NOWHERE, 0)
        with closing(self._open(segments[-1], segments[-1])) as segment:
            position = segment.start()
            last_write_offset = 0
            while isinstance(step := segment.read_or_judge(position, is_last=True), tuple):
                last_write_offset = position.offset
                position = step[1]
        return LogEnd(position, last_write_offset, step)

    def read(
        self, start: Position, from_sequence: int, to_sequence: int, must_reach: int
    ) -> Iterator[tuple[Record, Position]]:
        """Yield the records in the range, each with the position after it.

        `start` is a position before `from_sequence` that an earlier read returned, or `NOWHERE`.
        Raises `JournalTrimmed`, and `JournalCorrupt` if the log ends before `must_reach`.
        """
        position = start
        while position.sequence < to_sequence:
            # Listed before the segment is read: if there was a later one already, this one is
            # complete, and its end is final.
            segments = self.segments()
            if not segments:
                break
            if position.segment == 0:
                position = self._start(segments, from_sequence)
            elif position.segment not in segments and position.sequence + 1 in segments:
                position = self._enter(position.sequence + 1, position)
            later = next((first for first in segments if first > position.segment), None)
            with closing(self._open(position.segment, position.sequence + 1)) as segment:
                while position.sequence < to_sequence:
                    step = segment.read_or_judge(position, is_last=later is None)
                    if not isinstance(step, tuple):
                        break
                    record, position = step
                    if record.sequence >= from_sequence:
                        yield record, position
            if position.sequence >= to_sequence:
                break
            if later is not None:
                position = self._enter(later, position)
            elif max(self.segments(), default=0) <= position.segment:
                break
        if position.sequence < must_reach:
            raise self.ends_early(position, must_reach)

    def ends_early(self, position: Position, expected_sequence: int) -> JournalCorrupt:
        """Return the error for a log that ends at `position`, before `expected_sequence`."""
        return JournalCorrupt(
            "the log ends before a record that was durable",
            file=str(segment_path(self._directory, position.segment)),
            offset=position.offset,
            sequence_expected=expected_sequence,
            sequence_found=position.sequence,
        )

    def _enter(self, first_sequence: int, before: Position) -> Position:
        with closing(self._open(first_sequence, first_sequence)) as segment:
            return segment.start_after(before)

    def _start(self, segments: list[int], from_sequence: int) -> Position:
        if from_sequence < segments[0]:
            raise JournalTrimmed(from_sequence, segments[0])
        first = max(first for first in segments if first <= from_sequence)
        with closing(self._open(first, from_sequence)) as segment:
            return segment.start()

    def _open(self, first_sequence: int, from_sequence: int) -> SegmentReader:
        try:
            return SegmentReader.open(self._filesystem, self._directory, self._machine, first_sequence)
        except FileNotFoundError:
            # The writer trimmed it after it was listed, or it is gone for no good reason.
            segments = self.segments()
            if segments and segments[0] > first_sequence:
                raise JournalTrimmed(from_sequence, segments[0]) from None
            raise JournalCorrupt(
                "the segment is missing",
                file=str(segment_path(self._directory, first_sequence)),
                offset=0,
                sequence_expected=first_sequence,
            ) from None
