"""Letters, from the change that they tell to their delivery; in the file of the history, in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import structlog

from status.announce.letters import Content, Letter, State
from status.history.store import Store

_log = structlog.get_logger()
_DAY_NS = 86_400_000_000_000


class Outbox:
    """All that wait or are dead, and the ids of all that were ever made as far as they are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.letters: dict[str, Letter] = {}
        self._known: set[str] = set()
        self._references: dict[tuple[str, str], str] = {}
        self._last_sent_ns: dict[tuple[str, str], int] = {}

    def restore(self) -> None:
        for id_, state in self._store.read("SELECT id, state FROM outbox"):
            self._known.add(id_)
            if state in (State.WAITING, State.DEAD):
                self._restore_letter(id_)
        for subscriber, subject, reference in self._store.read("SELECT * FROM threads"):
            self._references[subscriber, subject] = reference

    def _restore_letter(self, id_: str) -> None:
        rows = self._store.read("SELECT * FROM outbox WHERE id = ?", (id_,))
        (_, subscriber, subject, body, created_ns, due_ns, attempts, state, error) = rows[0]
        self.letters[id_] = Letter(
            id=id_,
            subscriber=subscriber,
            subject=subject,
            content=msgspec.json.decode(body, type=Content),
            created_ns=created_ns,
            due_ns=due_ns,
            attempts=attempts,
            state=State(state),
            error=error,
        )

    def add(self, letter: Letter) -> bool:
        """False if it is known already: it was sent, or will be."""
        if letter.id in self._known:
            return False
        self._known.add(letter.id)
        self.letters[letter.id] = letter
        self._write(letter)
        return True

    def waiting(self) -> list[Letter]:
        """Oldest first."""
        return [letter for letter in self.letters.values() if letter.state is State.WAITING]

    def dead(self) -> list[Letter]:
        return [letter for letter in self.letters.values() if letter.state is State.DEAD]

    def reference(self, subscriber: str, subject: str) -> str:
        return self._references.get((subscriber, subject), "")

    def has_told(self, subscriber: str, subject: str) -> bool:
        return (subscriber, subject) in self._references or any(
            letter.subscriber == subscriber and letter.subject == subject for letter in self.letters.values()
        )

    def last_sent_ns(self, subscriber: str, subject: str) -> int:
        return self._last_sent_ns.get((subscriber, subject), 0)

    def sent(self, letter: Letter, reference: str, at_ns: int) -> None:
        key = (letter.subscriber, letter.subject)
        self._references[key] = reference
        self._last_sent_ns[key] = at_ns
        statement = "INSERT OR REPLACE INTO threads VALUES (?, ?, ?)"
        self._store.note(("thread", *key), statement, (*key, reference))
        self._end(letter, State.SENT)
        _log.info("status.announced", id=letter.id, subscriber=letter.subscriber, attempts=letter.attempts)

    def merged(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self._end(letter, State.MERGED)

    def failed(self, letter: Letter, error: str, due_ns: int, *, is_dead: bool) -> None:
        letter.attempts += 1
        letter.error = error
        letter.due_ns = due_ns
        if is_dead:
            letter.state = State.DEAD
            _log.error("status.dead_letter", code="DEAD_LETTER", id=letter.id, attempts=letter.attempts, error=error)
        self._write(letter)

    def resend(self, ids: Iterable[str], at_ns: int) -> int:
        """Dead letters wait again, all if none is named; returns how many."""
        wanted = set(ids)
        found = [letter for letter in self.dead() if not wanted or letter.id in wanted]
        for letter in found:
            letter.state, letter.attempts, letter.due_ns = State.WAITING, 0, at_ns
            self._write(letter)
        return len(found)

    def trim(self, now_ns: int, days: int) -> None:
        statement = "DELETE FROM outbox WHERE created_ns < ? AND state IN ('sent', 'merged')"
        self._store.note(("trim", "outbox"), statement, (now_ns - days * _DAY_NS,))

    def _end(self, letter: Letter, state: State) -> None:
        letter.state = state
        self._write(letter)
        del self.letters[letter.id]

    def _write(self, letter: Letter) -> None:
        row = (
            letter.id,
            letter.subscriber,
            letter.subject,
            msgspec.json.encode(letter.content),
            letter.created_ns,
            letter.due_ns,
            letter.attempts,
            letter.state.value,
            letter.error,
        )
        self._store.note(("letter", letter.id), "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
