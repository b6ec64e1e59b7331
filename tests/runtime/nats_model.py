"""A stream as JetStream promises it, in memory, and links to it that lose, delay and repeat what a network can."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from exchange.runtime.journal.nats_link import NatsLink, Stored, Unanswered, WrongLastSequence

LAG_MESSAGES_MAX = 3
OPERATION_S = 0.001
PAUSE_S = 0.05


@dataclass(slots=True)
class Publish:
    """A message on its way, and what it expects."""

    subject: str
    data: bytes
    last: int | None
    last_of_subject: int
    subject_of_last: str


@dataclass
class StreamModel:
    """What all servers agree on. `on_its_way` may arrive later, or never."""

    messages: list[Stored] = field(default_factory=list)
    purged: set[int] = field(default_factory=set)
    on_its_way: list[Publish] = field(default_factory=list)

    def store(self, publish: Publish) -> int:
        """Store the message if what it expects is so. Raises `WrongLastSequence`."""
        last_of_subject = max((m.sequence for m in self.messages if m.subject == publish.subject_of_last), default=0)
        if last_of_subject != publish.last_of_subject:
            raise WrongLastSequence(f"wrong last sequence: {last_of_subject}", 10071)
        if publish.last is not None and publish.last != len(self.messages):
            raise WrongLastSequence(f"wrong last sequence: {len(self.messages)}", 10071)
        self.messages.append(Stored(len(self.messages) + 1, publish.subject, publish.data))
        return len(self.messages)

    def kept(self, lag: int = 0) -> list[Stored]:
        """Return what a copy holds that is `lag` messages behind."""
        return [m for m in self.messages[: len(self.messages) - lag] if m.sequence not in self.purged]


class UnreliableLink(NatsLink):
    """A link to the model in virtual time. `meanwhile` is called before each request: others act in between.

    `trouble` is the share of requests that go wrong; `publish_trouble` that of what is published.
    """

    def __init__(self, model: StreamModel, rng: random.Random, meanwhile: Callable[[], None], trouble: float) -> None:
        self._model = model
        self._rng = rng
        self._meanwhile = meanwhile
        self.trouble = self.publish_trouble = trouble
        self._now_s = 0.0

    def now_s(self) -> float:
        return self._now_s

    def pause(self) -> None:
        self._now_s += PAUSE_S

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def message_bytes_max(self) -> int:
        return 1 << 20

    def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        self._begin()
        last = headers.get("Nats-Expected-Last-Sequence")
        publish = Publish(
            subject,
            data,
            None if last is None else int(last),
            int(headers["Nats-Expected-Last-Subject-Sequence"]),
            headers.get("Nats-Expected-Last-Subject-Sequence-Subject", subject),
        )
        if self._rng.random() >= self.publish_trouble:
            return self._model.store(publish)
        match self._rng.randrange(5):
            case 0:
                raise Unanswered("not connected", was_sent=False)
            case 1:
                raise Unanswered("the request was lost", was_sent=True)
            case 2:
                self._model.on_its_way.append(publish)
                raise Unanswered("the request is late", was_sent=True)
            case 3:
                # A refusal is lost as well as an acknowledgement.
                self._arrive(publish)
                raise Unanswered("the answer was lost", was_sent=True)
            case _:
                # Sent once, arrived twice.
                self._model.on_its_way.append(publish)
                return self._model.store(publish)

    def last(self, subject: str) -> Stored | None:
        return next((m for m in reversed(self._look()) if m.subject == subject), None)

    def first(self, subject: str) -> Stored | None:
        return next((m for m in self._look() if m.subject == subject), None)

    def at(self, sequence: int) -> Stored | None:
        return next((m for m in self._look() if m.sequence == sequence), None)

    def batch(self, from_sequence: int) -> list[Stored]:
        return [m for m in self._look() if m.sequence >= from_sequence][:4]

    def any_copy(self, sequence: int) -> Stored | None:
        return self.at(sequence)

    def purge(self, subject: str, before_sequence: int) -> None:
        self._begin()
        self._model.purged.update(
            m.sequence for m in self._model.messages if m.subject == subject and m.sequence < before_sequence
        )

    def _begin(self) -> None:
        self._now_s += OPERATION_S
        self._meanwhile()
        waiting = self._model.on_its_way
        while waiting and self._rng.random() < 0.3:
            self._arrive(waiting.pop(self._rng.randrange(len(waiting))))

    def _arrive(self, publish: Publish) -> None:
        try:
            self._model.store(publish)
        except WrongLastSequence:
            pass  # nobody waits for the refusal

    def _look(self) -> list[Stored]:
        """Return what the server that answers has; it may be an old leader, or have a damaged disk."""
        self._begin()
        if self._rng.random() >= self.trouble:
            return self._model.kept()
        if self._rng.random() < 0.3:
            raise Unanswered("no answer", was_sent=True)
        found = self._model.kept(min(self._rng.randrange(LAG_MESSAGES_MAX + 1), len(self._model.messages)))
        if found and self._rng.random() < 0.3:
            victim = self._rng.randrange(len(found))
            found[victim] = replace(found[victim], data=found[victim].data[:-1] + b"?")
        return found
