"""The Ray shells around hosts, gateways and the auditor. What they do is elsewhere; here is how they are called."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import ray
import structlog

from exchange.config import ExchangeConfig
from exchange.gateway.metrics_server import MetricsServer
from exchange.gateway.server import LEDGER, Gateway
from exchange.ray_calls import RayPeers, RaySupervisor, end_if_ours
from exchange.runtime.aside import AsideFailed, do_aside
from exchange.runtime.calls import CallServer
from exchange.runtime.carrier import Carrier
from exchange.runtime.feed import FeedGap
from exchange.runtime.host import Host, Role
from exchange.runtime.large_pages import keep_large_pages
from exchange.runtime.load_messages import gateway_load
from exchange.runtime.messages import pack, unpack, unpack_batch
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.snapshot_transfer import SnapshotSource, fetch
from exchange.runtime.storage import KINDS, open_storage
from exchange.runtime.topology import unpack_topology
from exchange.settings import unpack_settings
from exchange.supervisor.audit.auditor import Auditor
from exchange.supervisor.audit.encode import encode_report

ADDRESS_FILE = "address"
DATA_DIR_VARIABLE = "EVENKEEL_DATA_DIR"
DUMP_TIMEOUT_S = 30.0
AUDITOR_NICENESS = 15
EVERY_ADDRESS = "0.0.0.0"
_MONEY = pack(("money",))
"""What the auditor asks: all that accounts have, which is much where there are many."""

_log = structlog.get_logger()


def _settle_memory() -> None:
    """Take what is there now out of the garbage collector's sight, and have it look seldom.

    Books hold no cycles that outlive an order, and a full collection over a million orders takes a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def _be_nice(niceness: int) -> None:
    """Let every thread of this process give way; `os.nice` does so for the calling one, and Ray's are there already."""
    for thread in Path("/proc/self/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)


def _replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)


def process_vitals() -> dict[str, Any]:
    """Return what stays the same in the life of a process."""
    return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}


def directory_of(config: ExchangeConfig) -> Path:
    """Return where this node keeps its journals and snapshots: all in one place, unless the node says otherwise."""
    return Path(os.environ.get(DATA_DIR_VARIABLE) or config.data_dir)


class _HostCalls:
    """What a host is asked often, by gateways, shards and the auditor, past Ray.

    Not methods of the actor, as Ray would wrap each.
    """

    def __init__(self, host: Host, at_once_max: int) -> None:
        self._host = host
        self._at_once_max = at_once_max
        self.server = CallServer({"submit": self.submit, "feed": self.feed, "query": self.query})

    async def submit(self, batch: bytes) -> bytes:
        return await self._host.submit(unpack_batch(unpack(batch)))

    async def feed(self, after_sequence: int, timeout_s: float) -> list[bytes] | None:
        try:
            return await self._host.at.feed.wait(after_sequence, timeout_s)
        except FeedGap:
            return None

    async def query(self, request: bytes) -> bytes:
        host = self._host
        if request == _MONEY and self._purses() > self._at_once_max:
            try:
                return await do_aside(lambda: host.kind.query(host.machine, request), DUMP_TIMEOUT_S)
            except AsideFailed as error:
                _log.error("query.failed", machine=host.journal.machine_name, error=str(error))
        return host.kind.query(host.machine, request)

    def _purses(self) -> int:
        machine = self._host.machine
        return len(machine.balances.available if self._host.kind.name == LEDGER else machine.funds.wallets)


