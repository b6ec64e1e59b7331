"""Three Ray nodes on this machine and journals on NATS servers: what is lost there is more than a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from chaos.faults.away import Taker
from chaos.faults.fault import FaultKind, Injector, Target
from chaos.faults.processes import PAUSE_S, ProcessKiller, ProcessPauser
from chaos.invariants.history import History, StreamHistory
from chaos.worlds.reach import CLOSED_PORT, listens, passes
from chaos.worlds.world import ROLES, supervisors_among
from exchange.config import ExchangeConfig
from exchange.netns import missing
from exchange.node_reviver import NodeReviver
from exchange.nodes import LocalNode, LocalNodes
from exchange.runtime.nats_servers import NatsServers

NODE_AWAY_S = (1.0, 4.0)
SERVER_AWAY_S = (1.0, 5.0)
GCS_AWAY_S = (1.0, 5.0)
LINK_AWAY_S = (1.0, 8.0)


class NodesWorld:
    """Several nodes, a gateway on each. Processes and nodes are killed and paused, NATS servers and the GCS killed.

    As root, each node has a network namespace of its own, and links are cut. Clients and NATS servers are on the other
    side of the bridge: a node can be cut off from them too, or from the other nodes alone.
    """

    def __init__(self, config: ExchangeConfig) -> None:
        self._no_links = missing()
        from exchange.cluster import LocalExchange  # imports Ray

        self._exchange = LocalExchange(config, apart=not self._no_links)
        self._reviver: NodeReviver | None = None
        self.addresses: tuple[str, ...] = ()

    @property
    def left_out(self) -> Sequence[str]:
        return [f"no links are cut: {self._no_links}"] if self._no_links else []

    @property
    def operator_key(self) -> str:
        return self._exchange.operator_key

    @property
    def machines(self) -> Mapping[str, str]:
        shards = dict.fromkeys(self._exchange.config.shard_names, "shard")
        return {"ledger": "ledger", "supervisor": "control", **shards}

    @property
    def injectors(self) -> Sequence[Injector]:
        nodes, servers, reviver = self._nodes, self._servers, self._reviver
        assert reviver is not None, "the world is not started"

        def node(target: Target) -> LocalNode:
            return nodes.node(target.name)

        def kill(target: Target) -> None:
            reviver.stay_down.add(target.name)
            nodes.kill(node(target))

        def cut_from_peers(target: Target, *, one_way: bool = False) -> None:
            for other in nodes.nodes:
                if other.name != target.name:
                    nodes.cut(node(target), other, one_way=one_way)

        def heal(target: Target) -> None:
            nodes.heal(node(target))

        def number(target: Target) -> int:
            return servers.names.index(target.name)

        links = (
            Taker(FaultKind.CUT_LINK, self._linked_nodes, lambda target: nodes.cut(node(target)), heal, LINK_AWAY_S),
            Taker(FaultKind.CUT_PEERS, self._linked_nodes, cut_from_peers, heal, LINK_AWAY_S),
            Taker(FaultKind.CUT_WAY, self._linked_nodes, partial(cut_from_peers, one_way=True), heal, LINK_AWAY_S),
            Taker(
                FaultKind.CUT_NATS,
                self._linked_nodes,
                lambda target: nodes.cut_ports(node(target), [port for _, port in self._server_places()]),
                heal,
                LINK_AWAY_S,
            ),
        )
        return (
            *(() if self._no_links else links),
            ProcessKiller(),
            ProcessPauser(PAUSE_S),
            Taker(
                FaultKind.KILL_NODE,
                self._running_nodes,
                kill,
                lambda target: reviver.stay_down.discard(target.name),
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
                lambda _: None if nodes.gcs_pid else nodes.restart_gcs(),
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
            **({} if self._no_links else {FaultKind.CUT_LINK: nodes, FaultKind.CUT_PEERS: nodes}),
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

    def _linked_nodes(self) -> list[Target]:
        return [target for target in self._running_nodes() if not self._nodes.node(target.name).is_cut]

    def _running_servers(self) -> list[Target]:
        named = zip(self._servers.names, self._servers.pids, strict=True)
        return [Target(name, name, pid) for name, pid in named if pid]

    def unlisted_targets(self) -> Sequence[Target]:
        return [target for node in self._nodes.nodes for target in supervisors_among(node.processes, node.name)]

    def underneath(self) -> Sequence[Target]:
        raylets = [Target(f"raylet-{n.number}", "raylet", n.raylet_pid, n.name) for n in self._nodes.nodes if n.alive]
        servers = [Target(target.name, "nats", target.pid) for target in self._running_servers()]
        gcs = self._nodes.gcs_pid
        return [*raylets, *servers, *([Target("gcs", "gcs", gcs)] if gcs else [])]

    def evidence(self, kind: FaultKind, name: str) -> str:
        nodes, servers = self._nodes, self._servers
        match kind:
            case FaultKind.KILL_NATS:
                number = servers.names.index(name)
                where = self._server_places()[number]
                return "" if servers.pids[number] or listens(*where) else f"nothing listens at port {where[1]}"
            case FaultKind.KILL_GCS:
                return "" if nodes.gcs_pid else f"nothing listens at {nodes.address}"
        node = nodes.node(name)
        others = [other for other in nodes.nodes if other is not node]
        match kind:
            case FaultKind.KILL_NODE:
                return "" if node.processes else "none of its processes is left"
            case FaultKind.PAUSE_NODE:
                processes = [process for process in node.processes if process.state != "Z"]
                is_stopped = processes and all(process.state == "T" for process in processes)
                return f"all of its {len(processes)} processes are stopped" if is_stopped else ""
            case FaultKind.CUT_LINK:
                return "" if passes(node.host, CLOSED_PORT) else f"{node.host} does not answer this machine"
            case FaultKind.CUT_NATS:
                with nodes.at(node):
                    reached = [port for host, port in self._server_places() if passes(host, port)]
                return "" if reached else "it reaches no NATS server"
        # A way that is cut in one direction gives no answer either: the question is lost, or the answer is.
        with nodes.at(node):
            reached_peers = [other.name for other in others if passes(other.host, CLOSED_PORT)]
        return "" if reached_peers else f"none of {', '.join(other.name for other in others)} answers it"

    def _server_places(self) -> list[tuple[str, int]]:
        places = [url.rpartition("/")[2].rpartition(":") for url in self._servers.urls]
        return [(host, int(port)) for host, _, port in places]

    def start(self) -> None:
        self._exchange.start()
        self._exchange.wait(complete=True)
        components = self._exchange.status().components
        self.addresses = tuple(c.address for c in components if c.name.startswith("gateway"))
        self._exchange.disconnect()
        self._reviver = NodeReviver(self._nodes)

    def history(self, directory: Path) -> History:
        places = [node.data_dir for node in self._nodes.nodes]
        sources = {machine: [place / machine for place in places] for machine in self.machines}
        return StreamHistory(directory, sources, self._servers.urls)

    def stop_exchange(self) -> None:
        self._end_reviver()
        self._exchange.stop_components()

    def _end_reviver(self) -> None:
        if self._reviver is not None:
            self._reviver.close()

    def stop(self) -> None:
        self._end_reviver()
        self._exchange.stop()
