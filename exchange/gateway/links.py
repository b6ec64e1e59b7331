"""The gateway's link to one machine: batches in order, one in flight, sent again as they were after a failure.

A batch that was sent once may have been executed, so it is kept until a host says what became of it, or
`UNKNOWN_AFTER_S` is over. Its stamp lets any host of the machine recognize it: one that took over has applied all that
its predecessors journaled, and fenced them, so what it says is the truth.

What waits is bounded by `Admission`: refused is who cannot be served in time, at once and not executed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from exchange.engine.words import RejectReason
from exchange.gateway.admission import Admission
from exchange.overload.classes import ShedReason, WorkClass
from exchange.runtime.messages import (
    HostLoad,
    LinkBatch,
    ReplyStatus,
    Segment,
    SegmentReply,
    pack,
    unpack_answer,
)
from exchange.runtime.peers import Peer, PeerUnavailable
from exchange.settings import Settings

BATCH_BYTES_MAX = 128 << 10
"""Some 2,000 commands for each call and each record. A cancel that comes then waits for them: 10 ms."""
UNKNOWN_AFTER_S = 9.0
"""A command that was sent and not answered so long after it came has an unknown outcome."""
HOLD_S = 1.0
"""What comes so soon after a host was lost waits for the next one, as long as its deadline allows; what comes later is
refused at once. A planned handover is much shorter."""
RETRY_S = 0.05
"""Until a host is tried again that could not be reached, or does not know what it did."""
WATCH_S = 0.05
"""How often deadlines are looked at while the link waits for a host."""
GATHER_FROM, GATHER_TO = 4, 64
"""If the last batch had so many commands, the next one waits until it has twice as many, or so many ..."""
GATHER_S = 0.002
"""... but no longer than that: docs/architecture.md has what it brings."""

_SERVED = (WorkClass.CONTROL, WorkClass.CANCELS, WorkClass.PASSIVE, WorkClass.ORDERS)
_SHED_REASONS = {
    RejectReason.DEADLINE_EXCEEDED: ShedReason.DEADLINE,
    RejectReason.QUEUE_FULL: ShedReason.QUEUE,
    RejectReason.MALFORMED: ShedReason.MEMORY,
}
_OF_A_RECORD = (int(ReplyStatus.DONE), int(ReplyStatus.PARKED))

_Call = asyncio.Task[bytes]

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Entry:
    segment: Segment
    work_class: WorkClass
    commands: int
    deadline_s: float
    queued_s: float
    reply: asyncio.Future[SegmentReply]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.segment.data) + 64

    def answer(self, reply: SegmentReply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)


class _Signal:
    """What one task waits for."""

    def __init__(self) -> None:
        self._given: asyncio.Future[bool] | None = None

    def give(self, _: object = None) -> None:
        if self._given is not None and not self._given.done():
            self._given.set_result(True)

    async def wait(self, timeout_s: float) -> bool:
        """Return whether it is given in time."""
        loop = asyncio.get_running_loop()
        self._given = given = loop.create_future()
        timer = loop.call_later(timeout_s, _end_wait, given)
        try:
            return bool(await given)
        finally:
            timer.cancel()


def _end_wait(given: asyncio.Future[bool]) -> None:
    if not given.done():
        given.set_result(False)


class Link:
    """Queues segments by class and pumps them to the machine's current host.

    `name` stamps the batches together with `incarnation`, which must be higher than in any link of this name before.
    """

    def __init__(
        self,
        machine: str,
        name: str,
        incarnation: int,
        *,
        settings: Settings | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.machine = machine
        self.peer: Peer | None = None
        self._name = name
        self._incarnation = incarnation
        self._n = 0
        self._monotonic_s = monotonic_s
        self.admission: Admission[_Entry] = Admission(machine, settings or Settings(), monotonic_s, random)
        self._interrupted_s: float | None = None
        """Since when no host has taken anything."""
        self._wake = asyncio.Event()
        self._news = _Signal()
        """Another host, or the end of a call."""
        self._enough = _Signal()
        """So many commands wait as the next batch is to have."""
        self._wanted = 0
        self._last = 0
        """How many commands the last batch had."""
        self._is_sending = False
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._pump())
        self._task.add_done_callback(self._on_end)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings; what waits already stays."""
        self.admission.apply_settings(settings)

    @property
    def is_up(self) -> bool:
        """Whether it is worth waiting for an answer: the machine has a host, or lost it just now."""
        if self._interrupted_s is None:
            return self.peer is not None or self.admission.is_naive
        return self.admission.is_naive or self._monotonic_s() - self._interrupted_s < HOLD_S

    def set_peer(self, peer: Peer | None) -> None:
        """Send to this host from now on, first what another one has not answered; None: the machine is away."""
        if peer is not None:
            self._interrupted_s = None
            self.admission.on_new_host()
        elif self.peer is not None and self._interrupted_s is None:
            self._interrupted_s = self._monotonic_s()
        self.peer = peer
        self._news.give()
        self._wake.set()

    def enqueue(
        self, segment: Segment, work_class: WorkClass = WorkClass.ORDERS, commands: int = 1
    ) -> asyncio.Future[SegmentReply]:
        """Queue a segment of so many commands; the future becomes its reply, at once if it is refused.

        That is by its deadline, or if it was sent by then, at the latest `UNKNOWN_AFTER_S` after now.
        """
        now_s = self._monotonic_s()
        deadline_s = self.admission.deadline_s(work_class, segment.remaining_ms, now_s)
        reply: asyncio.Future[SegmentReply] = asyncio.get_running_loop().create_future()
        entry = _Entry(segment, work_class, commands, deadline_s, now_s, reply)
        refusal = self.admission.refuses(entry)
        if refusal is not None:
            entry.answer(refusal)
        else:
            self.admission.put(entry)
            self._wake.set()
            if self.admission.waiting >= self._wanted:
                self._enough.give()
        return reply

    async def settle(self) -> None:
        """Wait until nothing is queued or in flight."""
        while self.admission.waits or self._is_sending:
            self._settled.clear()
            await self._settled.wait()

    # ---------------------------------------------------------------- the pump

    async def _pump(self) -> None:
        while True:
            if not self.admission.waits:
                self._settled.set()
                self._wake.clear()
                await self._wake.wait()
            while self.peer is None and self.admission.waits:
                await self._watch()
            await self._gather()
            entries = self._take()
            self._last = sum(entry.commands for entry in entries)
            if entries:
                self._n += 1
                self._is_sending = True
                since_s = self._monotonic_s()
                replies, load = await self._send(entries, self._n)
                self._is_sending = False
                answered = list(zip(entries, replies, strict=True))
                is_done = [(entry, reply.status in _OF_A_RECORD) for entry, reply in answered]
                self.admission.note_batch(is_done, self._monotonic_s() - since_s, load)
                for entry, reply in answered:
                    entry.answer(self._complete(entry, reply))

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Say so if the pump ended that should go on: a bug, and nothing is sent any more."""
        if not task.cancelled() and task.exception() is not None:
            _log.error("link.broken", machine=self.machine, error=repr(task.exception()))

    def _take(self) -> list[_Entry]:
        """Return the next batch, most urgent class first; what is late or has to be shed is refused here."""
        admission = self.admission
        now_s = self._monotonic_s()
        entries: list[_Entry] = []
        size = commands = 0
        for work_class in _SERVED:
            while (entry := admission.first(work_class)) is not None:
                fits = size + entry.size <= BATCH_BYTES_MAX and commands + entry.commands <= admission.batch_max
                if entries and not fits:
                    # Nothing less urgent goes before it.
                    admission.note_taken()
                    return entries
                delay_s = admission.take(work_class)
                if admission.is_late(entry, now_s):
                    self._refuse_late(entry)
                elif admission.sheds(work_class, delay_s):
                    entry.answer(admission.refused(entry, ShedReason.DELAY))
                else:
                    size += entry.size
                    commands += entry.commands
                    entries.append(entry)
            admission.note_empty(work_class)
        admission.note_taken()
        return entries

    def _complete(self, entry: _Entry, reply: SegmentReply) -> SegmentReply:
        """Return a host's refusal as this link's own: counted, with the time to come back."""
        if reply.status != ReplyStatus.REFUSED:
            return reply
        reason = RejectReason(reply.reason)
        return self.admission.refused(entry, _SHED_REASONS.get(reason, ShedReason.AWAY), reason, reply.detail)

    def _refuse_late(self, entry: _Entry) -> None:
        if self.peer is None or self._interrupted_s is not None:
            reason, shed, detail = RejectReason.SHARD_UNAVAILABLE, ShedReason.AWAY, f"{self.machine} is away"
        else:
            reason, shed, detail = RejectReason.DEADLINE_EXCEEDED, ShedReason.DEADLINE, "waited too long in the gateway"
        entry.answer(self.admission.refused(entry, shed, reason, detail))

    async def _gather(self) -> None:
        """Let more come in where several came before: a record takes the same whether it has few commands or many.

        Who is alone, or one of a few, waits for nobody.
        """
        self._wanted = min(2 * self._last, GATHER_TO, self.admission.batch_max)
        if self._last >= GATHER_FROM and self.admission.waiting < self._wanted:
            await self._enough.wait(GATHER_S)

    async def _watch(self) -> None:
        """Wait for news, or a moment; then refuse what has been queued for too long."""
        if not await self._news.wait(WATCH_S):
            self._sweep()

    def _sweep(self) -> None:
        for entry in self.admission.take_late(self._monotonic_s()):
            self._refuse_late(entry)

    # ---------------------------------------------------------------- one batch

    async def _send(self, entries: list[_Entry], n: int) -> tuple[list[SegmentReply], HostLoad | None]:
        """Send one batch until some host of the machine has told what became of it."""
        calls: dict[_Call, Peer] = {}
        newest = 0
        """The incarnation of the last host that it was given to."""
        is_open = False
        """Whether that host may have executed it and not know."""
        retry_s = 0.0
        try:
            while True:
                peer = self.peer
                if peer is not None and peer.incarnation != newest:
                    # Whatever the hosts before it did, this one has it in its history, or never will.
                    newest, is_open, retry_s = peer.incarnation, False, 0.0
                if peer is not None and peer not in calls.values() and self._monotonic_s() >= retry_s:
                    call = asyncio.create_task(self._call(peer, entries, n))
                    call.add_done_callback(self._news.give)
                    calls[call] = peer
                await self._watch()
                for call in [call for call in calls if call.done()]:
                    host = calls.pop(call)
                    try:
                        replies, load = unpack_answer(call.result())
                    except PeerUnavailable as error:
                        if host.incarnation == newest:
                            is_open = True
                            retry_s = self._interrupt(n, str(error)) + RETRY_S
                        continue
                    is_unknown = any(reply.status == ReplyStatus.UNKNOWN for reply in replies)
                    is_of_newest = host.incarnation == newest
                    if any(map(_is_of_a_record, replies)) or (is_of_newest and not is_open and not is_unknown):
                        self._interrupted_s = None
                        return replies, load
                    if is_of_newest:
                        # It did not know before, so that it refuses now proves nothing.
                        is_open = True
                        retry_s = self._interrupt(n, replies[0].detail) + RETRY_S
                self._give_up(entries)
        finally:
            for call in calls:
                call.remove_done_callback(self._news.give)
                call.cancel()
                call.add_done_callback(_forget)

    async def _call(self, peer: Peer, entries: list[_Entry], n: int) -> bytes:
        now_s = self._monotonic_s()
        segments = [e.segment._replace(remaining_ms=max(int((e.deadline_s - now_s) * 1_000), 0)) for e in entries]
        work = tuple((int(e.work_class), e.commands) for e in entries)
        return await peer.submit(pack(LinkBatch(self._name, self._incarnation, n, segments, now_s, work)))

    def _interrupt(self, n: int, error: str) -> float:
        """Note that the host takes nothing for now; return the time."""
        now_s = self._monotonic_s()
        if self._interrupted_s is None:
            _log.warning("link.interrupted", machine=self.machine, n=n, error=error)
            self._interrupted_s = now_s
        return now_s

    def _give_up(self, entries: list[_Entry]) -> None:
        """Tell who waits for too long that the outcome is unknown. The batch is sent all the same."""
        now_s = self._monotonic_s()
        for entry in entries:
            if entry.queued_s + UNKNOWN_AFTER_S <= now_s:
                entry.answer(SegmentReply(int(ReplyStatus.UNKNOWN), 0, b"", "no answer in time"))


def _is_of_a_record(reply: SegmentReply) -> bool:
    """Whether only a host that had journaled the batch says so: then it is true whoever says it, and however late."""
    return reply.status in _OF_A_RECORD or reply.reason == RejectReason.DEADLINE_EXCEEDED


def _forget(call: _Call) -> None:
    """Take note of what a call that nobody waits for ended with."""
    if not call.cancelled():
        call.exception()
