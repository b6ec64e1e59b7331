"""Calls over Ray: the machines, the supervisor and the processes that it starts, as those who call them see them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import ray
import ray.exceptions
import structlog
from ray._private.state import actors as ray_actors

from exchange.engine.control import ControlResult
from exchange.engine.instrument import Instrument
from exchange.runtime.calls import Caller, Endpoint
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.snapshot_transfer import Part
from exchange.runtime.topology import Topology

NAMESPACE = "evenkeel"
KILL_WAIT_S = 0.5
SUPERVISORS = ("supervisor-0", "supervisor-1")
"""The actors of which one is active, and the other follows it where there are standbys."""
LOST = ray.exceptions.RayError
"""A call that failed, whatever the reason."""
DEAD = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError)
"""An actor that Ray does not start again: it was killed, or its node is gone that it is bound to."""


_log = structlog.get_logger()


def actor_name(name: str, incarnation: int) -> str:
    """Return what an actor is called: a name never means another one than was meant."""
    return f"{name}.{incarnation}"


class RayPeer:
    """A host behind Ray, which tells where its own server is; what is called often goes there. Calls that fail have an
    unknown effect."""

    def __init__(self, name: str, incarnation: int) -> None:
        self.incarnation = incarnation
        self._actor_name = actor_name(name, incarnation)
        self._handle: Any = None
        self._caller = Caller(self._endpoint)

    def look_up(self) -> None:
        """Find the actor and connect while Ray's books are in reach, so that it can be called when they are not."""
        if self._handle is None:
            self._handle = ray.get_actor(self._actor_name, namespace=NAMESPACE)
            # Without the books, the first call of all would wait for them (measured, Ray 2.60).
            self._caller.open()

    async def _endpoint(self) -> Endpoint:
        return Endpoint(*await self._over_ray("endpoint"))

    async def _over_ray(self, method: str, *arguments: Any) -> Any:
        try:
            self.look_up()
            return await getattr(self._handle, method).remote(*arguments)
        except (LOST, ValueError) as error:
            raise PeerUnavailable(f"{self._actor_name}.{method}: {type(error).__name__}") from error

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await self._caller.call(method, *arguments)
        except PeerUnavailable as error:
            raise PeerUnavailable(f"{self._actor_name}.{method}: {error}") from error

    async def submit(self, batch: bytes) -> bytes:
        answer: bytes = await self._call("submit", batch)
        return answer

    async def feed(self, after_sequence: int, timeout_s: float) -> Sequence[bytes] | None:
        batches: Sequence[bytes] | None = await self._call("feed", after_sequence, timeout_s)
        return batches

    async def query(self, request: bytes) -> bytes:
        answer: bytes = await self._call("query", request)
        return answer

    async def dump(self) -> bytes:
        dump: bytes = await self._over_ray("dump")
        return dump

    async def snapshot_part(self, offset: int) -> Part | None:
        part = await self._over_ray("snapshot_part", offset)
        return None if part is None else Part(*part)


class RayPeers:
    """The machines' primaries as the newest topology has them. Their standbys are looked up ahead of need."""

    def __init__(self) -> None:
        self.topology: Topology | None = None
        self.primaries: dict[str, RayPeer] = {}
        self._known: dict[tuple[str, int], RayPeer] = {}

    def follow(self, topology: Topology) -> bool:
        """Take a topology unless there is a newer one; return whether it was taken."""
        if not topology.is_newer_than(self.topology):
            return False
        self.topology = topology
        known = {}
        self.primaries = {}
        for machine, (primary, standby) in topology.machines.items():
            for incarnation in filter(None, (primary, standby)):
                key = machine, incarnation
                known[key] = self._known.get(key) or RayPeer(machine, incarnation)
                try:
                    known[key].look_up()
                except (LOST, ValueError):
                    # It is gone already, or Ray's books are out of reach: the first call tries again.
                    pass
            if primary:
                self.primaries[machine] = known[machine, primary]
        self._known = known
        return True


