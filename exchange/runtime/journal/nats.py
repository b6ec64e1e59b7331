"""The journal in NATS JetStream, for exchanges that span machines: a record is on the disks of most servers.

    stream PREFIX-MACHINE       file storage, three copies, nothing is removed but by `trim`
    subject PREFIX.MACHINE.d      the records, in the bytes of `record.py`
    subject PREFIX.MACHINE.fence  the fences; the stream sequence of one is the epoch of who wrote it

Taking over writes a fence. Each append expects that fence to be the newest, so a writer before it is refused from then
on, whatever it has in flight; and expects the stream to end where it left it, so that nothing gets in twice or out of
turn. That makes it safe to send again what got no answer: if the first one got in, the second is refused, and a look
at the stream tells. One append is in flight at a time: a replicated stream refuses a second one with such a fence.
`Nats-Expected-Last-Msg-Id` is never used: a wrong value stops a replicated stream for good (server 2.15).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from exchange.runtime.journal.interface import (
    JournalFenced,
    JournalRecordTooLarge,
    JournalUnavailable,
)
from exchange.runtime.journal.nats_fence import HOLDER_BYTES, Fence, encode_fence
from exchange.runtime.journal.nats_link import NatsLink, Refused, Stored, Unanswered, WrongLastSequence
from exchange.runtime.journal.nats_log import NOWHERE, Position, StreamLog
from exchange.runtime.journal.nats_settings import NatsSettings
from exchange.runtime.journal.nats_stream import check_sync, prepare_stream
from exchange.runtime.journal.record import (
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    SEQUENCE_MAX,
    Record,
    encode_header,
    machine_identity,
)

_MACHINE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # a dot would make two tokens of a subject


@dataclass(slots=True)
class _Writer:
    """What exists only while the journal is held. `end` is behind the last acknowledged record."""

    fence: Fence
    end: Position
    failure: str | None = None
    fenced: str | None = None


class NatsJournal:
    """The `Journal` in a stream. Make it with `open`; it reads at once and writes after `acquire`."""

    def __init__(self, settings: NatsSettings, machine_name: str, link: NatsLink | None = None) -> None:
        self._settings = settings
        self._machine_name = machine_name
        self._machine = machine_identity(machine_name)
        self._stream = f"{settings.prefix}-{machine_name}"
        subject = f"{settings.prefix}.{machine_name}"
        self._link = link or NatsLink(settings, f"evenkeel journal {machine_name}", self._stream)
        self._log = StreamLog(self._link, self._stream, subject, self._machine, settings.append_limit_s)
        self._holder = bytes(HOLDER_BYTES)
        self._writer: _Writer | None = None
        self._cursor = NOWHERE  # where the last read ended, so that following is not re-reading

    @classmethod
    def open(cls, settings: NatsSettings, machine_name: str) -> NatsJournal:
        """Connect, check that the servers make each record durable, and make the stream if it is missing.

        Raises `ValueError` for a bad name, `JournalUnsafe` and `JournalUnavailable`.
        """
        if not _MACHINE_NAME.fullmatch(machine_name):
            raise ValueError(f"machine name: expected 1 to 64 of letters, digits, _ and -, was {machine_name!r}")
        journal = cls(settings, machine_name)
        try:
            with journal._storage("open"):
                journal._link.open()
                servers = journal._prepare_stream()
            check_sync(settings, servers)
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def machine_name(self) -> str:
        """Whose log this is."""
        return self._machine_name

    @property
    def first_sequence(self) -> int:
        """The oldest record that is kept; `last_sequence + 1` if there is none."""
        with self._storage("find the beginning"):
            first = self._log.first_record()
        return self.last_sequence + 1 if first is None else first.sequence

    @property
    def last_sequence(self) -> int:
        """The newest acknowledged record, 0 if there never was one; before `acquire`, the newest that is there."""
        if self._writer:
            return self._writer.end.record
        with self._storage("find the end"):
            last = self._log.last_record()
        return last.sequence if last else 0

    @property
    def is_connected(self) -> bool:
        """Whether a server can be reached now, as far as is known."""
        return self._link.is_connected

    @property
    def leader(self) -> str | None:
        """The name of the server that leads the stream, None while there is none. Raises `JournalUnavailable`."""
        with self._storage("find the leader of"):
            info = self._link.stream_info() or {}
        return (info.get("cluster") or {}).get("leader") or None

    @property
    def failure(self) -> str | None:
        """Why every append is refused until `reopen`; None while the journal is well."""
        return self._writer.failure if self._writer else None

    def acquire(self) -> int:
        """Write a fence, which shuts out every writer before, and return its place in the stream, the epoch.

        The newest record counts even if its writer died before it was acknowledged. It never raises `JournalLocked`:
        of several that acquire, the last is the writer. Raises `JournalCorrupt` or `JournalUnavailable`.
        """
        self._writer = None
        # Another one each time: a fence of an earlier time is not taken for one of this.
        self._holder = os.urandom(HOLDER_BYTES)
        with self._storage("acquire", surely_absent=False):
            self._link.open()
            fence = None
            while fence is None:  # another one got in before: after that one, then
                fence = self._write_fence(self._last_fence(self._link.now_s() + self._settings.append_limit_s))
            self._writer = _Writer(fence, self._log.end_before(fence))
        return fence.epoch

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        """Store the record and return once a majority of servers has it on disk.

        What gets no answer is sent again, up to the time limit of the settings. Raises `JournalFenced`,
        `JournalRecordTooLarge`, `JournalCorrupt` if something else wrote to the stream, or `JournalUnavailable`,
        after which all appends are refused until `reopen`.
        """
        writer = self._held()
        if epoch != writer.fence.epoch:
            raise JournalFenced(f"expected epoch {writer.fence.epoch}, was {epoch}: stop for good")
        if writer.failure:
            raise JournalUnavailable(f"an earlier write failed ({writer.failure}): call reopen", surely_absent=True)
        if sequence != writer.end.record + 1:
            raise JournalFenced(f"expected sequence {writer.end.record + 1}, was {sequence}")
        with self._storage("append to"):
            payload_bytes_max = min(self._link.message_bytes_max - HEADER_BYTES, PAYLOAD_BYTES_MAX)
        if len(payload) > payload_bytes_max:
            raise JournalRecordTooLarge(len(payload), payload_bytes_max)
        checksum_before = writer.end.checksum or 0
        header, checksum = encode_header(self._machine, epoch, sequence, checksum_before, payload)
        # Set first and cleared last: whatever interrupts the append leaves the journal failed.
        writer.failure = "the append did not finish"
        try:
            self._store(writer, header + payload)
        except JournalUnavailable as error:
            writer.failure = str(error)
            raise
        except JournalFenced as error:
            writer.fenced = str(error)
            raise
        writer.end = Position(writer.end.message + 1, sequence, writer.fence, checksum)
        writer.failure = None

    def reopen(self) -> int:
        """Write a fence of our own, which shuts out what we still have on its way; return the new epoch.

        Afterwards there may be one more record than was acknowledged. Raises `JournalFenced` if another writer took
        over, `JournalCorrupt` if acknowledged records are gone, and `JournalUnavailable` (try again later).
        """
        writer = self._held()
        writer.failure = writer.failure or "the reopening did not finish"
        with self._storage("reopen", surely_absent=False):
            self._link.open()
            last = self._log.last_fence()
            if self._is_ours(last, writer.fence):
                fence: Fence | None = last  # of an earlier try that got no answer
            else:
                fence = self._write_fence(writer.fence)
            if fence is None:
                writer.fenced = self._taken_over()
                raise JournalFenced(writer.fenced)
            end = self._log.end_before(fence)
            if end.record < writer.end.record:
                raise self._log.corrupt(
                    "the stream ends before a record that was acknowledged", end.message, writer.end.record, end.record
                )
            for _ in self._log.read(writer.end, end.record, end.record):
                pass  # the chain from the last acknowledged record to the end is verified
            if end.record == writer.end.record and end.checksum != writer.end.checksum:
                raise self._log.corrupt("not the record that was acknowledged", end.message, end.record)
            self._writer = _Writer(fence, end)
        return fence.epoch

    def read(self, from_sequence: int, to_sequence: int | None = None) -> Iterator[Record]:
        """Yield verified records from `from_sequence` to `to_sequence`, or to the end.

        Raises, while iterating, `JournalTrimmed`, `JournalCorrupt`, `JournalUnavailable`; `ValueError` below 1.
        """
        if from_sequence < 1:
            raise ValueError(f"from_sequence: expected 1 or more, was {from_sequence}")
        if to_sequence is not None and to_sequence < from_sequence:
            return
        limit_s = self._link.now_s() + self._settings.append_limit_s
        while True:
            try:
                last = max(self.last_sequence, from_sequence - 1)
                limit = last if to_sequence is None else min(to_sequence, last)
                for record in self._read(from_sequence, limit, limit):
                    yield record
                    from_sequence = record.sequence + 1
                    limit_s = self._link.now_s() + self._settings.append_limit_s
                return
            except JournalUnavailable:
                # It goes on where it stopped, once servers answer again.
                if self._link.now_s() >= limit_s:
                    raise
            self._link.pause()

    def follow(self, after_sequence: int) -> Iterator[Record]:
        """Yield verified records after `after_sequence`: all that the server which answers has. One request if it has
        none.

        Raises, while iterating, `JournalTrimmed`, `JournalCorrupt`, `JournalUnavailable`.
        """
        yield from self._read(after_sequence + 1, SEQUENCE_MAX, after_sequence)

    def trim(self, up_to_sequence: int) -> None:
        """Let go of the records up to `up_to_sequence`, but of the last one never; and of fences before those."""
        writer = self._held()
        with self._storage("trim"):
            first = self._log.first_record()
            keep = min(up_to_sequence + 1, writer.end.record)
            if first is None or keep <= first.sequence:
                return
            fence = self._log.fence_of(keep, writer.fence)
            self._link.purge(self._log.data_subject, keep + fence.ordinal)
            self._link.purge(self._log.fence_subject, fence.epoch)

    def close(self) -> None:
        """Let go of the journal and the connection. Closing twice is allowed."""
        self._writer = None
        self._link.close()

    def _prepare_stream(self) -> list[str]:
        """Make the stream if need be; return its servers. While the servers elect a leader, they are asked again."""
        limit_s = self._link.now_s() + self._settings.append_limit_s
        while True:
            try:
                return prepare_stream(self._link, self._stream, self._log.subjects, self._settings.copies)
            except (Unanswered, Refused):
                if self._link.now_s() >= limit_s:
                    raise
            self._link.pause()

    def _held(self) -> _Writer:
        if self._writer is None:
            raise JournalFenced(f"the journal of {self._machine_name} is not held: acquire it first")
        if self._writer.fenced:
            raise JournalFenced(self._writer.fenced)
        return self._writer

    @contextmanager
    def _storage(self, action: str, *, surely_absent: bool = True) -> Iterator[None]:
        try:
            yield
        except (Unanswered, Refused, OSError) as error:
            raise JournalUnavailable(
                f"could not {action} the journal of {self._machine_name}: {error}", surely_absent=surely_absent
            ) from error

    def _read(self, from_sequence: int, to_sequence: int, must_reach: int) -> Iterator[Record]:
        must_reach = max(must_reach, from_sequence - 1)
        with self._storage("read"):
            at = self._cursor if self._cursor.record == from_sequence - 1 and self._cursor.message else None
            if at is None:
                at = self._log.start(from_sequence, must_reach)
            if at is None:
                return
            for record, after in self._log.read(at, to_sequence, must_reach):
                self._cursor = after
                if record.sequence >= from_sequence:
                    yield record

    def _write_fence(self, last: Fence) -> Fence | None:
        """Write the fence that goes on from `last`; None if another writer did that before."""
        data = encode_fence(self._machine, last.ordinal + 1, last.epoch, self._holder)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last.epoch)}
        limit_s = self._link.now_s() + self._settings.append_limit_s
        while True:
            try:
                epoch = self._link.publish(self._log.fence_subject, data, headers)
                return Fence(epoch, last.ordinal + 1, last.epoch, self._holder)
            except (Unanswered, Refused):
                newest = self._last_fence(limit_s)
            if newest.epoch > last.epoch:
                return newest if self._is_ours(newest, last) else None
            if self._link.now_s() >= limit_s:
                raise Unanswered("the servers take no fence", was_sent=True)
            self._link.pause()

    def _is_ours(self, fence: Fence, before: Fence) -> bool:
        """Tell whether this object wrote `fence` as the one that goes on from `before`."""
        return fence.holder == self._holder and fence.previous_epoch == before.epoch

    def _last_fence(self, limit_s: float) -> Fence:
        """Return the newest fence; while no leader answers, ask again up to `limit_s` of the link's clock."""
        while True:
            try:
                return self._log.last_fence()
            except (Unanswered, Refused):
                if self._link.now_s() >= limit_s:
                    raise
            self._link.pause()

    def _store(self, writer: _Writer, data: bytes) -> None:
        """Get the record into the stream, as the next message; return once it surely is."""
        headers = {
            "Nats-Expected-Last-Sequence": str(writer.end.message),
            "Nats-Expected-Last-Subject-Sequence": str(writer.fence.epoch),
            "Nats-Expected-Last-Subject-Sequence-Subject": self._log.fence_subject,
        }
        may_be_in = False
        limit_s = self._link.now_s() + self._settings.append_limit_s
        while True:
            why: Exception
            try:
                place = self._link.publish(self._log.data_subject, data, headers)
            except WrongLastSequence as refused:
                why = refused
                if self._is_stored(writer, data):
                    return
            except Refused as refused:
                why = refused
                may_be_in = True  # refused for another reason than what it expects: not every one is known
            except Unanswered as unanswered:
                why = unanswered
                may_be_in = may_be_in or unanswered.was_sent
            else:
                if place != writer.end.message + 1:
                    raise self._log.corrupt("the record got another place than it expected", place)
                return
            if self._link.now_s() >= limit_s:
                raise JournalUnavailable(
                    f"record {writer.end.record + 1} was not acknowledged within {self._settings.append_limit_s} s "
                    f"({why})",
                    surely_absent=not may_be_in,
                )
            self._link.pause()

    def _is_stored(self, writer: _Writer, data: bytes) -> bool:
        """Tell whether an earlier try of ours got in; False also while that cannot be known.

        Raises `JournalFenced` if another writer took over, and `JournalCorrupt` if what is there is not ours.
        """

        def is_ours(copy: Stored) -> bool:
            if (copy.subject, copy.data) == (self._log.data_subject, data):
                return True
            raise self._log.corrupt("a message that this writer did not write", copy.sequence, writer.end.record + 1)

        try:
            # The fence first: whoever wrote one after the record is the writer now, in any case.
            if self._log.last_fence().epoch > writer.fence.epoch:
                raise JournalFenced(self._taken_over())
            there = self._link.at(writer.end.message + 1)
            if there is None:
                return False
            if there.subject == self._log.fence_subject:
                raise JournalFenced(self._taken_over())
            return self._log.sound(there.sequence, is_ours)
        except (Unanswered, Refused):
            return False

    def _taken_over(self) -> str:
        return f"another writer took over the journal of {self._machine_name}: stop for good"
