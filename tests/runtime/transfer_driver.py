"""Starts a ledger and two shards, stands between them, and kills one of them at a message when it is told to."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from exchange.engine.commands import SetStage
from exchange.engine.words import Stage
from exchange.runtime.codec import unpack_dump
from exchange.runtime.feed import unpack_batch
from exchange.runtime.messages import LinkBatch, ReplyStatus, Segment, pack, unpack_replies
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import rows_segment
from tests.runtime.transfer_process import DRIVER_SOCKET, START_NS, main
from tests.runtime.wire import Wire

LEDGER = "ledger"
SHARDS = ("shard-0", "shard-1")
_FEED_WAIT_S = 10.0

_processes = multiprocessing.get_context("forkserver")
# What a new process needs is there when it starts.
_processes.set_forkserver_preload(["tests.runtime.transfer_process"])


class Message(NamedTuple):
    """A call of a shard's carrier or the reply to it: number `n` of the calls of this method by this shard."""

    shard: str
    method: str
    n: int
    is_reply: bool


class KillPoint(NamedTuple):
    """Kill the shard or the ledger at a message, before it is passed on or after."""

    message: Message
    is_after: bool
    victim: str


class Driver:
    """The supervisor and the network of three processes. `seen` are the messages so far."""

    def __init__(self, directory: Path, kill_at: KillPoint | None = None) -> None:
        self.seen: list[Message] = []
        self.killed = 0
        self._directory = directory
        self._kill_at = kill_at
        self._calls: Counter[tuple[str, str]] = Counter()
        self._incarnations: Counter[str] = Counter()
        self._processes: dict[str, ForkServerProcess] = {}
        self._wires: dict[str, Wire] = {}
        self._up: dict[str, asyncio.Event] = {name: asyncio.Event() for name in (LEDGER, *SHARDS)}
        self._is_carrying = False
        self._now_ns = START_NS
        self._stamps: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Driver:
        path = self._directory / DRIVER_SOCKET
        self._server = await asyncio.start_unix_server(self._connected, path)
        for name in self._up:
            self._start(name)
        for name in self._up:
            await self._up[name].wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            await asyncio.to_thread(process.join)
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self._wires.values():
            await wire.close()

    # ---------------------------------------------------------------- processes

    def _start(self, name: str) -> None:
        self._incarnations[name] += 1
        arguments = str(self._directory), name, self._incarnations[name]
        process = self._processes[name] = _processes.Process(target=main, args=arguments, daemon=True)
        process.start()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire: Wire

        async def serve(method: str, args: Any) -> Any:
            if method == "hello":
                name, _ = args
                self._wires[name] = wire
                self._spawn(self._arrived(name))
                return None
            (name,) = (name for name, known in self._wires.items() if known is wire)
            return await self._carry(name, method, args)

        wire = Wire(reader, writer, serve)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)

    async def _arrived(self, name: str) -> None:
        """Tell a new process what it must know, and the others of it."""
        wire = self._wires[name]
        await wire.call("clock", self._now_ns)
        self._up[name].set()
        try:
            if self._is_carrying and name == LEDGER:
                for shard in SHARDS:
                    await self._tell_of_ledger(shard)
            elif self._is_carrying:
                await self._tell_of_ledger(name)
                await self.submit(name, [SetStage(int(Stage.OPEN))])
        except PeerUnavailable:
            # It was killed again.
            pass

    async def _tell_of_ledger(self, shard: str) -> None:
        if self._up[shard].is_set():
            await self._wires[shard].call("ledger", self._incarnations[LEDGER])

    async def _kill(self, name: str) -> None:
        """Kill -9, and start the next incarnation."""
        self.killed += 1
        self._up[name].clear()
        process = self._processes[name]
        process.kill()
        await asyncio.to_thread(process.join)
        await self._wires[name].close()
        self._start(name)

    async def carry(self) -> None:
        """Let the shards say what they have to say to the ledger, from now on."""
        self._is_carrying = True
        for shard in SHARDS:
            await self._tell_of_ledger(shard)

    # ---------------------------------------------------------------- messages

    async def _carry(self, shard: str, method: str, args: Any) -> Any:
        """Pass a call of a shard on to the ledger, and the reply back."""
        self._calls[shard, method] += 1
        call = Message(shard, method, self._calls[shard, method], is_reply=False)
        reply = call._replace(is_reply=True)
        await self._kill_if_due(call, is_after=False)
        incarnation, *rest = args
        if incarnation != self._incarnations[LEDGER] or not self._up[LEDGER].is_set():
            raise PeerUnavailable("the ledger is away")
        answer = self._wires[LEDGER].start_call(method, *rest)
        await self._kill_if_due(call, is_after=True)
        result = await answer
        if await self._kill_if_due(reply, is_after=False):
            raise PeerUnavailable("the ledger is away")
        if self._is_due(reply, is_after=True):
            # The reply is written when this task has returned.
            self._spawn(self._kill_victim())
        return result

    def _is_due(self, message: Message, *, is_after: bool) -> bool:
        if not is_after:
            self.seen.append(message)
        point = self._kill_at
        return point is not None and not self.killed and point[:2] == (message, is_after)

    async def _kill_if_due(self, message: Message, *, is_after: bool) -> bool:
        is_due = self._is_due(message, is_after=is_after)
        if is_due:
            # Apart, as the end of the shard's connection ends what is served to it.
            task = asyncio.create_task(self._kill_victim())
            self._tasks.add(task)
            await asyncio.shield(task)
        return is_due

    async def _kill_victim(self) -> None:
        assert self._kill_at is not None
        await self._kill(self._kill_at.victim)

    # ---------------------------------------------------------------- a client

    async def call(self, name: str, method: str, *args: Any) -> Any:
        """Call a process; if it goes away meanwhile, again when it is back."""
        while True:
            await self._up[name].wait()
            try:
                return await self._wires[name].call(method, *args)
            except PeerUnavailable:
                is_dead = not self._processes[name].is_alive()
                assert not (is_dead and self._up[name].is_set()), f"{name} is gone, and nobody killed it"

    async def submit(self, name: str, commands: Sequence[Any]) -> bytes:
        """Have a process journal commands, once, however often it must be told; return their packed results."""
        self._stamps[name] += 1
        segments: list[Segment] = [rows_segment(commands, remaining_ms=600_000)] if commands else []
        batch = pack(LinkBatch(f"driver-{self._stamps[name]}", 1, 1, segments))
        replies = unpack_replies(await self.call(name, "submit", batch))
        if not replies:
            return b""
        assert replies[0].status in (ReplyStatus.DONE, ReplyStatus.PARKED), replies
        return replies[0].data

    async def feed(self, name: str, after_sequence: int) -> tuple[int, list[Any]]:
        """Return the events after a sequence, and the sequence up to which they are; wait for some."""
        batches = [unpack_batch(data) for data in await self.call(name, "feed", after_sequence, _FEED_WAIT_S)]
        events = [row for batch in batches for row in batch.events]
        return batches[-1].last_sequence if batches else after_sequence, events

    async def opened(self, shard: str) -> None:
        """Wait until a shard takes orders."""
        while True:
            dump = unpack_dump(await self.call(shard, "dump"))
            if dump.stages[0].stage == Stage.OPEN:
                return
            await self.feed(shard, dump.sequence)

    async def pass_time(self, ns: int) -> None:
        """Move all clocks, and wake the hosts to do what is due."""
        self._now_ns += ns
        for name in self._up:
            await self.call(name, "clock", self._now_ns)
            await self.submit(name, [])
