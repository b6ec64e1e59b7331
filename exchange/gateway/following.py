"""How a gateway keeps its copy of a machine: a dump to start with, then the feed, from one host after the other.

A copy never goes back and believes no writer that was fenced: it takes nothing of an epoch lower than it has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from exchange.gateway.replica import FeedBroken
from exchange.runtime.feed import FEED_BYTES_MAX
from exchange.runtime.peers import Peer, PeerUnavailable

FEED_WAIT_S = 10.0
FEED_RETRY_S = 0.1
GIVE_WAY_STEPS, GIVE_WAY_S = 8, 0.003
"""Of the event loop after a large batch of a feed, in which requests come in and answers go out; but no longer than so
long, or a gateway with much else to do would fall behind."""
LARGE_BYTES = 8 << 10
"""A batch of 100 commands and more."""

_log = structlog.get_logger()


class Copy(Protocol):
    """What a gateway has of a machine: all up to `sequence`, as the writers up to `epoch` made it."""

    @property
    def is_loaded(self) -> bool: ...
    @property
    def sequence(self) -> int: ...
    @property
    def epoch(self) -> int: ...

    def load(self, dump: bytes) -> None: ...

    def apply(self, data: bytes) -> None:
        """Go on with a packed FeedBatch. Raises `FeedBroken` if it does not follow."""
        ...


class StaleWriter(Exception):
    """What came was of an epoch, or a sequence, that the copy is past."""

    code = "STALE_WRITER"


def check_writer(copy: Copy, epoch: int) -> None:
    """Raise `StaleWriter` if a writer was fenced by one that was seen."""
    if epoch < copy.epoch:
        raise StaleWriter(f"expected epoch {copy.epoch} or later, was {epoch}")


def check_dump(copy: Copy, epoch: int, sequence: int) -> None:
    """Raise `StaleWriter` if a dump is of a writer that was fenced, or would take the copy back."""
    check_writer(copy, epoch)
    if copy.is_loaded and sequence < copy.sequence:
        raise StaleWriter(f"expected a dump of sequence {copy.sequence} or later, was {sequence}")


class Follower:
    """Follows the hosts of one machine. `stale` counts what came from hosts that have been replaced.

    `on_heard` is called once for each host, when the copy has all that the host had to tell when it was first asked.
    """

    def __init__(self, machine: str, copy: Copy, on_heard: Callable[[], None] = lambda: None) -> None:
        self.machine = machine
        self.stale = 0
        self._copy = copy
        self._on_heard = on_heard
        self._task: asyncio.Task[None] | None = None

    def follow(self, peer: Peer | None) -> None:
        """Go on with this host; None: with none."""
        if self._task is not None:
            self._task.cancel()
        self._task = None if peer is None else asyncio.create_task(self._run(peer))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, peer: Peer) -> None:
        copy = self._copy
        fresh = not copy.is_loaded
        is_told = has_heard = False
        while True:
            try:
                if fresh:
                    copy.load(await peer.dump())
                    fresh = False
                batches = await peer.feed(copy.sequence, FEED_WAIT_S if has_heard else 0.0)
                if batches is None:
                    _log.warning("feed.gap", machine=self.machine, after=copy.sequence)
                    fresh = True
                    continue
                for data in batches:
                    copy.apply(data)
                    await _give_way(GIVE_WAY_STEPS if len(data) >= LARGE_BYTES else 1)
                # Of an answer that is full there is more to come.
                if not has_heard and sum(map(len, batches)) < FEED_BYTES_MAX:
                    has_heard = True
                    self._on_heard()
            except FeedBroken as error:
                _log.error("feed.broken", machine=self.machine, error=str(error))
                fresh = True
                await asyncio.sleep(FEED_RETRY_S)
            except StaleWriter as error:
                self.stale += 1
                if not is_told:
                    _log.warning("feed.stale", machine=self.machine, incarnation=peer.incarnation, error=str(error))
                is_told = True
                await asyncio.sleep(FEED_RETRY_S)
            except PeerUnavailable:
                await asyncio.sleep(FEED_RETRY_S)


async def _give_way(steps: int) -> None:
    """Let what clients wait for go before what they only watch."""
    now_s = asyncio.get_running_loop().time
    end_s = now_s() + GIVE_WAY_S
    for _ in range(steps):
        await asyncio.sleep(0)
        if now_s() >= end_s:
            return
