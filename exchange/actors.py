"""The Ray shells around hosts, gateways and the supervisor. What they do is elsewhere; here is how they are called."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import structlog

from exchange import __version__
from exchange.config import ExchangeConfig
from exchange.engine.control import ControlResult
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import CreateAccount, CreateApiKey, Permission
from exchange.gateway.admin import new_api_key
from exchange.gateway.auth import hash_of_key
from exchange.gateway.server import LEDGER, Gateway
from exchange.runtime.aside import AsideFailed, do_aside
from exchange.runtime.carrier import Carrier
from exchange.runtime.feed import FeedGap
from exchange.runtime.host import Host
from exchange.runtime.messages import LinkBatch, pack, unpack, unpack_batch, unpack_replies
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import rows_segment, unpack_ledger_result
from exchange.runtime.snapshotter import KINDS, SnapshotterFailed, open_storage, snapshot_elsewhere
from exchange.supervisor.audit.auditor import Auditor
from exchange.supervisor.audit.encode import encode_report
from exchange.supervisor.reconciler import AUDITOR, SUPERVISOR, Reconciler

NAMESPACE = "evenkeel"
OPERATOR_KEY_FILE = "operator.key"
ADDRESS_FILE = "address"
DUMP_TIMEOUT_S = 30.0
AUDITOR_NICENESS = 15
_OPTIONS: dict[str, Any] = {"num_cpus": 0, "namespace": NAMESPACE, "lifetime": "detached", "max_task_retries": 0}
_MONEY = pack(("money",))
"""What the auditor asks: all that accounts have, which is much where there are many."""
_LOST = (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, ray.exceptions.RayTaskError)

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


class HostActor:
    """One machine's host: a shard or the ledger. The constructor returns when the machine is recovered."""

    async def __init__(self, name: str, config: ExchangeConfig) -> None:  # type: ignore[misc]
        self._name = name
        self._config = config
        kind = KINDS[name.partition("-")[0]]
        self._host = Host(kind, *open_storage(config.data_dir, name))
        self._snapshot_task: asyncio.Task[None] | None = None
        self._dump: asyncio.Task[bytes] | None = None
        await self._host.start()
        self._carrier = Carrier(name, self._host) if kind.name == "shard" else None
        _settle_memory()

    async def configure(self, topology: bytes) -> None:
        """Take where the other machines are."""
        if self._carrier is not None:
            incarnation = unpack(topology).get(LEDGER, 0)
            self._carrier.set_ledger(RayPeer(LEDGER, incarnation) if incarnation else None)

    async def submit(self, batch: bytes) -> bytes:
        answer = await self._host.submit(unpack_batch(unpack(batch)))
        if self._host.commands_since_snapshot > self._config.snapshot_every_commands and not self._snapshot_task:
            self._snapshot_task = asyncio.create_task(self._snapshot())
        return answer

    async def feed(self, after_sequence: int, timeout_s: float) -> list[bytes] | None:
        try:
            return await self._host.at.feed.wait(after_sequence, timeout_s)
        except FeedGap:
            return None

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

    async def query(self, request: bytes) -> bytes:
        if request == _MONEY and self._purses() > self._config.dump_at_once_orders_max:
            try:
                return await do_aside(lambda: self._host.kind.query(self._host.machine, request), DUMP_TIMEOUT_S)
            except AsideFailed as error:
                _log.error("query.failed", machine=self._name, error=str(error))
        return self._host.kind.query(self._host.machine, request)

    def _purses(self) -> int:
        machine = self._host.machine
        return len(machine.balances.available if self._host.kind.name == LEDGER else machine.funds.wallets)

    async def ping(self) -> dict[str, Any]:
        host = self._host
        vitals = {
            "pid": os.getpid(),
            "epoch": host.epoch,
            "sequence": host.machine.sequence,
            "state_hash": host.at.hashed.digest.hex(),
            "state_hash_sequence": host.at.hashed.sequence,
            "failure": host.failure,
            "replayed_commands": host.at.replayed_commands,
            "broken": repr(host.broken) if host.broken else "fenced" if host.fenced.is_set() else None,
        }
        if host.kind.name == "shard":
            vitals["stage"] = host.machine.stage
            vitals["open_orders"] = self._open_orders()
        return vitals

    async def stop(self) -> None:
        if self._carrier is not None:
            await self._carrier.stop()
        await self._host.stop()

    async def _snapshot(self) -> None:
        """Have a snapshot taken by a process of its own, then trim the journal."""
        host = self._host
        commands = host.commands_since_snapshot
        try:
            host.at.hashed = await snapshot_elsewhere(self._config.data_dir, self._name, host.kind.name, host.at.record)
            since = host.commands_since_snapshot - commands
            await host.trim()
            host.commands_since_snapshot = since
        except SnapshotterFailed as error:
            host.commands_since_snapshot = 0
            _log.error("snapshot.failed", machine=self._name, error=str(error))
        finally:
            self._snapshot_task = None


