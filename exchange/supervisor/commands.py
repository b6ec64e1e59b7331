"""How the supervisor has a machine do something: its own journals a decision, a shard is sent commands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from exchange.engine.control import Control, ControlResult, TakeIncarnation
from exchange.engine.events import Result
from exchange.engine.words import RejectReason
from exchange.runtime.host import Host
from exchange.runtime.messages import LinkBatch, ReplyStatus, pack, unpack_replies
from exchange.runtime.rows import rows_segment, unpack_results
from exchange.supervisor.component import SUPERVISOR, Component


class Commands:
    """`control` is the host of the supervisor's own machine. What is sent carries the supervisor's incarnation."""

    def __init__(self, control: Host, components: Mapping[str, Component]) -> None:
        self.incarnation = 0
        self._control = control
        self._components = components
        self._stamps: dict[str, int] = {}
        self._locks = {c.machine: asyncio.Lock() for c in components.values() if c.machine}

    @property
    def machine(self) -> Control:
        """What the supervisor remembers."""
        machine: Control = self._control.machine
        return machine

    async def begin(self) -> None:
        """Take an incarnation of our own."""
        self.incarnation = await self.take_incarnation(SUPERVISOR)

    async def take_incarnation(self, actor: str) -> int:
        """Return the number of an actor's next start."""
        return (await self.decide(TakeIncarnation(actor))).incarnation

    async def decide(self, command: Any) -> ControlResult:
        """Journal a decision of our own."""
        reply = unpack_replies(await self._control.submit(LinkBatch("", 0, 0, [rows_segment([command])])))[0]
        if reply.status != ReplyStatus.DONE:
            raise RuntimeError(f"the control journal refused: {reply.detail}")
        result: ControlResult = unpack_results(reply.data, ControlResult)[0]
        return result

    async def send(self, name: str, *commands: Any) -> list[Result]:
        """Have a shard journal and apply commands."""
        async with self._locks[name]:
            process = self._components[name].process
            if process is None:
                raise RuntimeError(f"{name} is away")
            self._stamps[name] = n = self._stamps.get(name, 0) + 1
            batch = LinkBatch(SUPERVISOR, self.incarnation, n, [rows_segment(commands)])
            reply = unpack_replies(await process.submit(pack(batch)))[0]
        if reply.status != ReplyStatus.DONE:
            raise RuntimeError(f"{name} refused: {reply.detail or RejectReason(reply.reason).name}")
        results: list[Result] = unpack_results(reply.data, Result)
        return results

    def wait_for_no_call(self, machine: str) -> None:
        """Go on with a machine's new primary: a command that hangs in the old one must not keep us from it."""
        self._locks[machine] = asyncio.Lock()
