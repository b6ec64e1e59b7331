"""What waits in a host for the next record, bounded in time and memory, and who waits for what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from exchange.engine.words import RejectReason
from exchange.overload.classes import WorkClass
from exchange.overload.service_rate import capacity_of
from exchange.runtime.messages import LinkBatch, ReplyStatus, SegmentKind, SegmentReply, pack

RECORD_BYTES_MAX = 256 << 10
MAILBOX_BYTES_MAX = 64 << 20
_NO_ROWS = pack([])


@dataclass(slots=True, eq=False)
class Letter:
    """A batch, since when it waits, and the future that becomes its packed replies.

    `busy_s` is how long the host had worked when it came.
    """

    batch: LinkBatch
    since_s: float
    busy_s: float = 0.0
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    size: int = field(init=False)
    commands: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(segment.data) for segment in self.batch.segments)
        self.commands = sum(commands for _, commands in self.batch.work)

    def as_journaled(self, now_s: float) -> LinkBatch:
        """Return the batch as it is journaled: what is past its deadline keeps its place, so that answers do, too."""
        waited_ms = (now_s - self.since_s) * 1_000
        return _without(self.batch, [s.remaining_ms < waited_ms for s in self.batch.segments], SegmentKind.LATE)


class Mailbox:
    """Letters in the order in which they came."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        """Set when there is something to look at."""
        self._letters: list[Letter] = []
        self._bytes = 0
        self.commands = 0
        """That wait, as far as their links have said."""
        self._unanswered: dict[Letter, None] = {}
        self._newest: dict[str, Letter] = {}
        """Of each link, as long as it is not answered."""

    def __bool__(self) -> bool:
        return bool(self._letters)

    def put(self, letter: Letter) -> bool:
        """Add a letter; return whether there was room for it."""
        if self._bytes + letter.size > MAILBOX_BYTES_MAX:
            return False
        if letter.batch.link:
            self._newest[letter.batch.link] = letter
        self._unanswered[letter] = None
        self._letters.append(letter)
        self._bytes += letter.size
        self.commands += letter.commands
        self.arrived.set()
        return True

    def same_as(self, batch: LinkBatch) -> Letter | None:
        """Return the letter with the same stamp that is not answered yet."""
        letter = self._newest.get(batch.link)
        if letter is None or (letter.batch.incarnation, letter.batch.n) != (batch.incarnation, batch.n):
            return None
        return letter

    def take(self) -> list[Letter]:
        """Take what goes into one record."""
        size = taken = 0
        for letter in self._letters:
            if taken and size + letter.size > RECORD_BYTES_MAX:
                break
            size += letter.size
            taken += 1
        letters, self._letters = self._letters[:taken], self._letters[taken:]
        self._bytes -= size
        self.commands -= sum(letter.commands for letter in letters)
        return letters

    def take_all(self) -> list[Letter]:
        """Take everything."""
        letters, self._letters, self._bytes, self.commands = self._letters, [], 0, 0
        return letters

    def answer(self, letter: Letter, replies: bytes | Exception) -> None:
        """Answer a letter that was taken."""
        self._unanswered.pop(letter, None)
        if self._newest.get(letter.batch.link) is letter:
            del self._newest[letter.batch.link]
        if isinstance(replies, bytes):
            letter.answer.set_result(replies)
        else:
            letter.answer.set_exception(replies)
            letter.answer.exception()  # nobody waits for a tick's

    def fail_all(self, error: Exception) -> None:
        """Fail everything that has no answer yet, taken or not."""
        for letter in self._unanswered:
            if not letter.answer.done():
                letter.answer.set_exception(error)


def shed(batch: LinkBatch, ahead: int, rate_per_s: float, wait_s_max: Mapping[WorkClass, float]) -> LinkBatch:
    """Return a batch without the segments that would wait behind `ahead` commands for longer than their class may."""
    is_shed = []
    for work_class, _ in batch.work:
        wait_s = wait_s_max.get(WorkClass(work_class))
        capacity = None if wait_s is None else capacity_of(rate_per_s, wait_s)
        is_shed.append(capacity is not None and ahead > capacity)
    return _without(batch, is_shed, SegmentKind.SHED)


def _without(batch: LinkBatch, is_out: list[bool], kind: SegmentKind) -> LinkBatch:
    """Return a batch with some segments' places kept, but not what they had."""
    if not any(is_out):
        return batch
    segments = [
        segment._replace(kind=int(kind), data=_NO_ROWS) if out else segment
        for segment, out in zip(batch.segments, is_out, strict=True)
    ]
    return batch._replace(segments=segments)


def refuse(batch: LinkBatch, reason: RejectReason, detail: str) -> bytes:
    """Return the packed replies that say that a batch is surely not executed."""
    return answer_alike(batch, ReplyStatus.REFUSED, reason, detail)


def answer_alike(batch: LinkBatch, status: ReplyStatus, reason: int, detail: str) -> bytes:
    """Return the packed replies that say the same of every segment."""
    return pack([SegmentReply(int(status), int(reason), b"", detail) for _ in batch.segments])
