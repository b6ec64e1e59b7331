"""Follows the board, and says to each subscriber what is new to it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from status.announce.chats import SlackChannel, TelegramChannel
from status.announce.delivery import Channel, NotDelivered, Refused
from status.announce.mail import MailChannel
from status.announce.messages import messages_of
from status.announce.outbox import BACKOFF_S_BASE, BACKOFF_S_MAX, Entry, Outbox
from status.announce.subscribers import Mail, Slack, Subscriber, Telegram, Webhook
from status.announce.webhooks import WebhookChannel
from status.history.store import Store
from status.model import Board
from status.publisher import Publisher

SUBSCRIBER_KIND = "subscriber"
"""In the history: who was there before."""
DELIVERY_S_MAX = 30.0

_log = structlog.get_logger()


def make_channel(subscriber: Subscriber, secret_of: Callable[[str], str]) -> Channel:
    """Return the channel of a subscriber; `secret_of` reads the file of a token or a password."""
    match subscriber:
        case Telegram():
            return TelegramChannel(subscriber, secret_of(subscriber.token_file))
        case Slack():
            return SlackChannel(subscriber, secret_of(subscriber.token_file))
        case Webhook():
            return WebhookChannel(subscriber, secret_of(subscriber.secret_file))
        case Mail():
            return MailChannel(subscriber, secret_of(subscriber.password_file) if subscriber.password_file else "")


class Announcer:
    """`run` until cancelled. Of each subscriber one delivery is under way at a time, and none waits for another's."""

    def __init__(
        self,
        subscribers: Sequence[Subscriber],
        channels: Mapping[str, Channel],
        store: Store,
        publisher: Publisher,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.outbox = Outbox(store)
        self._subscribers = subscribers
        self._channels = channels
        self._store = store
        self._publisher = publisher
        self._clock_ns = clock_ns
        self._random = random
        self._more = {subscriber.name: asyncio.Event() for subscriber in subscribers}

    async def run(self) -> None:
        self.outbox.restore()
        self._welcome(self._publisher.board())
        async with asyncio.TaskGroup() as group:
            for subscriber in self._subscribers:
                group.create_task(self._serve(subscriber.name))
            group.create_task(self._follow())

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def revive(self, id_: str) -> bool:
        """Try a dead letter once more; False: there is none of this id."""
        entry = self.outbox.dead.get(id_)
        revived = self.outbox.revive(id_, self._clock_ns())
        if revived and entry is not None and entry.subscriber in self._more:
            self._more[entry.subscriber].set()
        return revived

    def _welcome(self, board: Board) -> None:
        """What was over before a subscriber was there is no news to it."""
        known = self._store.records(SUBSCRIBER_KIND, str)
        over = [message for message in messages_of(board) if message.is_over]
        for subscriber in self._subscribers:
            if subscriber.name not in known:
                self.outbox.skip(subscriber.name, over, self._clock_ns())
                self._store.put(SUBSCRIBER_KIND, subscriber.name, self._clock_ns(), subscriber.name)

    async def _follow(self) -> None:
        async for board in self._publisher.changes():
            for message in messages_of(board):
                for subscriber in self._subscribers:
                    if subscriber.wants(message.impact, message.components):
                        replaces = isinstance(subscriber, Telegram | Slack)
                        if self.outbox.put(subscriber.name, message, self._clock_ns(), replaces=replaces):
                            self._more[subscriber.name].set()

    async def _serve(self, name: str) -> None:
        more = self._more[name]
        while True:
            more.clear()
            entry = self.outbox.next(name)
            if entry is None:
                await more.wait()
                continue
            wait_s = (entry.due_ns - self._clock_ns()) / 1e9
            if wait_s > 0:
                try:
                    # A newer message may take its place meanwhile.
                    async with asyncio.timeout(wait_s):
                        await more.wait()
                except TimeoutError:
                    pass
                continue
            # Should it not be written, it is said all the same: the public comes first.
            await self._store.flush()
            await self._deliver(entry)
            await self._store.flush()

    async def _deliver(self, entry: Entry) -> None:
        log = _log.bind(subscriber=entry.subscriber, subject=entry.message.subject, delivery=entry.id)
        try:
            async with asyncio.timeout(DELIVERY_S_MAX):
                reference = await self._channels[entry.subscriber].deliver(self.outbox.begin(entry))
        except Refused as error:
            self.outbox.failed(entry, str(error), self._clock_ns(), is_final=True)
            log.error("announcement.refused", code=error.code, error=str(error))
        except (NotDelivered, TimeoutError) as error:
            why = str(error) or f"not done within {DELIVERY_S_MAX:.0f} s"
            asked_s = getattr(error, "retry_after_s", None)
            backoff_s = self._random() * min(BACKOFF_S_BASE * 2.0**entry.attempts, BACKOFF_S_MAX)
            due_ns = self._clock_ns() + int((backoff_s if asked_s is None else asked_s) * 1e9)
            self.outbox.failed(entry, why, due_ns, is_final=False)
            log.warning("announcement.not_delivered", code=NotDelivered.code, error=why, attempts=entry.attempts)
        else:
            self.outbox.sent(entry, reference)
            log.info("announcement.sent", revision=entry.message.revision, waited_ms=self._waited_ms(entry))

    def _waited_ms(self, entry: Entry) -> int:
        return (self._clock_ns() - entry.created_ns) // 1_000_000
