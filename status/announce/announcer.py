"""Makes letters of what changed, and sees them delivered: one at a time a subscriber, in order, tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from status.announce.channels import Channel, NotDelivered
from status.announce.letters import Letter, Templates, letter_id
from status.announce.outbox import Outbox
from status.announce.subscribers import Announce, Subscriber
from status.history.store import Store
from status.model import Incident, Maintenance

_LOOK_AGAIN_S = 0.5
"""Letters that are not due yet are looked at so often."""


class Announcer:
    """`secrets`: by subscriber. Nothing is sent before it is on disk that it shall be, unless the disk fails."""

    def __init__(
        self,
        settings: Announce,
        channels: Mapping[str, Channel],
        secrets: Mapping[str, str],
        templates: Templates,
        store: Store,
        clock_ns: Callable[[], int],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._channels = channels
        self._secrets = secrets
        self._templates = templates
        self._store = store
        self._clock_ns = clock_ns
        self._jitter = jitter
        self._news = {subscriber.id: asyncio.Event() for subscriber in settings.subscribers}
        self.outbox = Outbox(store)

    def tell(self, subject: Incident | Maintenance, names: dict[str, str]) -> None:
        """A subject changed: whoever wants to know gets a letter. Once told of it, it is told to its end."""
        now_ns = self._clock_ns()
        for subscriber in self._settings.subscribers:
            if not subscriber.wants(subject) and not self.outbox.has_told(subscriber.id, subject.id):
                continue
            letter = Letter(
                id=letter_id(subscriber.id, subject),
                subscriber=subscriber.id,
                subject=subject.id,
                content=self._templates.content(subject, names),
                created_ns=now_ns,
                due_ns=now_ns,
            )
            if self.outbox.add(letter):
                self._news[subscriber.id].set()

    def resend(self, ids: list[str]) -> int:
        count = self.outbox.resend(ids, self._clock_ns())
        for news in self._news.values():
            news.set()
        return count

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for subscriber in self._settings.subscribers:
                tasks.create_task(self._serve(subscriber))

    async def _serve(self, subscriber: Subscriber) -> None:
        news = self._news[subscriber.id]
        while True:
            news.clear()
            while await self.deliver_next(subscriber):
                pass
            try:
                await asyncio.wait_for(news.wait(), _LOOK_AGAIN_S if self._waiting(subscriber) else None)
            except TimeoutError:
                pass

    def _waiting(self, subscriber: Subscriber) -> list[Letter]:
        return [letter for letter in self.outbox.waiting() if letter.subscriber == subscriber.id]

    async def deliver_next(self, subscriber: Subscriber) -> bool:
        """Try the letter whose turn it is; False if none is due."""
        channel = self._channels[subscriber.channel]
        now_ns = self._clock_ns()
        blocked: set[str] = set()
        for letter in self._waiting(subscriber):
            if letter.subject in blocked:
                continue
            blocked.add(letter.subject)  # those behind it wait for it
            if self._due_ns(channel, letter) <= now_ns:
                await self._deliver(subscriber, channel, letter)
                return True
        return False

    def _due_ns(self, channel: Channel, letter: Letter) -> int:
        last_ns = self.outbox.last_sent_ns(letter.subscriber, letter.subject)
        if channel.gathers and last_ns:
            return max(letter.due_ns, last_ns + self._settings.gather_ms * 1_000_000)
        return letter.due_ns

    async def _deliver(self, subscriber: Subscriber, channel: Channel, letter: Letter) -> None:
        same = [waiting for waiting in self._waiting(subscriber) if waiting.subject == letter.subject]
        if not channel.takes_all and len(same) > 1:
            self.outbox.merged(same[:-1])
            same[-1].attempts = letter.attempts
            letter = same[-1]
        await self._store.flush()
        reference = self.outbox.reference(subscriber.id, letter.subject)
        secret = self._secrets.get(subscriber.id, "")
        at_s = self._clock_ns() // 1_000_000_000
        try:
            told = await channel.deliver(letter, subscriber.to, secret, reference, at_s)
        except NotDelivered as error:
            is_dead = error.is_final or letter.attempts + 1 >= self._settings.attempts_max
            due_ns = self._clock_ns() + int(self._wait_s(letter.attempts, error.retry_after_s) * 1e9)
            self.outbox.failed(letter, str(error), due_ns, is_dead=is_dead)
        else:
            letter.attempts += 1
            self.outbox.sent(letter, told, self._clock_ns())
        await self._store.flush()

    def _wait_s(self, attempts: int, asked_s: float | None) -> float:
        """Exponential with full jitter, and never less than the other side asks for."""
        longest_ms = min(self._settings.backoff_ms << attempts, self._settings.backoff_max_ms)
        return max(longest_ms / 1_000 * self._jitter(), asked_s or 0.0)
