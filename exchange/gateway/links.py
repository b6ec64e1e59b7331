"""The gateway's link to one machine: batches in order, one in flight, sent again as they were after a failure."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from exchange.engine.words import RejectReason
from exchange.runtime.messages import LinkBatch, ReplyStatus, Segment, SegmentReply, pack, unpack_replies
from exchange.runtime.peers import Peer, PeerUnavailable

QUEUE_BYTES_MAX = 16 << 20
BATCH_BYTES_MAX = 128 << 10
"""Some 2,000 commands for each call and each record. A cancel that comes then waits for them: 10 ms."""
UNKNOWN_AFTER_S = 9.0
"""A command that was sent and not answered by then has an unknown outcome."""

CONTROL, CANCELS, ORDERS = 0, 1, 3
_CLASSES = (CONTROL, CANCELS, ORDERS)

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Entry:
    segment: Segment
    deadline_s: float
    queued_s: float
    reply: asyncio.Future[SegmentReply]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.segment.data) + 64

    def answer(self, reply: SegmentReply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)


class Link:
    """Queues segments by class and pumps them to the machine's current host.

    `name` stamps the batches together with `incarnation`, which must be higher than in any link of this name before.
    """

    def __init__(
        self, machine: str, name: str, incarnation: int, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.machine = machine
        self.peer: Peer | None = None
        self._name = name
        self._incarnation = incarnation
        self._n = 0
        self._monotonic_s = monotonic_s
        self._queues: dict[int, deque[_Entry]] = {priority: deque() for priority in _CLASSES}
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._peer_changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._pump())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_up(self) -> bool:
        return self.peer is not None

    def set_peer(self, peer: Peer | None) -> None:
        """Send to this host from now on; None: the machine is away."""
        self.peer = peer
        self._peer_changed.set()
        self._peer_changed = asyncio.Event()
        self._wake.set()

    def enqueue(self, segment: Segment, priority: int = ORDERS) -> asyncio.Future[SegmentReply]:
        """Queue a segment; the future becomes its reply, at the latest `UNKNOWN_AFTER_S` after its deadline."""
        now_s = self._monotonic_s()
        entry = _Entry(segment, now_s + segment.remaining_ms / 1_000, now_s, asyncio.get_running_loop().create_future())
        if self._queued_bytes + entry.size > QUEUE_BYTES_MAX and priority == ORDERS:
            entry.answer(_refused(RejectReason.QUEUE_FULL, f"the queue to {self.machine} is full"))
            return entry.reply
        self._queues[priority].append(entry)
        self._queued_bytes += entry.size
        self._wake.set()
        return entry.reply

    async def _pump(self) -> None:
        while True:
            if not self._queued_bytes:
                self._wake.clear()
                await self._wake.wait()
            if self.peer is None:
                await self._wait_for_peer()
            entries = self._take()
            if entries:
                self._n += 1
                await self._send(entries, self._n)

    async def _wait_for_peer(self) -> None:
        """Wait for a host, or for the next deadline in the queue."""
        now_s = self._monotonic_s()
        waiting = [entry.deadline_s for queue in self._queues.values() for entry in queue]
        try:
            async with asyncio.timeout(max(min(waiting, default=now_s + 1) - now_s, 0.001)):
                await self._peer_changed.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Entry]:
        """Return the next batch, most urgent class first; what is past its deadline is refused here."""
        now_s = self._monotonic_s()
        entries: list[_Entry] = []
        size = 0
        for priority in _CLASSES:
            queue = self._queues[priority]
            if self.peer is None:
                # Nothing can be sent: keep the order, refuse what has waited long enough.
                late = [entry for entry in queue if entry.deadline_s <= now_s]
                for entry in late:
                    queue.remove(entry)
                    self._queued_bytes -= entry.size
                    entry.answer(_refused(RejectReason.SHARD_UNAVAILABLE, f"{self.machine} is away"))
                continue
            while queue and (not entries or size + queue[0].size <= BATCH_BYTES_MAX):
                entry = queue.popleft()
                self._queued_bytes -= entry.size
                if entry.deadline_s <= now_s:
                    entry.answer(_refused(RejectReason.DEADLINE_EXCEEDED, "waited too long in the gateway"))
                    continue
                size += entry.size
                entries.append(entry)
        return entries

    async def _send(self, entries: list[_Entry], n: int) -> None:
        """Send one batch until some host of the machine has answered it."""
        give_up = asyncio.get_running_loop().call_later(UNKNOWN_AFTER_S, _give_up, entries)
        while True:
            peer = self.peer
            if peer is None:
                await self._peer_changed.wait()
                continue
            now_s = self._monotonic_s()
            segments = [e.segment._replace(remaining_ms=max(int((e.deadline_s - now_s) * 1_000), 0)) for e in entries]
            try:
                data = await peer.submit(pack(LinkBatch(self._name, self._incarnation, n, segments)))
            except PeerUnavailable as error:
                _log.warning("link.interrupted", machine=self.machine, n=n, error=str(error))
                if self.peer is peer:
                    self.set_peer(None)
                continue
            give_up.cancel()
            for entry, reply in zip(entries, unpack_replies(data), strict=True):
                entry.answer(reply)
            return


def _refused(reason: RejectReason, detail: str) -> SegmentReply:
    return SegmentReply(int(ReplyStatus.REFUSED), int(reason), b"", detail)


def _give_up(entries: list[_Entry]) -> None:
    for entry in entries:
        entry.answer(SegmentReply(int(ReplyStatus.UNKNOWN), 0, b"", "no answer in time"))