class GatewayActor:
    """A gateway; its constructor returns when the port is open."""

    async def __init__(self, name: str, incarnation: int, port: int, config: ExchangeConfig) -> None:  # type: ignore[misc]
        self._gateway = Gateway(name, incarnation, config.shard_names, RaySupervisor())
        self._peers: dict[str, RayPeer] = {}
        await self._gateway.start(f"{config.host}:{port}")
        if name == config.gateway_names[0]:
            # Written at every start, so that it stays true should the port be another one.
            _replace_text(Path(config.data_dir) / ADDRESS_FILE, self._gateway.address + "\n")
        _settle_memory()

    async def configure(self, topology: bytes) -> None:
        _follow_topology(self._peers, topology)
        self._gateway.set_peers(self._peers)

    async def ping(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "address": self._gateway.address}

    async def stop(self) -> None:
        await self._gateway.stop()


class AuditorActor:
    """The auditor, at low priority: trading goes on as well without it."""

    async def __init__(self, config: ExchangeConfig) -> None:  # type: ignore[misc]
        _be_nice(AUDITOR_NICENESS)
        self._auditor = Auditor(config.shard_names, config.audit_interval_s)
        self._peers: dict[str, RayPeer] = {}
        self._run = asyncio.create_task(self._auditor.run())

    async def configure(self, topology: bytes) -> None:
        _follow_topology(self._peers, topology)
        self._auditor.set_peers(self._peers)

    async def ping(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "failure": self._auditor.detail,
            "breaks": self._auditor.newest_breaks(),
            "broken": repr(self._run.exception()) if self._run.done() else None,
        }

    async def audit(self) -> bytes:
        return encode_report(await self._auditor.audit()).SerializeToString()

    async def stop(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)


class SupervisorActor:
    """The supervisor; the only actor that Ray itself restarts."""

    async def __init__(self, config: ExchangeConfig) -> None:  # type: ignore[misc]
        control = Host(KINDS["control"], *open_storage(config.data_dir, SUPERVISOR))
        await control.start()
        self._config = config
        self._reconciler = Reconciler(config, control, RayLauncher(config))
        await self._reconciler.start()
        self._run = asyncio.create_task(self._reconciler.run())
        self._key = asyncio.create_task(self._issue_operator_key())

    async def is_ready(self) -> bool:
        if self._key.done():
            self._key.result()
        return self._reconciler.is_ready and self._key.done()

    async def create_instrument(self, fields: tuple[Any, ...], shard: str) -> tuple[Any, ...]:
        return tuple(await self._reconciler.create_instrument(Instrument(*fields), shard))

    async def set_stage(self, shard: str, stage: int, orders_per_s: int, reason: str) -> list[str]:
        return await self._reconciler.set_stage(shard, stage, orders_per_s, reason)

    async def status(self) -> bytes:
        return self._reconciler.status(__version__)

    async def audit(self) -> bytes:
        return await self._reconciler.audit()

    async def pid(self) -> int:
        return os.getpid()

    async def stop(self) -> None:
        await self._reconciler.stop()

    async def _issue_operator_key(self) -> None:
        """On the first start: make the operator's account and key, and leave the key in the data directory."""
        path = Path(self._config.data_dir) / OPERATOR_KEY_FILE
        ledger = self._reconciler.components["ledger"]
        while ledger.process is None or not ledger.vitals:  # noqa: ASYNC110  # a tick of the reconciler changes it
            await asyncio.sleep(0.05)
        if path.exists():
            return
        key_id, key = new_api_key()
        account = await self._ledger(ledger.process, CreateAccount("operator"))
        permissions = tuple(map(int, Permission))
        await self._ledger(ledger.process, CreateApiKey(account, key_id, hash_of_key(key), permissions))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")

    async def _ledger(self, process: Any, command: Any) -> int:
        batch = LinkBatch("", 0, 0, [rows_segment([command])])
        reply = unpack_replies(await process.submit(pack(batch)))[0]
        return unpack_ledger_result(reply.data).account