class HostActor:
    """One machine's host: a shard or the ledger, as primary or as standby.

    The constructor returns when the machine is recovered, as far as its snapshots go for a standby.
    """

    async def __init__(self, name: str, config: ExchangeConfig, standby: bool) -> None:  # type: ignore[misc]
        self._name = name
        self._config = config
        self._vitals = {**process_vitals(), "was_standby": standby}
        kind = KINDS[name.partition("-")[0]]
        storage = await asyncio.to_thread(open_storage, directory_of(config), name, config.nats)
        self._host = Host(
            kind,
            *storage,
            settings=config.settings,
            snapshot_every_commands=config.snapshot_every_commands,
            end_holder=end_if_ours,
        )
        # Where the journal is on servers, each node has snapshots of its own.
        self._host.snapshotter.leaves_it_to_standby = config.standbys and config.nats is None
        self._source = SnapshotSource(self._host.snapshots)
        self._dump: asyncio.Task[bytes] | None = None
        self._carrier: Carrier | None = None
        self._peers = RayPeers()
        self._calls = _HostCalls(self._host, config.dump_at_once_orders_max)
        self._endpoint = await self._calls.server.start(ray.util.get_node_ip_address())
        if standby:
            await self._host.follow(self._fetch_snapshot if config.nats else None)
        else:
            await self._host.start()
            self._begin_to_carry()
        _settle_memory()
        self._pages = asyncio.create_task(keep_large_pages())

    def _begin_to_carry(self) -> None:
        if self._host.kind.name == "shard":
            self._carrier = Carrier(self._name, self._host)
            self._carrier.set_ledger(self._peers.primaries.get(LEDGER))

    async def endpoint(self) -> tuple[Any, ...]:
        """Return where what is asked often is to be asked: an `Endpoint`."""
        return tuple(self._endpoint)

    async def configure(self, topology: bytes) -> None:
        """Take where the other machines are."""
        if self._peers.follow(unpack_topology(topology)) and self._carrier is not None:
            self._carrier.set_ledger(self._peers.primaries.get(LEDGER))

    async def apply_settings(self, packed: bytes) -> None:
        self._host.apply_settings(unpack_settings(packed))

    async def promote(self, begin: bool) -> None:
        """Take over from the primary; see `Host.promote`."""
        await self._host.promote(begin=begin)
        if self._carrier is None:
            self._begin_to_carry()
        _settle_memory()

    async def hand_over(self) -> int:
        """Stop where the standby goes on; see `Host.hand_over`."""
        if self._carrier is not None:
            await self._carrier.stop()
        return await self._host.hand_over()

    async def snapshot_part(self, offset: int) -> tuple[Any, ...] | None:
        """Return a part of the newest snapshot, for a standby on another node."""
        return await asyncio.to_thread(self._source.part, offset)

    async def _fetch_snapshot(self) -> bool:
        """Take the newest snapshot from the primary."""
        primary = self._peers.primaries.get(self._name)
        if primary is None:
            return False
        try:
            return await fetch(primary.snapshot_part, self._host.snapshots)
        except PeerUnavailable as error:
            _log.warning("snapshot.not_fetched", machine=self._name, error=str(error))
            return False

    async def submit(self, batch: bytes) -> bytes:
        """Take what the supervisor says."""
        return await self._calls.submit(batch)

    async def dump(self) -> bytes:
        """Return the state as of some moment between the call and the answer; the feed goes on from there."""
        if self._open_orders() <= self._config.dump_at_once_orders_max:
            return self._dump_now()
        if self._dump is None:
            self._dump = asyncio.create_task(self._dump_aside())
        # Gateways that ask meanwhile share it.
        return await asyncio.shield(self._dump)

    def _dump_now(self) -> bytes:
        return self._host.kind.dump(self._host.machine, self._host.epoch)

    async def _dump_aside(self) -> bytes:
        try:
            return await do_aside(self._dump_now, DUMP_TIMEOUT_S)
        except AsideFailed as error:
            _log.error("dump.failed", machine=self._name, error=str(error))
            return self._dump_now()
        finally:
            self._dump = None

    def _open_orders(self) -> int:
        if self._host.kind.name != "shard":
            return 0
        books = self._host.machine.books.values()
        return sum(trader.open_orders for book in books for trader in book.traders.values())

    async def ping(self, record: int, checksum: int) -> dict[str, Any]:
        """Return how the host is; of a standby, whether its feed had that checksum after that record."""
        host = self._host
        vitals = {
            **self._vitals,
            "role": int(host.role),
            "epoch": host.epoch or host.at.epoch,
            "sequence": host.machine.sequence,
            "record": host.at.record,
            "checksum": host.at.feed.checksum,
            "state_hash": host.at.hashed.digest.hex(),
            "state_hash_sequence": host.at.hashed.sequence,
            "failure": host.failure,
            "replayed_commands": host.at.replayed_commands,
            "broken": repr(host.broken) if host.broken else "fenced" if host.fenced.is_set() else None,
            "cpu_s": time.process_time(),
        }
        if host.standby is not None:
            vitals["agrees"] = host.standby.agrees(record, checksum)
            vitals["failure"] = host.standby.failure
            vitals["has_caught_up"] = host.standby.has_caught_up
        if host.role == Role.PRIMARY:
            vitals["load"] = host.metering.load.plain()
            vitals["journal_lag_ms"] = host.journal_lag_ms
        if host.kind.name == "shard":
            vitals["stage"] = host.machine.stage
            vitals["stages"] = [tuple(row) for row in host.machine.stages.rows()]
            vitals["is_new"] = host.is_new
            vitals["open_orders"] = self._open_orders()
        return vitals

    async def stop(self) -> None:
        self._pages.cancel()
        if self._carrier is not None:
            await self._carrier.stop()
        await self._host.stop()
        await self._calls.server.stop()


