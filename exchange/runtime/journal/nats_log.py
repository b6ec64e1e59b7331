"""The stream of a `nats` journal as a log: where a record is, and reading records verified.

Reads are answered by any server that has a copy. What one of them has may be behind, and may be damaged; so damage in
one answer is looked at again in other servers' copies before it is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import structlog

from exchange.runtime.journal.interface import JournalCorrupt, JournalTrimmed
from exchange.runtime.journal.nats_fence import BEFORE_ALL, Fence, FenceInvalid, decode_fence
from exchange.runtime.journal.nats_link import BATCH_MESSAGES_MAX, NatsLink, Stored, Unanswered
from exchange.runtime.journal.record import FORMAT_VERSION, Record, RecordInvalid, decode, decode_header

COPIES_ASKED = 16
"""Which server answers is chance, and the answer does not say: so many leave out one of three in 2 of 1,000 cases."""
LEADER_ONLY_S = 10.0

_log = structlog.get_logger()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two messages. `checksum` is of the record before, None if that is not known (it was trimmed)."""

    message: int
    record: int
    fence: Fence
    checksum: int | None


NOWHERE = Position(0, 0, BEFORE_ALL, 0)


class StreamLog:
    """Reads a stream. Raises `Unanswered` when servers do not answer, and `JournalCorrupt` at damage."""

    def __init__(self, link: NatsLink, stream: str, subject: str, machine: int, patience_s: float) -> None:
        self.data_subject = f"{subject}.d"
        self.fence_subject = f"{subject}.fence"
        self.subjects = (self.data_subject, self.fence_subject)
        self._link = link
        self._stream = stream
        self._machine = machine
        self._patience_s = patience_s
        self._fences: dict[int, Fence] = {}  # by epoch, those that were read
        self._newest = BEFORE_ALL
        self._leader_only_until_s = 0.0
        self._ahead: list[Stored] = []  # the last batch: a reader that takes a few at a time does not ask again

    # ---------------------------------------------------------------- fences

    def last_fence(self) -> Fence:
        """Return the newest fence that the leader has, or that was seen before; `BEFORE_ALL` if there is none."""
        last = self._link.last(self.fence_subject)
        if last is not None and last.sequence > self._newest.epoch:
            self._newest = self._fence_at(last.sequence)
        return self._newest

    def fence_of(self, record: int, newest: Fence) -> Fence:
        """Return the fence that `record` is behind, going back from `newest`. Raises `JournalTrimmed`."""
        fence = newest
        while fence.last_record >= record:
            fence = self._fence_before(fence, record)
        return fence

    def _fence_before(self, fence: Fence, record: int) -> Fence:
        if fence.ordinal <= 1:
            raise self.corrupt(f"record {record} would be before the first fence", fence.epoch)
        before = self._fence_at(fence.previous_epoch)
        if before.ordinal != fence.ordinal - 1:
            raise self.corrupt(
                f"expected the fence with ordinal {fence.ordinal - 1}, found {before.ordinal}", before.epoch
            )
        return before

    def _fence_at(self, message: int) -> Fence:
        known = self._fences.get(message)
        if known is None:
            known = self._fences[message] = self.sound(message, self._decode_fence)
        return known

    def _decode_fence(self, message: Stored) -> Fence:
        if message.subject != self.fence_subject:
            raise self.corrupt(f"expected a fence, found a message to {message.subject}", message.sequence)
        try:
            return decode_fence(self._machine, message.sequence, message.data)
        except FenceInvalid as invalid:
            raise self.corrupt(str(invalid), message.sequence) from invalid

    # ---------------------------------------------------------------- positions and ends

    def first_record(self) -> Record | None:
        """Return the oldest record that the leader keeps; None if there is none."""
        return self._despite_trim(lambda first: None if first is None else self._identify(first)[0])

    def last_record(self) -> Record | None:
        """Return the newest record that the leader has; None if there is none."""
        return self._end()[0]

    def _end(self) -> tuple[Record | None, Fence]:
        """Return the newest record that the leader has, and its fence."""
        last = self._link.last(self.data_subject)
        return (None, BEFORE_ALL) if last is None else self._identify(last)

    def start(self, from_record: int, must_reach: int) -> Position | None:
        """Return a position from which `from_record` is reached, None if the log is empty.

        It is before the record in front, where there is one, so that the chain is verified from there.
        Raises `JournalTrimmed`, and `JournalCorrupt` if the log ends before `must_reach`.
        """
        return self._despite_trim(lambda _: self._start(from_record, must_reach))

    def _despite_trim(self, work: Callable[[Stored | None], _T]) -> _T:
        """Return what `work` makes of the first record's message; again, if that was trimmed meanwhile."""
        while True:
            first = self._link.first(self.data_subject)
            try:
                return work(first)
            except JournalCorrupt:
                now = self._link.first(self.data_subject)
                if first is None or now is None or now.sequence <= first.sequence:
                    raise

    def _start(self, from_record: int, must_reach: int) -> Position | None:
        limit_s = self._link.now_s() + self._patience_s
        while True:
            first, (last, newest) = self.first_record(), self._end()
            last_sequence = last.sequence if last else 0
            if last_sequence >= must_reach and (first or not must_reach):
                break
            # An old leader may go on answering for some seconds without what came since.
            if self._link.now_s() >= limit_s:
                raise self.ends_early(must_reach, last_sequence)
            self._link.pause()
        if first is None or last is None:
            return None
        if from_record < first.sequence:
            raise JournalTrimmed(from_record, first.sequence)
        record = max(from_record - 1, first.sequence)
        fence = self.fence_of(record, newest)
        return Position(record + fence.ordinal - 1, record - 1, fence, 0 if record == 1 else None)

    def end_before(self, fence: Fence) -> Position:
        """Return the position behind `fence`, once the last record before it was seen.

        An old leader may not have it yet; so all are asked until one has.
        """
        record = fence.last_record
        if record == 0:
            return Position(fence.epoch, 0, fence, 0)
        before = self.fence_of(record, self._fence_before(fence, record))
        start = Position(record + before.ordinal - 1, record - 1, before, None)
        _, at = self.sound(start.message + 1, lambda message: self.step(start, message))
        return Position(fence.epoch, record, fence, at.checksum)

    # ---------------------------------------------------------------- reading

    def read(self, start: Position, to_record: int, must_reach: int) -> Iterator[tuple[Record, Position]]:
        """Yield what is behind `start` up to `to_record`, each record with the position behind it.

        Raises `JournalTrimmed`, and `JournalCorrupt` if the log ends before `must_reach`.
        """
        at = start
        careful_until = 0
        while at.record < to_record:
            is_careful = at.message < careful_until
            messages = self._more(at.message + 1, alone=is_careful, must_exist=at.record < must_reach)
            if not messages:
                return
            for message in messages:
                try:
                    record, at = self.step(at, message)
                except JournalCorrupt as damage:
                    self._check_trimmed(at, message)
                    record, at = self._second_opinion(at, damage)
                    # The rest of what came with it is not trusted, and neither is that server for what is next.
                    careful_until = at.message + BATCH_MESSAGES_MAX
                if record is not None:
                    yield record, at
                if at.message < careful_until or at.record >= to_record:
                    break

    def _more(self, message: int, *, alone: bool, must_exist: bool) -> list[Stored]:
        """Return messages from there on; `alone`: only that one, from the leader."""
        messages: list[Stored] | None = None
        if not alone and self._ahead and self._ahead[0].sequence <= message <= self._ahead[-1].sequence:
            return [ahead for ahead in self._ahead if ahead.sequence >= message]
        if not alone and self._link.now_s() >= self._leader_only_until_s:
            try:
                messages = self._ahead = self._link.batch(message)
            except Unanswered as unanswered:
                # A server that hangs is still asked for its share of reads: do without them for a while.
                self._leader_only_until_s = self._link.now_s() + LEADER_ONLY_S
                _log.info("journal.reading_from_leader", stream=self._stream, error=str(unanswered))
        if messages is None:
            copy = self._link.at(message)
            messages = [] if copy is None else [copy]
        if not messages and must_exist:
            # The server that was asked may be behind, or may have lost its end: all are asked.
            messages = [self.sound(message, lambda copy: copy)]
        return messages

    def _second_opinion(self, at: Position, damage: JournalCorrupt) -> tuple[Record | None, Position]:
        _log.error("journal.copy_damaged", stream=self._stream, message=at.message + 1, error=str(damage))
        return self.sound(at.message + 1, lambda copy: self.step(at, copy))

    def step(self, at: Position, message: Stored) -> tuple[Record | None, Position]:
        """Verify that `message` goes on from `at`; return its record (None: a fence) and the position behind it."""
        if message.sequence != at.message + 1:
            raise self.corrupt("messages are missing", at.message + 1, at.record + 1)
        if message.subject == self.fence_subject:
            fence = self._decode_fence(message)
            if (fence.ordinal, fence.previous_epoch) != (at.fence.ordinal + 1, at.fence.epoch):
                raise self.corrupt(
                    f"expected the fence {at.fence.ordinal + 1} after {at.fence.epoch}, "
                    f"found {fence.ordinal} after {fence.previous_epoch}",
                    message.sequence,
                )
            return None, Position(message.sequence, at.record, fence, at.checksum)
        record = self._decode_record(at, message)
        return record, Position(message.sequence, record.sequence, at.fence, record.checksum)

    def _decode_record(self, at: Position, message: Stored) -> Record:
        record = self._verify_alone(message)
        expected = at.record + 1
        reason = None
        if record.sequence != expected:
            reason = "the sequence has a gap or goes back"
        elif record.epoch != at.fence.epoch:
            reason = f"expected the epoch of its fence, {at.fence.epoch}, found {record.epoch}"
        elif at.checksum is not None and record.previous_checksum != at.checksum:
            reason = "the record does not go on from the one before it"
        if reason is not None:
            raise self.corrupt(reason, message.sequence, expected, record.sequence)
        return record

    def _identify(self, message: Stored) -> tuple[Record, Fence]:
        """Return the record of a message that nothing is known about but that it is one, and its fence."""
        try:
            record = self._verify_alone(message)
        except JournalCorrupt:
            record = self.sound(message.sequence, self._verify_alone)
        try:
            fence = self._fence_at(record.epoch)
        except JournalCorrupt as error:
            fence = BEFORE_ALL
            reason = error.reason
        else:
            reason = f"there, {record.epoch + record.sequence - fence.last_record} would be its place"
        if record.epoch < message.sequence == fence.ordinal + record.sequence:
            return record, fence
        raise self.corrupt(
            f"the record's epoch {record.epoch} does not fit its place: {reason}",
            message.sequence,
            found=record.sequence,
        )

    def _verify_alone(self, message: Stored) -> Record:
        """Verify what can be without knowing what is before it."""
        try:
            header = decode_header(message.data)
            record = decode(message.data)
        except RecordInvalid as invalid:
            raise self.corrupt(invalid.fault.value, message.sequence) from invalid
        reason = None
        if message.subject != self.data_subject:
            reason = f"expected a record, found a message to {message.subject}"
        elif header.version != FORMAT_VERSION:
            reason = f"expected format version {FORMAT_VERSION}, found {header.version}"
        elif header.machine != self._machine:
            reason = f"expected machine {self._machine:016x}, found {header.machine:016x}"
        elif header.record_bytes != len(message.data):
            reason = f"expected {header.record_bytes} bytes, found {len(message.data)}"
        if reason is not None:
            raise self.corrupt(reason, message.sequence)
        return record

    def ends_early(self, expected: int, found: int) -> JournalCorrupt:
        """Return the error for a log that ends at the record `found`."""
        return self.corrupt("the log ends before a record that was durable", found, expected, found)

    def corrupt(
        self, reason: str, message: int, expected: int | None = None, found: int | None = None
    ) -> JournalCorrupt:
        """Return the error for damage at a message of the stream."""
        return JournalCorrupt(
            reason,
            file=f"stream {self._stream}",
            offset=message,
            offset_unit="message",
            sequence_expected=expected,
            sequence_found=found,
            remedy="every server's copy was looked at: keep them as they are, and restore the stream from a backup, or "
            "start the machine with a new journal from the state of its standby or a snapshot",
        )

    # ---------------------------------------------------------------- other copies

    def sound(self, message: int, verify: Callable[[Stored], _T]) -> _T:
        """Return what `verify` makes of the first copy of the message that it takes.

        While no copy can be had, they are asked again, up to the time limit. Raises the first `JournalCorrupt` that
        `verify` raised if no copy is good, another if there is none, and `Unanswered`.
        """
        limit_s = self._link.now_s() + self._patience_s
        while True:
            damage: JournalCorrupt | None = None
            unanswered: Unanswered | None = None
            for get in self._copies(message):
                try:
                    copy = get()
                    if copy is not None:
                        good = verify(copy)
                        if damage is not None:
                            _log.error("journal.copy_damaged", stream=self._stream, message=message, error=str(damage))
                        return good
                except JournalCorrupt as error:
                    damage = damage or error
                except Unanswered as error:
                    unanswered = error
            if damage is not None and unanswered is None:
                raise damage
            if self._link.now_s() >= limit_s:
                raise damage or unanswered or self.corrupt("the message is missing", message)
            self._link.pause()

    def _copies(self, message: int) -> Iterator[Callable[[], Stored | None]]:
        yield lambda: self._link.at(message)
        for _ in range(COPIES_ASKED):
            yield lambda: self._link.any_copy(message)

    def _check_trimmed(self, at: Position, message: Stored) -> None:
        if message.sequence > at.message + 1:
            first = self.first_record()
            if first is not None and first.sequence > at.record + 1:
                raise JournalTrimmed(at.record + 1, first.sequence)
