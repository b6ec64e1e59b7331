"""What waits in a host for the next record, bounded, and who waits for what is in flight."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from exchange.engine.words import RejectReason
from exchange.runtime.messages import LinkBatch, ReplyStatus, SegmentKind, SegmentReply, pack

RECORD_BYTES_MAX = 256 << 10
MAILBOX_BYTES_MAX = 64 << 20
_NO_ROWS = pack([])


@dataclass(slots=True, eq=False)
class Letter:
    """A batch, since when it waits, and the future that becomes its packed replies."""

    batch: LinkBatch
    since_s: float
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(segment.data) for segment in self.batch.segments)

    def as_journaled(self, now_s: float) -> LinkBatch:
        """Return the batch as it is journaled: what is past its deadline keeps its place, so that answers do, too."""
        waited_ms = (now_s - self.since_s) * 1_000
        segments = self.batch.segments
        if all(segment.remaining_ms >= waited_ms for segment in segments):
            return self.batch
        kind = int(SegmentKind.LATE)
        return self.batch._replace(
            segments=[s if s.remaining_ms >= waited_ms else s._replace(kind=kind, data=_NO_ROWS) for s in segments]
        )


class Mailbox:
    """Letters in the order in which they came."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        """Set when there is something to look at."""
        self._letters: list[Letter] = []
        self._bytes = 0
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
        return letters

    def take_all(self) -> list[Letter]:
        """Take everything."""
        letters, self._letters, self._bytes = self._letters, [], 0
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


def refuse(batch: LinkBatch, reason: RejectReason, detail: str) -> bytes:
    """Return the packed replies that say that a batch is surely not executed."""
    return answer_alike(batch, ReplyStatus.REFUSED, reason, detail)


def answer_alike(batch: LinkBatch, status: ReplyStatus, reason: int, detail: str) -> bytes:
    """Return the packed replies that say the same of every segment."""
    return pack([SegmentReply(int(status), int(reason), b"", detail) for _ in batch.segments])