class GatewayActor:
    """A gateway; its constructor returns when the port is open."""

    async def __init__(self, name: str, incarnation: int, port: int, config: ExchangeConfig) -> None:  # type: ignore[misc]
        self._vitals = process_vitals()
        self._supervisor = RaySupervisor()
        self._gateway = Gateway(
            name,
            incarnation,
            config.shard_names,
            self._supervisor,
            settings=config.settings,
            gateways=len(config.gateway_names),
        )
        self._peers = RayPeers()
        await self._gateway.start(f"{config.host}:{port}")
        host, _, gateway_port = self._gateway.address.rpartition(":")
        self._metrics = MetricsServer(
            name, self._supervisor, lambda: gateway_load(self._gateway.load()), self._gateway.shards_seen
        )
        await self._metrics.start(config.host, int(gateway_port))
        if config.host == EVERY_ADDRESS:
            # Where clients elsewhere find it.
            host = ray.util.get_node_ip_address()
        self._address = f"{host}:{gateway_port}"
        self._vitals |= {"address": self._address, "metrics_url": f"http://{host}:{self._metrics.port}/metrics"}
        if name == config.gateway_names[0]:
            # Written at every start, so that it stays true should the port be another one.
            _replace_text(Path(config.data_dir) / ADDRESS_FILE, self._address + "\n")
        _settle_memory()

    async def configure(self, topology: bytes) -> None:
        where = unpack_topology(topology)
        if self._peers.follow(where):
            self._supervisor.name = where.supervisor
            self._gateway.set_peers(self._peers.primaries, where.version)

    async def apply_settings(self, packed: bytes) -> None:
        self._gateway.apply_settings(unpack_settings(packed))

    async def ping(self, _record: int, _checksum: int) -> dict[str, Any]:
        # Whoever does not drain it finds it of no use any more.
        broken = "drained" if self._gateway.is_draining else None
        return {**self._vitals, "broken": broken, "load": self._gateway.load()}

    async def drain(self) -> None:
        await self._gateway.drain()

    async def stop(self) -> None:
        await self._metrics.stop()
        await self._gateway.stop()


class AuditorActor:
    """The auditor, at low priority: trading goes on as well without it."""

    async def __init__(self, config: ExchangeConfig) -> None:  # type: ignore[misc]
        _be_nice(AUDITOR_NICENESS)
        self._vitals = process_vitals()
        self._auditor = Auditor(config.shard_names, config.audit_interval_s)
        self._peers = RayPeers()
        self._run = asyncio.create_task(self._auditor.run())

    async def configure(self, topology: bytes) -> None:
        if self._peers.follow(unpack_topology(topology)):
            self._auditor.set_peers(self._peers.primaries)

    async def ping(self, _record: int, _checksum: int) -> dict[str, Any]:
        return {
            **self._vitals,
            "failure": self._auditor.detail,
            "breaks": self._auditor.newest_breaks(),
            "broken": repr(self._run.exception()) if self._run.done() else None,
        }

    async def audit(self) -> bytes:
        return encode_report(await self._auditor.audit()).SerializeToString()

    async def stop(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
