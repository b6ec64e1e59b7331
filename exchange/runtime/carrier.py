"""Carries what a shard says to the ledger, and what the ledger says to it, until both have it.

The shard's messages stand in its machine's outbox until their answers are journaled; the ledger's stand in its feed,
and for a carrier that starts or fell behind in the answer to a question. Nothing that is carried twice has effect twice
(see `exchange.engine.channel`), so after any failure everything still open is carried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask, AskFunds, Message, RecallFunds, ReturnFunds
from exchange.engine.funds import Funds
from exchange.engine.ledger_words import LedgerEventKind
from exchange.runtime.feed import unpack_batch
from exchange.runtime.host import Host
from exchange.runtime.messages import LinkBatch, ReplyStatus, pack, unpack, unpack_replies
from exchange.runtime.peers import Peer, PeerUnavailable
from exchange.runtime.rows import rows_segment, unpack_ledger_results

MESSAGES_PER_BATCH = 500
FEED_WAIT_S = 10.0
RETRY_S = 0.1
_WAITING = int(AnswerStatus.WAITING)
_ANSWER, _RECALL = int(LedgerEventKind.ANSWER), int(LedgerEventKind.RECALL)

_log = structlog.get_logger()


class Carrier:
    """One for each shard, beside its host. `set_ledger` tells it where the ledger is."""

    def __init__(self, shard: str, host: Host) -> None:
        self._shard = shard
        self._host = host
        self._ledger: Peer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sent = 0
        """Messages up to this number have reached this incarnation of the ledger."""
        self._work = asyncio.Event()
        host.on_applied = self._on_applied

    def set_ledger(self, ledger: Peer | None) -> None:
        """Carry to this incarnation of the ledger from now on; None: it is away."""
        if (ledger and ledger.incarnation) == (self._ledger and self._ledger.incarnation):
            return
        self._ledger = ledger
        self._end_tasks()
        if ledger is not None:
            self._tasks = [asyncio.create_task(self._send(ledger)), asyncio.create_task(self._follow(ledger))]
            for task in self._tasks:
                task.add_done_callback(self._on_end)

    async def stop(self) -> None:
        """Carry nothing any more; what is open stands in both journals."""
        tasks = self._tasks
        self._end_tasks()
        self._ledger = None
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Say so if something ended that should go on: a bug, and until the next incarnation nothing is carried."""
        if not task.cancelled() and task.exception() is not None:
            _log.error("carrier.broken", shard=self._shard, error=repr(task.exception()))

    @property
    def _funds(self) -> Funds:
        funds: Funds = self._host.machine.funds
        return funds

    def _on_applied(self) -> None:
        if self._funds.outbox:
            self._work.set()

    # ---------------------------------------------------------------- to the ledger

    async def _send(self, ledger: Peer) -> None:
        """Send what is in the outbox, one batch in flight, each message once while nothing fails."""
        self._sent = 0
        while True:
            messages = self._unsent()
            if not messages:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                answers = await self._exchange(ledger, messages)
            except PeerUnavailable as error:
                _log.warning("carrier.interrupted", shard=self._shard, error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            self._sent = messages[-1].n
            if answers and not await self._tell_shard(answers):
                # The shard could not journal them: they are asked for again.
                self._sent = 0
                await asyncio.sleep(RETRY_S)

    def _unsent(self) -> list[Message]:
        outbox = self._funds.outbox
        if not outbox or next(reversed(outbox)) <= self._sent:
            return []
        return [message for n, message in outbox.items() if n > self._sent][:MESSAGES_PER_BATCH]

    async def _exchange(self, ledger: Peer, messages: Sequence[Message]) -> list[AnswerFunds]:
        """Have the ledger journal messages; return its answers, but for those that come later."""
        low = self._funds.low
        commands = [
            (AskFunds if isinstance(message, Ask) else ReturnFunds)(self._shard, low, *message) for message in messages
        ]
        batch = LinkBatch("", 0, 0, [rows_segment(commands)])
        reply = unpack_replies(await ledger.submit(pack(batch)))[0]
        if reply.status != ReplyStatus.DONE:
            raise PeerUnavailable(f"the ledger answers {ReplyStatus(reply.status).name}: {reply.detail}")
        answers = [result.answer for result in unpack_ledger_results(reply.data)]
        return [AnswerFunds(*answer) for answer in answers if answer is not None and answer.status != _WAITING]

    # ---------------------------------------------------------------- from the ledger

    async def _follow(self, ledger: Peer) -> None:
        """Hand the shard what the ledger says of its own accord: late answers, and recalls."""
        sequence = -1
        while True:
            try:
                if sequence < 0:
                    sequence, answers, recalls = unpack(await ledger.query(pack(("channel", self._shard))))
                    said: list[Any] = [AnswerFunds(*row) for row in answers]
                    said += [RecallFunds(*row) for row in recalls]
                    if said and not await self._tell_shard(said):
                        sequence = -1
                        await asyncio.sleep(RETRY_S)
                        continue
                batches = await ledger.feed(sequence, FEED_WAIT_S)
            except PeerUnavailable:
                await asyncio.sleep(RETRY_S)
                continue
            if batches is None:
                # What was missed is in the answer to the question.
                sequence = -1
                continue
            for data in batches:
                batch = unpack_batch(data)
                said = [command for row in batch.events if (command := self._for_us(row)) is not None]
                sequence = batch.last_sequence
                if said and not await self._tell_shard(said):
                    sequence = -1
                    break

    def _for_us(self, row: tuple[Any, ...]) -> AnswerFunds | RecallFunds | None:
        kind, _, body = row
        if kind == _ANSWER and body[0] == self._shard:
            return AnswerFunds(*body[1:])
        if kind == _RECALL and body[0] == self._shard:
            return RecallFunds(*body[1:])
        return None

    async def _tell_shard(self, commands: Sequence[Any]) -> bool:
        """Have the shard journal what the ledger said; return whether it has."""
        batch = LinkBatch("", 0, 0, [rows_segment(commands)])
        reply = unpack_replies(await self._host.submit(batch))[0]
        return reply.status == ReplyStatus.DONE
