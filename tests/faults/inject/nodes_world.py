"""Three Ray nodes on this machine and journals on NATS servers: what is lost there is more than a process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.nodes import LocalNode, LocalNodes
from exchange.runtime.nats_servers import NatsServers
from tests.faults.check.history import History, StreamHistory
from tests.faults.inject.away import Taker
from tests.faults.inject.fault import FaultKind, Injector, Target
from tests.faults.inject.processes import PAUSE_S, ProcessKiller, ProcessPauser
from tests.faults.inject.world import ROLES, supervisors_among

NODE_AWAY_S = (1.0, 4.0)
SERVER_AWAY_S = (1.0, 5.0)
GCS_AWAY_S = (1.0, 5.0)
_POLL_S = 0.2


class NodesWorld:
    """Several nodes, a gateway on each. Processes and nodes are killed and paused, NATS servers and the GCS killed."""

    def __init__(self, config: ExchangeConfig) -> None:
        self._exchange = LocalExchange(config)
        self._killed: set[str] = set()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._start_what_ended)
        self.addresses: tuple[str, ...] = ()

    @property
    def operator_key(self) -> str:
        return self._exchange.operator_key

    @property
    def machines(self) -> Mapping[str, str]:
        shards = dict.fromkeys(self._exchange.config.shard_names, "shard")
        return {"ledger": "ledger", "supervisor": "control", **shards}

    @property
    def injectors(self) -> Sequence[Injector]:
        nodes, servers = self._nodes, self._servers

        def node(target: Target) -> LocalNode:
            return nodes.node(target.name)

        def kill(target: Target) -> None:
            self._killed.add(target.name)
            nodes.kill(node(target))

        def number(target: Target) -> int:
            return servers.names.index(target.name)

        return (
            ProcessKiller(),
            ProcessPauser(PAUSE_S),
            Taker(
                FaultKind.KILL_NODE,
                self._running_nodes,
                kill,
                lambda target: self._killed.remove(target.name),
                NODE_AWAY_S,
                lambda target: node(target).worker_pids,
            ),
            Taker(
                FaultKind.PAUSE_NODE,
                self._running_nodes,
                lambda target: nodes.pause(node(target)),
                lambda target: nodes.resume(node(target)),
                PAUSE_S,
            ),
            Taker(
                FaultKind.KILL_NATS,
                self._running_servers,
                lambda target: servers.stop_server(number(target), kill=True),
                lambda target: servers.start_server(number(target)),
                SERVER_AWAY_S,
            ),
            Taker(
                FaultKind.KILL_GCS,
                lambda: [Target("gcs", "gcs", nodes.gcs_pid)] if nodes.gcs_pid else [],
                lambda _: nodes.kill_gcs(),
                lambda _: nodes.restart_gcs(),
                GCS_AWAY_S,
            ),
        )

    @property
    def roles(self) -> Mapping[FaultKind, Sequence[str]]:
        nodes = [node.name for node in self._nodes.nodes]
        return {
            FaultKind.KILL_PROCESS: ROLES,
            FaultKind.PAUSE_PROCESS: ROLES,
            FaultKind.KILL_NODE: nodes,
            FaultKind.PAUSE_NODE: nodes,
            FaultKind.KILL_NATS: self._servers.names,
            FaultKind.KILL_GCS: ["gcs"],
        }

    @property
    def _nodes(self) -> LocalNodes:
        assert self._exchange.nodes is not None, "the world is not started, or has one node"
        return self._exchange.nodes

    @property
    def _servers(self) -> NatsServers:
        assert self._exchange.nats_servers is not None, "the world is not started, or its journals are files"
        return self._exchange.nats_servers

    def _running_nodes(self) -> list[Target]:
        """Return the nodes, each a role of its own, so that each gets its share: the first one has the GCS."""
        return [Target(n.name, n.name) for n in self._nodes.nodes if n.alive and not n.paused]

    def _running_servers(self) -> list[Target]:
        named = zip(self._servers.names, self._servers.pids, strict=True)
        return [Target(name, name, pid) for name, pid in named if pid]

    def unlisted_targets(self) -> Sequence[Target]:
        return [target for node in self._nodes.nodes for target in supervisors_among(node.processes, node.name)]

    def start(self) -> None:
        self._exchange.start()
        self._exchange.wait(complete=True)
        components = self._exchange.status().components
        self.addresses = tuple(c.address for c in components if c.name.startswith("gateway"))
        self._exchange.disconnect()
        self._watch.start()

    def _start_what_ended(self) -> None:
        """Start nodes again, as the machine of each does: also those that Ray gave up while they were paused.

        A node cannot join while the GCS is away.
        """
        while not self._over.wait(_POLL_S):
            for node in self._nodes.nodes:
                if node.name not in self._killed and not node.alive and self._nodes.gcs_pid:
                    self._nodes.kill(node)
                    self._nodes.start_again(node)

    def history(self, directory: Path) -> History:
        places = [node.data_dir for node in self._nodes.nodes]
        sources = {machine: [place / machine for place in places] for machine in self.machines}
        return StreamHistory(directory, sources, self._servers.urls)

    def stop_exchange(self) -> None:
        self._end_watch()
        self._exchange.stop_components()

    def _end_watch(self) -> None:
        self._over.set()
        if self._watch.is_alive():
            self._watch.join()

    def stop(self) -> None:
        self._end_watch()
        self._exchange.stop()
