"""Starts the exchange's processes as Ray actors, on the nodes that they are meant for, and finds them again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import ray
import ray.exceptions
import structlog
from ray._private.state import actors as ray_actors

from exchange.actors import AuditorActor, GatewayActor, HostActor
from exchange.config import ExchangeConfig
from exchange.ray_calls import NAMESPACE, SUPERVISORS, RayProcess, actor_name
from exchange.ray_settings import NODE_LABEL
from exchange.settings import Settings
from exchange.supervisor.component import AUDITOR, Node

_OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "namespace": NAMESPACE,
    "lifetime": "detached",
    "max_restarts": 0,
    "max_task_retries": 0,
    "max_concurrency": 1_000,
}
_log = structlog.get_logger()


class RayLauncher:
    """Starts components as detached actors whose names carry their incarnation."""

    def __init__(self, config: ExchangeConfig) -> None:
        self._config = config
        self._address = ray.util.get_node_ip_address()
        self._addresses: dict[str, str] = {}

    async def nodes(self) -> list[Node]:
        """Return the nodes that are alive, by name."""
        rows = [row for row in await asyncio.to_thread(ray.nodes) if row["Alive"]]
        self._addresses.update((row["NodeID"], row["NodeManagerAddress"]) for row in rows)
        nodes = [Node(row["NodeID"], row["Labels"].get(NODE_LABEL, row["NodeManagerAddress"])) for row in rows]
        return sorted(nodes, key=lambda node: (node.name, node.id))

    async def start(
        self, name: str, incarnation: int, *, node: str, port: int, standby: bool, settings: Settings
    ) -> RayProcess:
        config = replace(self._config, settings=settings)
        options = {
            **_OPTIONS,
            "name": actor_name(name, incarnation),
            "label_selector": {"ray.io/node-id": node},
        }
        if name.startswith("gateway"):
            handle = ray.remote(GatewayActor).options(**options).remote(name, incarnation, port, config)
        elif name == AUDITOR:
            handle = ray.remote(AuditorActor).options(**options).remote(config)
        else:
            handle = ray.remote(HostActor).options(**options).remote(name, config, standby)
        process = self._process(handle, node, 0)
        try:
            await process.ping(0, 0)
        except asyncio.CancelledError:
            # Nobody waits for it any more, so it must not come up later.
            await process.kill()
            raise
        return process

    async def find(self, name: str, incarnation: int) -> RayProcess | None:
        try:
            handle = await asyncio.to_thread(ray.get_actor, actor_name(name, incarnation), namespace=NAMESPACE)
        except ValueError:
            return None
        row = await asyncio.to_thread(ray_actors, handle._actor_id.hex())
        return self._process(handle, row["Address"]["NodeID"], row["Pid"])

    def _process(self, handle: Any, node: str, pid: int) -> RayProcess:
        return RayProcess(handle, node, pid, is_here=self._addresses.get(node, self._address) == self._address)

    async def end_others(self, keep: set[tuple[str, int]]) -> None:
        names = {*SUPERVISORS, *(actor_name(*pair) for pair in keep)}
        for row in (await asyncio.to_thread(ray_actors)).values():
            if row["Name"] and row["State"] != "DEAD" and row["Name"] not in names:
                _log.warning("component.unknown", actor=row["Name"], pid=row["Pid"])
                try:
                    handle = await asyncio.to_thread(ray.get_actor, row["Name"], namespace=NAMESPACE)
                except ValueError:
                    continue  # it has ended meanwhile
                await self._process(handle, row["Address"]["NodeID"], row["Pid"]).kill()
