"""Keeps copies of the streams of `nats` journals up to date, through whatever happens to the servers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from chaos.invariants.journal_stream import Message, StreamCopy

FETCH_S = 1.0
RETRY_S = 0.5
_FAILURES = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class StreamCopier:
    """Copies streams ("PREFIX-MACHINE", of subjects "PREFIX.MACHINE.d" and ".fence") into directories, by machine."""

    def __init__(self, servers: Sequence[str], directories: Mapping[str, Path], prefix: str = "j") -> None:
        self._servers = list(servers)
        self._prefix = prefix
        self._is_over = False
        self._copies = {machine: StreamCopy(directory) for machine, directory in directories.items()}

    def last(self, machine: str) -> int:
        """Return the stream sequence up to which a machine's stream is copied."""
        return self._copies[machine].last

    async def run(self) -> None:
        """Copy until cancelled."""
        client = await self._connect()
        following = [asyncio.create_task(self._follow(client, machine)) for machine in self._copies]
        try:
            await asyncio.wait(following)
        finally:
            # NOTE: `next_msg` of nats-py may swallow a cancellation (as `wait_for` does before Python 3.12), so they
            # are told, and end within a fetch.
            self._is_over = True
            await asyncio.wait(following)
            await client.close()

    async def finish(self) -> None:
        """Copy what is left once nobody writes any more, and close."""
        self._is_over = False
        client = await self._connect()
        context = client.jetstream()
        for machine, copy in self._copies.items():
            while True:
                try:
                    state = (await context.stream_info(f"{self._prefix}-{machine}")).state
                    if copy.last < state.last_seq:
                        await self._fetch(context, machine, state.last_seq)
                    if copy.last >= state.last_seq:
                        break
                except _FAILURES:
                    await asyncio.sleep(RETRY_S)
            copy.close()
        await client.close()

    async def _connect(self) -> Client:
        async def quiet(_: Exception) -> None:
            """A server that is away is what is tested here."""

        return await nats.connect(
            self._servers, error_cb=quiet, max_reconnect_attempts=-1, reconnect_time_wait=0.2, connect_timeout=2
        )

    async def _follow(self, client: Client, machine: str) -> None:
        context = client.jetstream()
        while not self._is_over:
            try:
                await self._fetch(context, machine)
            except _FAILURES:
                await asyncio.sleep(RETRY_S)

    async def _fetch(self, context: JetStreamContext, machine: str, up_to: float = math.inf) -> None:
        """Take messages from where the copy ends, for as long as the consumer lasts."""
        copy = self._copies[machine]
        stream = f"{self._prefix}-{machine}"
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=copy.last + 1)
        subscription = await context.subscribe(
            f"{self._prefix}.{machine}.*", stream=stream, ordered_consumer=True, config=config
        )
        fence = f"{self._prefix}.{machine}.fence"
        is_first = True
        try:
            while copy.last < up_to and not self._is_over:
                message = await subscription.next_msg(timeout=FETCH_S)
                sequence = message.metadata.sequence.stream
                # The first message shows a hole in the stream, for the reader to find; later one was lost on the way.
                if sequence != copy.last + 1 and not is_first:
                    return
                is_first = False
                copy.add(Message(sequence, message.subject == fence, message.data))
        finally:
            await subscription.unsubscribe()