class RaySupervisor:
    """The active supervisor behind Ray, as a gateway calls it."""

    def __init__(self) -> None:
        self.name = SUPERVISORS[0]

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(ray.get_actor(self.name, namespace=NAMESPACE), method).remote(*arguments)
        except (LOST, ValueError) as error:
            raise PeerUnavailable(f"{method}: {error}"[:300]) from error

    async def create_instrument(self, instrument: Instrument, shard: str) -> ControlResult:
        return ControlResult(*await self._call("create_instrument", tuple(instrument), shard))

    async def set_stage(self, request: bytes) -> tuple[str, str, list[str]]:
        done: tuple[str, str, list[str]] = await self._call("set_stage", request)
        return done

    async def unpark(self, name: str) -> tuple[str, str]:
        refused: tuple[str, str] = await self._call("unpark", name)
        return refused

    async def status(self) -> bytes:
        status: bytes = await self._call("status")
        return status

    async def events(self, after_sequence: int) -> bytes:
        events: bytes = await self._call("events", after_sequence)
        return events

    async def start_maintenance(self, request: bytes) -> tuple[str, str]:
        reason, message = await self._call("start_maintenance", request)
        return reason, message

    async def maintenance(self) -> bytes:
        maintenance: bytes = await self._call("maintenance")
        return maintenance

    async def apply_settings(self, request: bytes, key_id: str) -> tuple[str, str, bytes]:
        reason, message, response = await self._call("apply_settings", request, key_id)
        return reason, message, response

    async def revert_settings(self, request: bytes, key_id: str) -> tuple[str, str, bytes]:
        reason, message, response = await self._call("revert_settings", request, key_id)
        return reason, message, response

    async def settings(self) -> bytes:
        settings: bytes = await self._call("settings")
        return settings

    async def settings_history(self) -> bytes:
        history: bytes = await self._call("settings_history")
        return history

    async def audit(self) -> bytes:
        report: bytes = await self._call("audit")
        return report


class RayProcess:
    """A component behind Ray, as the supervisor sees it. `node` is the id of its node in Ray."""

    def __init__(self, handle: Any, node: str, pid: int, *, is_here: bool) -> None:
        self.node = node
        self._handle = handle
        self._pid = pid
        self._is_here = is_here

    async def ping(self, record: int, checksum: int) -> dict[str, Any]:
        vitals: dict[str, Any] = await self._handle.ping.remote(record, checksum)
        self._pid = vitals["pid"]
        return vitals

    async def submit(self, batch: bytes) -> bytes:
        answer: bytes = await self._handle.submit.remote(batch)
        return answer

    async def configure(self, topology: bytes) -> None:
        await self._handle.configure.remote(topology)

    async def apply_settings(self, packed: bytes) -> None:
        await self._handle.apply_settings.remote(packed)

    async def promote(self, begin: bool) -> None:
        await self._handle.promote.remote(begin)

    async def hand_over(self) -> int:
        record: int = await self._handle.hand_over.remote()
        return record

    async def drain(self) -> None:
        await self._handle.drain.remote()

    async def audit(self) -> bytes:
        report: bytes = await self._handle.audit.remote()
        return report

    async def stop(self) -> None:
        await self._handle.stop.remote()

    async def kill(self) -> None:
        is_gone = self._is_here and self._pid != 0
        kill_here(self._pid if self._is_here else 0)
        # Without Ray's books this would take for ever. Who is elsewhere and goes on is fenced.
        ending = asyncio.ensure_future(asyncio.to_thread(_end, self._handle))
        await asyncio.wait([ending], timeout=0 if is_gone else KILL_WAIT_S)


def kill_here(pid: int) -> None:
    """End a process of this machine for certain, stopped or not; 0 is none."""
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


async def end_if_ours(pid: int) -> None:
    """End a process of this machine if it is one of this exchange's actors, whatever Ray thinks of its state."""
    address = ray.util.get_node_ip_address()
    rows = (await asyncio.to_thread(ray_actors)).values()
    if pid != os.getpid() and any(row["Pid"] == pid and row["Address"]["IPAddress"] == address for row in rows):
        _log.warning("journal.holder_ended", pid=pid)
        kill_here(pid)


def _end(handle: Any) -> None:
    """Have Ray end an actor; who cannot be reached is fenced."""
    try:
        ray.kill(handle)
    except (LOST, ValueError):
        pass
