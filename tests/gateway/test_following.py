"""A gateway's copy of a machine gives way: what clients wait for goes before the next part of a feed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from exchange.gateway.following import GIVE_WAY_S, GIVE_WAY_STEPS, LARGE_BYTES, Follower
from exchange.runtime.peers import PeerUnavailable
from tests.virtual_time import VirtualTimeLoop, run

SMALL, LARGE = bytes(LARGE_BYTES - 1), bytes(LARGE_BYTES)


class World:
    """A copy, a host with these batches and nothing else, and a client's task, whose turns are counted.

    Each turn of the client takes so long.
    """

    def __init__(self, batches: Sequence[bytes], turn_s: float = 0.0) -> None:
        self.is_loaded = True
        self.incarnation = 1
        self.sequence = self.epoch = 0
        self.turns = 0
        self.turns_at: list[int] = []
        """How many turns the client had had when each batch was applied."""
        self._batches = batches
        self._turn_s = turn_s
        self._all_applied = asyncio.Event()

    def load(self, dump: bytes) -> None:
        raise AssertionError("it is loaded")

    def apply(self, data: bytes) -> None:
        self.turns_at.append(self.turns)
        if len(self.turns_at) == len(self._batches):
            self._all_applied.set()

    async def feed(self, after_sequence: int, timeout_s: float) -> Sequence[bytes]:
        if not self.turns_at:
            return self._batches
        return await asyncio.Future()

    async def submit(self, batch: bytes) -> bytes:
        raise PeerUnavailable

    dump = query = submit

    async def _client(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        while True:
            self.turns += 1
            loop.advance(self._turn_s)
            await asyncio.sleep(0)

    async def gaps(self) -> list[int]:
        """Return how many turns the client had between each batch and the next."""
        client = asyncio.create_task(self._client())
        follower = Follower("shard-0", self)
        follower.follow(self)  # type: ignore[arg-type]  # as much of a peer as is called
        await self._all_applied.wait()
        await follower.stop()
        client.cancel()
        return [after - before for before, after in zip(self.turns_at, self.turns_at[1:], strict=False)]


@pytest.mark.parametrize(("data", "turns"), [(SMALL, 1), (LARGE, GIVE_WAY_STEPS)])
def test_clients_have_their_turns_between_two_batches_more_after_a_large_one(data: bytes, turns: int) -> None:
    async def follow() -> None:
        assert await World([data] * 4).gaps() == [turns] * 3

    run(follow())


def test_it_does_not_wait_for_longer_than_its_time_however_much_clients_want() -> None:
    async def follow() -> None:
        assert await World([LARGE] * 4, turn_s=0.6 * GIVE_WAY_S).gaps() == [2] * 3

    run(follow())
