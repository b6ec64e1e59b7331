"""A ledger and a shard on real hosts, with standbys, behind real gateways: what a cluster does, in one process.

Journals are in memory and shared by the hosts of a machine, so that the epoch alone fences the old ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from exchange.client import AsyncClient
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import CreateAccount, CreateApiKey, CreateAsset, Deposit, Permission
from exchange.engine.words import Stage
from exchange.gateway.auth import hash_of_key
from exchange.gateway.server import LEDGER, Gateway
from exchange.runtime.codec import ShardType
from exchange.runtime.feed import FeedGap
from exchange.runtime.host import Host, NotPrimary
from exchange.runtime.journal import MemoryJournal
from exchange.runtime.machine import MachineType
from exchange.runtime.messages import LinkBatch, unpack, unpack_batch
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import LedgerType, rows_segment
from exchange.runtime.snapshot import SnapshotStore
from tests.runtime.money import BUY, SELL, grants

SHARD, SYMBOL = "shard-0", "BTC-USDT"
ALICE, BOB = 2, 3
"""One buys, the other sells."""
KINDS: dict[str, MachineType] = {LEDGER: LedgerType(), SHARD: ShardType()}


class HostPeer:
    """A host as gateways reach it. `is_gone`: not any more. While `lets_through` is not set, it is paused."""

    def __init__(self, host: Host, incarnation: int) -> None:
        self.host = host
        self.incarnation = incarnation
        self.is_gone = False
        self.lets_through = asyncio.Event()
        self.lets_through.set()
        self.submits = 0

    async def _reach(self) -> None:
        if self.is_gone:
            raise PeerUnavailable("gone")
        await self.lets_through.wait()

    async def submit(self, batch: bytes) -> bytes:
        self.submits += 1
        await self._reach()
        try:
            answer = await self.host.submit(unpack_batch(unpack(batch)))
        except NotPrimary as error:
            raise PeerUnavailable(str(error)) from error
        await self._reach()
        return answer

    async def feed(self, after_sequence: int, timeout_s: float) -> list[bytes] | None:
        await self._reach()
        try:
            batches = await self.host.at.feed.wait(after_sequence, timeout_s)
        except FeedGap:
            return None
        await self._reach()
        return batches

    async def dump(self) -> bytes:
        await self._reach()
        return self.host.kind.dump(self.host.machine, self.host.epoch)

    async def query(self, request: bytes) -> bytes:
        await self._reach()
        return self.host.kind.query(self.host.machine, request)


class Exchange:
    """`gateways` of which each knows the primaries in `peers`. `incarnation` is the last that anybody was given."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.journals = {machine: MemoryJournal(machine) for machine in KINDS}
        self.peers: dict[str, HostPeer | None] = {}
        self.standbys: dict[str, Host] = {}
        self.gateways: list[Gateway] = []
        self.incarnation = 0
        self.version = (1, 0)
        self._hosts: list[Host] = []

    def _host(self, machine: str) -> Host:
        host = Host(KINDS[machine], self.journals[machine], SnapshotStore(self._directory / machine))
        self._hosts.append(host)
        return host

    async def start(self, gateways: int) -> None:
        for machine in KINDS:
            host = self._host(machine)
            await host.start()
            self._reach_at(machine, host)
            await self._new_standby(machine)
        permissions = tuple(map(int, Permission))
        await self._command(LEDGER, CreateAccount("operator"), CreateAccount("alice"), CreateAccount("bob"))
        keys = [
            CreateApiKey(account, f"key-{account}", hash_of_key(f"secret-{account}"), permissions)
            for account in (ALICE, BOB)
        ]
        await self._command(LEDGER, *keys)
        await self._command(LEDGER, CreateAsset("BTC", 8), CreateAsset("USDT", 6))
        instrument = Instrument(SYMBOL, "BTC", "USDT", 2, 4, 6)
        money = grants(SYMBOL, (ALICE, BUY), (BOB, SELL))
        await self._command(SHARD, AddInstrument(instrument), SetStage(int(Stage.OPEN)), *money)
        for number in range(gateways):
            self.gateways.append(await self._gateway(number, "127.0.0.1:0"))

    async def _gateway(self, number: int, address: str) -> Gateway:
        self.incarnation += 1
        gateway = Gateway(f"gateway-{number}", self.incarnation, [SHARD], None)  # type: ignore[arg-type]  # not asked
        await gateway.start(address)
        gateway.set_peers(self.peers, self.version)
        await until(lambda: gateway.ledger.is_loaded and SYMBOL in gateway.shard_of)
        return gateway

    async def restart_gateway(self, number: int) -> None:
        """Start one that has stopped again, where its clients know it."""
        self.gateways[number] = await self._gateway(number, self.gateways[number].address)

    async def stop(self) -> None:
        for gateway in self.gateways:
            await gateway.stop(0)
        for host in self._hosts:
            await host.stop()

    # ---------------------------------------------------------------- what a supervisor does

    def tell(self) -> None:
        """Tell every gateway where the machines are."""
        self.version = (1, self.version[1] + 1)
        for gateway in self.gateways:
            gateway.set_peers(self.peers, self.version)

    async def fail_over(self, machine: str = SHARD, *, tell: bool = True, opened: bool = True) -> HostPeer:
        """Promote the standby of a machine, whatever its primary does; return how that one was reached.

        `opened`: a shard is opened at once.
        """
        old = self.peers[machine]
        assert old is not None
        host = self.standbys[machine]
        await host.promote()
        if machine == SHARD and opened:
            await host.submit(LinkBatch("", 0, 0, [rows_segment([SetStage(int(Stage.OPEN))])]))
        self._reach_at(machine, host)
        if tell:
            self.tell()
        await self._new_standby(machine)
        return old

    async def hand_over(self, machine: str = SHARD) -> None:
        """A planned handover: the primary lets go of the journal, and the standby goes on."""
        old = self.peers[machine]
        assert old is not None
        await old.host.hand_over()
        host = self.standbys[machine]
        await host.promote(begin=False)
        self._reach_at(machine, host)
        self.tell()
        await self._new_standby(machine)

    def _reach_at(self, machine: str, host: Host) -> None:
        self.incarnation += 1
        self.peers[machine] = HostPeer(host, self.incarnation)

    async def _new_standby(self, machine: str) -> None:
        self.standbys[machine] = self._host(machine)
        await self.standbys[machine].follow()

    async def _command(self, machine: str, *commands: Any) -> None:
        peer = self.peers[machine]
        assert peer is not None
        await peer.host.submit(LinkBatch("", 0, 0, [rows_segment(list(commands))]))

    async def deposit(self) -> None:
        """Give Alice money that the ledger tells of."""
        await self._command(LEDGER, Deposit(ALICE, "USDT", 1, "deposit"))

    # ---------------------------------------------------------------- what tests ask

    @property
    def shard(self) -> Any:
        """The machine of the shard's primary."""
        peer = self.peers[SHARD]
        assert peer is not None
        return peer.host.machine

    def resting(self) -> list[str]:
        """The client order ids in the book."""
        return [order.request.client_order_id for order in self.shard.books[SYMBOL].orders()]

    def client(self, account: int = ALICE, **how: Any) -> AsyncClient:
        return AsyncClient([gateway.address for gateway in self.gateways], f"secret-{account}", **how)


@asynccontextmanager
async def exchange(directory: Path, gateways: int = 1) -> AsyncIterator[Exchange]:
    world = Exchange(directory)
    try:
        await world.start(gateways)
        yield world
    finally:
        await world.stop()


async def until(condition: Any) -> None:
    """Lets the loop run until it holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - there is no event for what hosts and gateways do inside
        await asyncio.sleep(0.002)
