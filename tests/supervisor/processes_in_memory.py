"""The supervisor's processes without any: hosts on journals in memory, gateways and an auditor of thin air.

Each can die, hang (it is asked, and answers once it goes on, as after SIGSTOP and SIGCONT), or hang in one method only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from exchange.runtime.host import Host
from exchange.runtime.messages import unpack, unpack_batch
from exchange.runtime.topology import Topology, unpack_topology
from exchange.settings import Settings, unpack_settings


class Gone(Exception):
    """The process does not answer any more."""


class ProcessInMemory:
    """What all of them have. `stuck`: methods that hang."""

    def __init__(self, name: str, incarnation: int, node: str) -> None:
        self.settings = Settings()
        self.loses_answers = False
        """Takes new settings, and the supervisor never hears of it."""
        self.more_vitals: dict[str, Any] = {}
        """What a test has it tell beside the rest."""
        self.name = name
        self.incarnation = incarnation
        self.node = node
        self.alive = True
        self.stuck: set[str] = set()
        self.calls: list[str] = []
        """But for pings."""
        self.topologies: list[Topology] = []
        self._is_hung = False
        self._changed = asyncio.Event()

    def hang(self) -> None:
        self._is_hung = True

    def resume(self) -> None:
        self._is_hung = False
        self.stuck.clear()
        self._changed.set()

    def die(self) -> None:
        self.alive = False
        self._changed.set()

    async def _enter(self, method: str) -> None:
        """Begin every call: raises `Gone` once it is dead."""
        if method != "ping":
            self.calls.append(method)
        while self.alive and (self._is_hung or method in self.stuck):
            self._changed.clear()
            await self._changed.wait()
        if not self.alive:
            raise Gone(f"{self.name}.{self.incarnation}")

    async def ping(self, _record: int, _checksum: int) -> dict[str, Any]:
        await self._enter("ping")
        return {"pid": id(self), "node": self.node, **self._vitals(), **self.more_vitals}

    def _vitals(self) -> dict[str, Any]:
        return {}

    async def submit(self, batch: bytes) -> bytes:
        raise AssertionError(f"{self.name} has no machine")

    async def configure(self, topology: bytes) -> None:
        await self._enter("configure")
        self.topologies.append(unpack_topology(topology))

    async def apply_settings(self, packed: bytes) -> None:
        await self._enter("apply_settings")
        self.settings = unpack_settings(packed)
        if self.loses_answers:
            raise Gone(f"{self.name}.{self.incarnation}: the answer was lost")

    async def promote(self, begin: bool) -> None:
        raise AssertionError(f"{self.name} has no machine")

    async def hand_over(self) -> int:
        raise AssertionError(f"{self.name} has no machine")

    async def drain(self) -> None:
        raise AssertionError(f"{self.name} has no clients")

    async def audit(self) -> bytes:
        raise AssertionError(f"{self.name} audits nothing")

    async def stop(self) -> None:
        self.die()

    async def kill(self) -> None:
        self.calls.append("kill")
        self.die()


class HostProcess(ProcessInMemory):
    """A shard or the ledger, primary or standby. `deaf`: pings are answered, commands fail.

    `is_history_long`: whether a standby has not yet applied what was before it.
    """

    def __init__(
        self, name: str, incarnation: int, node: str, host: Host, is_history_long: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(name, incarnation, node)
        self.host = host
        self._is_history_long = is_history_long
        self.deaf = False
        self.batches = 0
        self.diverged = False
        self.was_standby = host.standby is not None
        self.load: dict[str, Any] | None = None

    def die(self) -> None:
        super().die()
        if self.host.standby is not None:
            self.host.standby.stop()

    async def ping(self, record: int, checksum: int) -> dict[str, Any]:
        vitals = await super().ping(record, checksum)
        if self.host.standby is not None:
            vitals["agrees"] = False if self.diverged else self.host.standby.agrees(record, checksum)
            vitals["has_caught_up"] = self.host.standby.has_caught_up and not self._is_history_long()
        return vitals

    def _vitals(self) -> dict[str, Any]:
        host = self.host
        return {
            **(self._stages() if host.kind.name == "shard" else {}),
            "was_standby": self.was_standby,
            "load": self.load,
            "role": int(host.role),
            "epoch": host.epoch or host.at.epoch,
            "sequence": host.machine.sequence,
            "record": host.at.record,
            "checksum": host.at.feed.checksum,
            "state_hash": host.at.hashed.digest.hex(),
            "state_hash_sequence": host.at.hashed.sequence,
            "broken": repr(host.broken) if host.broken else "fenced" if host.fenced.is_set() else None,
        }

    def _stages(self) -> dict[str, Any]:
        machine = self.host.machine
        rows = [tuple(row) for row in machine.stages.rows()]
        return {"stage": machine.stage, "stages": rows, "is_new": self.host.is_new}

    async def submit(self, batch: bytes) -> bytes:
        await self._enter("submit")
        self.batches += 1
        if self.deaf:
            raise Gone(f"{self.name}.{self.incarnation}")
        return await self.host.submit(unpack_batch(unpack(batch)))

    async def promote(self, begin: bool) -> None:
        await self._enter("promote")
        await self.host.promote(begin=begin)

    async def hand_over(self) -> int:
        await self._enter("hand_over")
        return await self.host.hand_over()

    async def stop(self) -> None:
        await self.host.stop()
        self.die()


class GatewayProcess(ProcessInMemory):
    def __init__(self, name: str, incarnation: int, node: str, port: int) -> None:
        super().__init__(name, incarnation, node)
        self.port = port

    def _vitals(self) -> dict[str, Any]:
        return {"address": f"127.0.0.1:{self.port}"}

    async def drain(self) -> None:
        await self._enter("drain")
        self.die()


class AuditorProcess(ProcessInMemory):
    """An auditor that has found what a test puts into `breaks`."""

    def __init__(self, name: str, incarnation: int, node: str) -> None:
        super().__init__(name, incarnation, node)
        self.breaks: list[dict[str, Any]] = []

    def _vitals(self) -> dict[str, Any]:
        return {"breaks": self.breaks, "failure": self.breaks[-1]["summary"] if self.breaks else ""}

    async def audit(self) -> bytes:
        await self._enter("audit")
        return b"audited"
