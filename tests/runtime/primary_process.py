"""A primary in a process of its own, which a test pauses and lets go on."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

from exchange.runtime.host import Host, NotPrimary
from exchange.runtime.journal.nats_settings import NatsSettings
from exchange.runtime.messages import LinkBatch, ReplyStatus, unpack_replies
from exchange.runtime.storage import KINDS, open_storage
from tests.runtime.test_standby import open_market, place


def be_primary(directory: Path, machine: str, nats: NatsSettings | None, pipe: Connection) -> None:
    """Place an order for each name that comes, and say what became of it, until the pipe closes."""
    asyncio.run(_serve(directory, machine, nats, pipe))


async def _serve(directory: Path, machine: str, nats: NatsSettings | None, pipe: Connection) -> None:
    host = Host(KINDS["shard"], *await asyncio.to_thread(open_storage, directory, machine, nats))
    await host.start()
    await open_market(host)
    pipe.send("started")
    n = 0
    while True:
        try:
            name = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        n += 1
        try:
            (reply,) = unpack_replies(await host.submit(LinkBatch("g", 1, n, [place(name)])))
            pipe.send(ReplyStatus(reply.status).name)
        except NotPrimary as error:
            pipe.send(type(error).__name__)
