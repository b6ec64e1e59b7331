"""A gateway: its copies of the shards and the ledger, its links to them, and the gRPC server in front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from exchange.gateway.account import AccountService
from exchange.gateway.admin import AdminService, Supervisor
from exchange.gateway.balance_stream import BalanceHub
from exchange.gateway.executions import ExecutionHub
from exchange.gateway.ledger import LedgerClient, LedgerReplica
from exchange.gateway.links import Link
from exchange.gateway.market_data import MarketDataService
from exchange.gateway.pending import PendingCommands
from exchange.gateway.replica import ShardReplica
from exchange.gateway.routing import Router
from exchange.gateway.trading import TradingService, add_trading_service
from exchange.runtime.codec import unpack_dump
from exchange.runtime.feed import unpack_batch
from exchange.runtime.peers import Peer, PeerUnavailable
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
FEED_WAIT_S = 10.0
FEED_RETRY_S = 0.1
LEDGER = "ledger"

_log = structlog.get_logger()


class Gateway:
    """Serves gRPC on `address`. `set_peer` tells it where the machines are; it never asks.

    `name` and `incarnation` stamp its links, and make its sessions unique.
    """

    def __init__(
        self,
        name: str,
        incarnation: int,
        shards: list[str],
        supervisor: Supervisor,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.ledger = LedgerReplica(clock_ns=clock_ns)
        self.replicas = {shard: ShardReplica(shard) for shard in shards}
        self.shard_of: dict[str, str] = {}
        self.executions = ExecutionHub(self.replicas)
        self._links = {shard: Link(shard, name, incarnation) for shard in shards}
        self._ledger_link = Link(LEDGER, name, incarnation)
        pending = {shard: PendingCommands() for shard in shards}
        for shard, replica in self.replicas.items():
            replica.on_resolved = pending[shard].on_resolved
        self._router = Router(self._links, self.shard_of, pending)
        self._trading = TradingService(self._router, self.ledger, self.executions, incarnation << 32, clock_ns)
        self._market_data = MarketDataService(self.replicas, self.shard_of)
        ledger = LedgerClient(self._ledger_link, self.ledger)
        balances = BalanceHub(self.ledger, self._links, self.executions)
        self._account = AccountService(ledger, self.replicas, balances)
        self._admin = AdminService(supervisor, ledger, self.shard_of.__contains__)
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._server: Any = None
        self._health = health.aio.HealthServicer()
        self.address = ""

    async def start(self, address: str) -> None:
        """Listen on `address` (host:port, port 0: any)."""
        for link in self._all_links().values():
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
        add_trading_service(self._trading, self._server)
        market_data_pb2_grpc.add_MarketDataServiceServicer_to_server(self._market_data, self._server)
        account_pb2_grpc.add_AccountServiceServicer_to_server(self._account, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._admin, self._server)
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

    def set_peers(self, peers: Mapping[str, Peer | None]) -> None:
        """Take the current hosts of the machines; a new one is followed from where the old one was left."""
        for machine, link in self._all_links().items():
            peer = peers.get(machine)
            known = link.peer
            if (peer.incarnation if peer else 0) == (known.incarnation if known else 0):
                continue
            link.set_peer(peer)
            if machine in self.replicas:
                self.replicas[machine].set_away(peer is None)
            follower = self._followers.pop(machine, None)
            if follower is not None:
                follower.cancel()
            if peer is not None:
                self._followers[machine] = asyncio.create_task(self._follow(machine, peer))

    async def stop(self, grace_s: float = 1.0) -> None:
        """Tell clients to go elsewhere, finish what is under way, close."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_s)
        for task in self._followers.values():
            task.cancel()
        await asyncio.gather(*self._followers.values(), return_exceptions=True)
        for link in self._all_links().values():
            await link.stop()

    def _all_links(self) -> dict[str, Link]:
        return {**self._links, LEDGER: self._ledger_link}

    async def _follow(self, machine: str, peer: Peer) -> None:
        """Keep the copy of a machine up to date from its feed."""
        fresh = machine == LEDGER and not self.ledger.is_loaded
        fresh = fresh or (machine in self.replicas and not self.replicas[machine].is_loaded)
        while True:
            try:
                if fresh:
                    self._load(machine, await peer.dump())
                    fresh = False
                batches = await peer.feed(self._sequence(machine), FEED_WAIT_S)
                if batches is None:
                    _log.warning("feed.gap", machine=machine, after=self._sequence(machine))
                    fresh = True
                    continue
                for data in batches:
                    self._apply(machine, data)
                    # Answers to commands come first.
                    await asyncio.sleep(0)
            except PeerUnavailable:
                await asyncio.sleep(FEED_RETRY_S)

    def _sequence(self, machine: str) -> int:
        return self.ledger.sequence if machine == LEDGER else self.replicas[machine].sequence

    def _load(self, machine: str, dump: bytes) -> None:
        if machine == LEDGER:
            self.ledger.load(dump)
            return
        replica = self.replicas[machine]
        replica.load(unpack_dump(dump))
        self.executions.reset(machine)
        self._learn_instruments(machine)

    def _apply(self, machine: str, data: bytes) -> None:
        if machine == LEDGER:
            self.ledger.apply(data)
            return
        replica = self.replicas[machine]
        known = len(replica.books)
        replica.apply(unpack_batch(data))
        if len(replica.books) != known:
            self._learn_instruments(machine)

    def _learn_instruments(self, machine: str) -> None:
        for symbol in self.replicas[machine].books:
            self.shard_of[symbol] = machine
