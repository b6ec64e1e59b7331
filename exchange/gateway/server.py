"""A gateway: its copies of the shards and the ledger, its links to them, and the gRPC server in front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from exchange.engine.words import Stage
from exchange.gateway.account import AccountService
from exchange.gateway.admin import AdminService, Supervisor
from exchange.gateway.balance_stream import BalanceHub
from exchange.gateway.draining import DrainedServer, Draining
from exchange.gateway.executions import ExecutionHub
from exchange.gateway.following import Follower, check_dump, check_writer
from exchange.gateway.held import HeldOrders, Pace, pace_of
from exchange.gateway.ledger import LedgerClient, LedgerReplica
from exchange.gateway.limits import Limits
from exchange.gateway.links import Link
from exchange.gateway.market_data import MarketDataService
from exchange.gateway.metrics import ShardSeen
from exchange.gateway.pending import PendingCommands
from exchange.gateway.queries import Queries
from exchange.gateway.replica import ShardReplica, all_loaded
from exchange.gateway.routing import Router
from exchange.gateway.trading import TradingService, add_trading_service
from exchange.overload.classes import WorkClass
from exchange.runtime.codec import unpack_dump
from exchange.runtime.feed import unpack_batch
from exchange.runtime.peers import Peer
from exchange.settings import Settings
from exchange.v1 import (
    account_pb2,
    account_pb2_grpc,
    admin_pb2,
    admin_pb2_grpc,
    market_data_pb2,
    market_data_pb2_grpc,
    trading_pb2,
)

MESSAGE_BYTES_MAX = 1 << 20
CONCURRENT_RPCS_MAX = 4_000
LINGER_S, LINGER_S_MAX = 0.2, 2.0
"""A gateway that has finished still refuses what comes, until nothing has come for so long: its clients have turned
away. It waits no longer than the second for those that do not."""
DRAIN_GRACE_S = 10.0
"""By then every command has its outcome."""
LEDGER = "ledger"

_log = structlog.get_logger()


class Gateway:
    """Serves gRPC on `address`. `set_peers` tells it where the machines are; it never asks.

    `name` and `incarnation` stamp its links, and make its sessions unique; it is one of so many `gateways`.
    """

    def __init__(
        self,
        name: str,
        incarnation: int,
        shards: list[str],
        supervisor: Supervisor,
        *,
        settings: Settings | None = None,
        gateways: int = 1,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        settings = settings or Settings()
        self._share = 1 / gateways
        self._clock_ns = clock_ns
        self.ledger = LedgerReplica(clock_ns=clock_ns)
        self.replicas = {shard: ShardReplica(shard) for shard in shards}
        self.shard_of: dict[str, str] = {}
        self._draining = Draining()
        self.executions = ExecutionHub(self.replicas, draining=self._draining)
        self._links = {shard: Link(shard, name, incarnation, settings=settings) for shard in shards}
        self._ledger_link = Link(LEDGER, name, incarnation, settings=settings)
        self._queries = {shard: Queries(link, settings) for shard, link in self._links.items()}
        self._limits = Limits(settings, self.ledger.tier_of)
        pending = {shard: PendingCommands() for shard in shards}
        for shard, replica in self.replicas.items():
            replica.on_resolved = pending[shard].on_resolved
        self.held = {shard: self._held_for(shard) for shard in shards}
        self._router = Router(
            self._links,
            self.shard_of,
            pending,
            self.held,
            self._limits,
            knows_all=lambda: all_loaded(self.replicas),
        )
        self._trading = TradingService(
            self._router,
            self._queries,
            self.replicas,
            self.ledger,
            self.executions,
            incarnation << 32,
            clock_ns,
            self._draining,
        )
        self._market_data = MarketDataService(
            self.replicas, self.shard_of, has_host=lambda shard: self._links[shard].peer is not None
        )
        ledger = LedgerClient(self._ledger_link, self.ledger)
        balances = BalanceHub(self.ledger, self._links, self.executions, draining=self._draining)
        self._account = AccountService(ledger, self.replicas, balances)
        self._admin = AdminService(supervisor, ledger, self.shard_of.__contains__)
        self._followers = {LEDGER: Follower(LEDGER, self.ledger)}
        for shard, replica in self.replicas.items():
            # What its last host has told may not be true of the next one: so it is away until that has told what is.
            copy = _ShardCopy(replica, self.executions, self.shard_of)
            self._followers[shard] = Follower(shard, copy, partial(replica.set_away, False))
        self._version = (0, 0)
        self._server: Any = None
        self._health = health.aio.HealthServicer()
        self.address = ""
        self.apply_settings(settings)

    def _held_for(self, shard: str) -> HeldOrders:
        """Return what holds orders for a shard, paced by the stage that this gateway's copy shows."""
        link, replica = self._links[shard], self.replicas[shard]

        def pace() -> Pace:
            return pace_of(replica.stage, replica.stage_of("").orders_per_s, self._share)

        def has_room(orders: int) -> bool:
            return link.is_up and link.peer is not None and link.admission.has_room(WorkClass.ORDERS, orders)

        link.admission.stage_opens_in_ms = lambda: (
            max(replica.stage_of("").next_stage_time_ns - self._clock_ns(), 0) / 1e6
        )
        link.admission.is_open = lambda: replica.stage == Stage.OPEN
        return HeldOrders(pace, has_room, link.admission.retry_after_ms)

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings."""
        for link in self._links_of_all().values():
            link.apply_settings(settings)
        for queries in self._queries.values():
            queries.apply_settings(settings)
        self._limits.apply_settings(settings)
        self._router.deadlines = settings.deadlines

    def load(self) -> dict[str, Any]:
        """Return what there is to see of the load, as plain values."""
        return {
            "links": {machine: link.admission.plain() for machine, link in self._links_of_all().items()},
            "rate_limited": self._limits.limited,
            "requests": self._router.requests,
            "commands": self._router.commands,
        }

    def shards_seen(self) -> dict[str, ShardSeen]:
        """Return the shards as the copies here have them."""
        return {shard: ShardSeen(r.stage, r.epoch, r.sequence) for shard, r in self.replicas.items()}

    async def start(self, address: str) -> None:
        """Listen on `address` (host:port, port 0: any)."""
        for link in self._links_of_all().values():
            link.start()
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_concurrent_streams", CONCURRENT_RPCS_MAX),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ],
            maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX,
        )
        drained: Any = DrainedServer(self._server, self._draining)
        add_trading_service(self._trading, drained)
        market_data_pb2_grpc.add_MarketDataServiceServicer_to_server(self._market_data, drained)
        account_pb2_grpc.add_AccountServiceServicer_to_server(self._account, drained)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._admin, drained)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        services = [
            trading_pb2.DESCRIPTOR.services_by_name["TradingService"].full_name,
            market_data_pb2.DESCRIPTOR.services_by_name["MarketDataService"].full_name,
            account_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name,
            admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
        ]
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        host, _, _ = address.rpartition(":")
        port = self._server.add_insecure_port(address)
        await self._server.start()
        for service in ("", *services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self.address = f"{host}:{port}"
        _log.info("gateway.serving", address=self.address)

    def set_peers(self, peers: Mapping[str, Peer | None], version: tuple[int, int] | None = None) -> None:
        """Take the current hosts of the machines; a new one is followed from where the old one was left.

        `version` is that of the topology that names them. One that is older than the last comes from a supervisor
        that has been replaced, and changes nothing.
        """
        if version is not None:
            if version < self._version:
                _log.warning("topology.stale", version=version, known=self._version)
                return
            self._version = version
        for machine, link in self._links_of_all().items():
            peer = peers.get(machine)
            known = link.peer
            if (peer.incarnation if peer else 0) == (known.incarnation if known else 0):
                continue
            link.set_peer(peer)
            if machine in self.replicas:
                self.replicas[machine].set_away(True)
            self._followers[machine].follow(peer)

    @property
    def stale(self) -> int:
        """How often something came from a host that had been replaced; none of it was believed."""
        return sum(follower.stale for follower in self._followers.values())

    @property
    def is_draining(self) -> bool:
        return self._draining.is_on

    async def drain(self, grace_s: float = DRAIN_GRACE_S) -> None:
        """Stop without failing anything: take nothing new, finish what was taken, send clients elsewhere, then stop.

        What is not finished after `grace_s` is cut off.
        """
        _log.info("gateway.draining", address=self.address)
        await self._health.enter_graceful_shutdown()
        self._draining.begin()
        try:
            async with asyncio.timeout(grace_s):
                await self._draining.finish()
                # What has ended with its stream is cancelled before the link goes.
                await asyncio.gather(*(link.settle() for link in self._links_of_all().values()))
                # A call on its way to a server that stops is cancelled, and its client cannot know what that means.
                await self._draining.fall_silent(LINGER_S, LINGER_S_MAX)
                await self._draining.finish()
        except TimeoutError:
            _log.warning("gateway.drained_late", address=self.address, grace_s=grace_s)
        await self.stop()

    async def stop(self, grace_s: float = 1.0) -> None:
        """Close; what is under way has `grace_s` to end."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_s)
        for follower in self._followers.values():
            await follower.stop()
        for link in self._links_of_all().values():
            await link.stop()

    def _links_of_all(self) -> dict[str, Link]:
        return {**self._links, LEDGER: self._ledger_link}


class _ShardCopy:
    """The copy of a shard as its follower sees it."""

    def __init__(self, replica: ShardReplica, executions: ExecutionHub, shard_of: dict[str, str]) -> None:
        self._replica = replica
        self._executions = executions
        self._shard_of = shard_of

    @property
    def is_loaded(self) -> bool:
        return self._replica.is_loaded

    @property
    def sequence(self) -> int:
        return self._replica.sequence

    @property
    def epoch(self) -> int:
        return self._replica.epoch

    def load(self, dump: bytes) -> None:
        unpacked = unpack_dump(dump)
        check_dump(self, unpacked.epoch, unpacked.sequence)
        self._replica.load(unpacked)
        self._executions.reset(self._replica.shard)
        self._learn_instruments()

    def apply(self, data: bytes) -> None:
        batch = unpack_batch(data)
        check_writer(self, batch.epoch)
        known = len(self._replica.books)
        self._replica.apply(batch, data)
        if len(self._replica.books) != known:
            self._learn_instruments()

    def _learn_instruments(self) -> None:
        for symbol in self._replica.books:
            self._shard_of[symbol] = self._replica.shard
