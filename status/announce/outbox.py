"""What is to be said to whom, kept in the history until it was said: exactly once, as far as the channel allows.

A delivery is written before it is first tried, and marked when it was taken. Who is killed between the two tries it
once more, with the same id: webhooks and mail servers know it by that, an edit is made again without harm; only the
first message of a chat may then be there twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from status.announce.delivery import Delivery
from status.announce.messages import Message
from status.history.store import Store

ATTEMPTS_MAX = 12
BACKOFF_S_BASE, BACKOFF_S_MAX = 1.0, 900.0
"""With full jitter: the twelve attempts take about an hour and a half."""


class State(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


@dataclass(slots=True)
class Entry:
    """One message to one subscriber."""

    id: str
    subscriber: str
    message: Message
    created_ns: int
    due_ns: int
    attempts: int = 0
    state: State = State.WAITING
    error: str = ""
    is_under_way: bool = False
    """It is being said now: too late to leave it out."""


class Outbox:
    """Entries by subscriber, oldest first. What changes is noted in the store; `flush` it before acting on it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, list[Entry]] = {}
        self._said: dict[tuple[str, str], str] = {}
        """The newest revision that was put for each subscriber and subject."""
        self._references: dict[tuple[str, str], str] = {}
        self.dead: dict[str, Entry] = {}

    def restore(self) -> None:
        """Go on from what the history holds."""
        rows = self._store.read("SELECT * FROM outbox ORDER BY created_ns, id")
        for id_, subscriber, _, body, created_ns, due_ns, attempts, state, error in rows:
            message = msgspec.json.decode(body, type=Message)
            entry = Entry(id_, subscriber, message, created_ns, due_ns, attempts, State(state), error)
            self._said[subscriber, message.subject] = message.revision
            if entry.state is State.WAITING:
                self._waiting.setdefault(subscriber, []).append(entry)
            elif entry.state is State.DEAD:
                self.dead[id_] = entry
        for subscriber, subject, reference in self._store.read("SELECT * FROM threads"):
            self._references[subscriber, subject] = reference

    def put(self, subscriber: str, message: Message, now_ns: int, *, replaces: bool) -> bool:
        """Enter a message unless its revision was put already; return whether it is new.

        `replaces`: the channel edits, so what still waits to be said of the subject need not be said any more.
        """
        key = subscriber, message.subject
        if self._said.get(key) == message.revision:
            return False
        self._said[key] = message.revision
        waiting = self._waiting.setdefault(subscriber, [])
        if replaces:
            for entry in [e for e in waiting if e.message.subject == message.subject and not e.is_under_way]:
                waiting.remove(entry)
                self._store.note(("outbox", entry.id), "DELETE FROM outbox WHERE id = ?", (entry.id,))
        entry = Entry(f"{subscriber}.{message.subject}.{message.revision}", subscriber, message, now_ns, now_ns)
        waiting.append(entry)
        self._write(entry)
        return True

    def skip(self, subscriber: str, messages: Iterable[Message], now_ns: int) -> None:
        """Take messages for said: what was over before a subscriber was there is no news to it."""
        for message in messages:
            if self._said.get((subscriber, message.subject)) is None:
                self._said[subscriber, message.subject] = message.revision
                id_ = f"{subscriber}.{message.subject}.{message.revision}"
                self._write(Entry(id_, subscriber, message, now_ns, now_ns, state=State.SENT))

    def next(self, subscriber: str) -> Entry | None:
        """Return what is to be said next; of one subscriber one after the other, so that the order stays."""
        waiting = self._waiting.get(subscriber)
        return waiting[0] if waiting else None

    def begin(self, entry: Entry) -> Delivery:
        """Return what is to be delivered; `sent` or `failed` must follow."""
        entry.is_under_way = True
        return Delivery(entry.id, entry.message, self._references.get((entry.subscriber, entry.message.subject), ""))

    def sent(self, entry: Entry, reference: str) -> None:
        entry.state, entry.is_under_way = State.SENT, False
        self._waiting[entry.subscriber].remove(entry)
        self._write(entry)
        key = entry.subscriber, entry.message.subject
        if self._references.get(key) != reference:
            self._references[key] = reference
            self._store.note(("thread", *key), "INSERT OR REPLACE INTO threads VALUES (?, ?, ?)", (*key, reference))

    def failed(self, entry: Entry, error: str, due_ns: int, *, is_final: bool) -> None:
        """Put an entry off, or with `is_final` among the dead letters."""
        entry.attempts += 1
        entry.is_under_way = False
        entry.error, entry.due_ns = error, due_ns
        if is_final or entry.attempts >= ATTEMPTS_MAX:
            entry.state = State.DEAD
            self._waiting[entry.subscriber].remove(entry)
            self.dead[entry.id] = entry
        self._write(entry)

    def revive(self, id_: str, now_ns: int) -> bool:
        """Try a dead letter once more; False: there is none of this id."""
        entry = self.dead.pop(id_, None)
        if entry is None:
            return False
        entry.state, entry.attempts, entry.due_ns = State.WAITING, 0, now_ns
        self._waiting.setdefault(entry.subscriber, []).append(entry)
        self._write(entry)
        return True

    def _write(self, entry: Entry) -> None:
        row = (
            entry.id,
            entry.subscriber,
            entry.message.subject,
            msgspec.json.encode(entry.message),
            entry.created_ns,
            entry.due_ns,
            entry.attempts,
            entry.state.value,
            entry.error,
        )
        self._store.note(("outbox", entry.id), "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
