"""The supervisor's Ray shell. Where there are standbys there are two such actors: one is active, the other follows it.

Which one is active, the journal of the supervisor's machine decides: who took it last. The other one asks it ten times
a second, and takes the journal when it does not answer any more. Ray starts either again when it dies.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import structlog

from exchange import __version__
from exchange.actors import directory_of
from exchange.config import ExchangeConfig
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import CreateAccount, CreateApiKey, Permission
from exchange.gateway.admin import new_api_key
from exchange.gateway.auth import hash_of_key
from exchange.launcher import RayLauncher
from exchange.ray_calls import DEAD, LOST, NAMESPACE, SUPERVISORS, end_if_ours, kill_here
from exchange.runtime.host import Host, Role
from exchange.runtime.messages import LinkBatch, pack, unpack_replies
from exchange.runtime.rows import rows_segment, unpack_ledger_result
from exchange.runtime.storage import KINDS, open_storage
from exchange.supervisor.component import LEDGER, SUPERVISOR
from exchange.supervisor.maintenance import Maintenance
from exchange.supervisor.reach import Reach
from exchange.supervisor.reconciler import Reconciler
from exchange.supervisor.standby_place import StandbyPlace
from exchange.supervisor.status import SupervisorSeen
from exchange.supervisor.turn import ASK_INTERVAL_S, ASK_TIMEOUT_S, Absence, Lead, Turn

OPERATOR_KEY_FILE = "operator.key"
RESTART_TIMEOUT_S = 120.0
RELIEF_TIMEOUT_S = 10.0
"""One that has let go of the journal waits so long for the other to be active, then goes by itself."""
NODES_TIMEOUT_S = 5.0
PLACE_INTERVAL_S = 1.0
"""How often it is asked where the supervisor that stands by is."""

_log = structlog.get_logger()


class NotActive(Exception):
    """This supervisor is not the active one; the other one is, or will be in a moment."""

    code = "SUPERVISOR_NOT_ACTIVE"


class SupervisorActor:
    """Number 0 or 1. It is constructed at once, and becomes active when it is its turn."""

    async def __init__(self, number: int, config: ExchangeConfig) -> None:  # type: ignore[misc]
        self._number = number
        self._config = config
        self._control: Host | None = None
        self._other: Any = None
        self._reconciler: Reconciler | None = None
        self._maintenance: Maintenance | None = None
        self._supervisors: _Supervisors | None = None
        self._key: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False
        self._life = asyncio.create_task(self._live())
        self._life.add_done_callback(self._on_end)

    async def _live(self) -> None:
        storage = await asyncio.to_thread(open_storage, directory_of(self._config), SUPERVISOR, self._config.nats)
        control = Host(
            KINDS["control"],
            *storage,
            snapshot_every_commands=self._config.snapshot_every_commands,
            end_holder=end_if_ours,
        )
        control.snapshotter.leaves_it_to_standby = self._config.standbys and self._config.nats is None
        if self._config.standbys:
            await control.follow()
            self._control = control
            await self._wait_for_turn()
            await control.promote()
        else:
            await control.start()
            self._control = control
        reconciler = Reconciler(self._config, control, RayLauncher(self._config), actor_name=SUPERVISORS[self._number])
        await reconciler.start()
        self._supervisors = supervisors = _Supervisors(self._number, control, self._config)
        maintenance = Maintenance(reconciler, supervisors)
        await maintenance.resume()
        self._reconciler, self._maintenance = reconciler, maintenance
        self._key = asyncio.create_task(self._issue_operator_key(reconciler))
        if self._config.standbys:
            self._keeping = asyncio.create_task(_keep_standby(supervisors, reconciler, maintenance))
        run = asyncio.create_task(reconciler.run())
        fenced = asyncio.create_task(control.fenced.wait())
        await asyncio.wait((run, fenced), return_when=asyncio.FIRST_COMPLETED)
        if fenced.done():
            raise NotActive("another supervisor has taken the journal")
        await run

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A supervisor that cannot go on ends its process: Ray starts it again, to follow whoever is active."""
        if self._stopping or task.cancelled() or task.exception() is None:
            return
        _log.error("supervisor.ended", actor=SUPERVISORS[self._number], error=repr(task.exception()))
        os._exit(1)

    async def _wait_for_turn(self) -> None:
        """Return when the other one is not active, and will not be."""
        turn = Turn(self._number, self._config.supervisor_dead_after_ms / 1_000)
        reach = Reach(await _raylets())
        await turn.wait(self._ask_other, reach.is_cut_off)
        # Should it only hang: it must not go on later with what it had begun.
        kill_here(turn.other_pid)

    async def _ask_other(self) -> Lead | Absence:
        try:
            # Kept: Ray restarts the same actor, and to look it up takes Ray's books, which may be away.
            self._other = self._other or ray.get_actor(SUPERVISORS[1 - self._number], namespace=NAMESPACE)
            said = await self._other.lead.remote()
        except DEAD:
            return Absence.DEAD
        except ValueError:
            return Absence.NOT_STARTED
        except LOST:
            return Absence.SILENT
        return Lead(said["is_active"], said["pid"] if said["address"] == _address() else 0, said["has_let_go"])

    async def lead(self) -> dict[str, Any]:
        """Return whether this one is active, and since which incarnation."""
        reconciler = self._reconciler
        return {
            "is_active": reconciler is not None,
            "has_let_go": self._control is not None and self._control.role == Role.RETIRED,
            "incarnation": 0 if reconciler is None else reconciler.commands.incarnation,
            "pid": os.getpid(),
            "address": _address(),
            "node": ray.get_runtime_context().get_node_id(),
            "follows": self._control is not None,
        }

    @property
    def _active(self) -> Reconciler:
        if self._reconciler is None:
            raise NotActive(f"{SUPERVISORS[self._number]} is not active")
        return self._reconciler

    @property
    def _active_maintenance(self) -> Maintenance:
        if self._maintenance is None:
            raise NotActive(f"{SUPERVISORS[self._number]} is not active")
        return self._maintenance

    async def is_ready(self, complete: bool, opened: bool) -> bool:
        """Whether everything runs; `complete`: and all standbys follow; `opened`: and all shards are open."""
        reconciler, key = self._active, self._key
        assert key is not None
        if key.done():
            key.result()
        is_ready = reconciler.is_complete if complete else reconciler.is_ready
        return key.done() and is_ready and (not opened or reconciler.is_open)

    async def create_instrument(self, fields: tuple[Any, ...], shard: str) -> tuple[Any, ...]:
        return tuple(await self._active.operator.create_instrument(Instrument(*fields), shard))

    async def set_stage(self, request: bytes) -> tuple[str, str, list[str]]:
        """Return why it is refused, as (reason, message, []), else ("", "", what it was done to)."""
        return await self._active.stages_by_hand.set_stage(request)

    async def unpark(self, name: str) -> tuple[str, str]:
        """Return why it is refused, as (reason, message), ("", "") if it is done."""
        return await self._active.operator.unpark(name)

    async def status(self) -> bytes:
        active = self._active
        assert self._supervisors is not None
        return active.operator.status(__version__, self._supervisors.seen())

    async def events(self, after_sequence: int) -> bytes:
        return self._active.operator.encode_events(after_sequence)

    async def start_maintenance(self, request: bytes) -> tuple[str, str]:
        """Return why it is refused, as (reason, message), ("", "") if it has begun."""
        return await self._active_maintenance.begin_asked(request)

    async def maintenance(self) -> bytes:
        return self._active_maintenance.encode()

    async def apply_settings(self, request: bytes, key_id: str) -> tuple[str, str, bytes]:
        """Return why it is refused, as (reason, message), ("", "") if it has begun; and the answer."""
        return await self._active.settings_answers.apply(request, key_id)

    async def revert_settings(self, request: bytes, key_id: str) -> tuple[str, str, bytes]:
        """As `apply_settings`."""
        return await self._active.settings_answers.revert(request, key_id)

    async def settings(self) -> bytes:
        return self._active.settings_answers.get()

    async def settings_history(self) -> bytes:
        return self._active.settings_answers.list()

    async def restart(self) -> None:
        """End this process, unless it is the active one: Ray starts it again."""
        if self._reconciler is None:
            os._exit(1)

    async def audit(self) -> bytes:
        return await self._active.operator.audit()

    async def pid(self) -> int:
        return os.getpid()

    async def stop(self) -> None:
        """Stop everything, if this one is active; else only this one."""
        self._stopping = True
        if self._keeping is not None:
            self._keeping.cancel()
        if self._maintenance is not None:
            await self._maintenance.stop()
        if self._reconciler is not None:
            await self._reconciler.stop()
        else:
            self._life.cancel()
            if self._control is not None:
                await self._control.stop()

    async def _issue_operator_key(self, reconciler: Reconciler) -> None:
        """On the first start: make the operator's account and key, and leave the key in the data directory."""
        path = Path(self._config.data_dir) / OPERATOR_KEY_FILE
        ledger = reconciler.components[LEDGER]
        while ledger.process is None or not ledger.vitals:  # noqa: ASYNC110  # a tick of the reconciler changes it
            await asyncio.sleep(0.05)
        # With a journal on servers, another node may have the key.
        if path.exists() or (self._config.nats is not None and ledger.vitals["sequence"] > 0):
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


def start_supervisor(number: int, config: ExchangeConfig, where: dict[str, str]) -> None:
    """Start number 0 or 1 on a node with these labels, where it stays; it may still be starting on return.

    Raises `ValueError` if it is there already.
    """
    actor = ray.remote(SupervisorActor).options(
        name=SUPERVISORS[number],
        namespace=NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=1_000,
        **({"label_selector": where} if where else {}),
    )
    actor.remote(number, config)


class _Supervisors:
    """Both supervisors, as the maintenance of the active one sees them."""

    def __init__(self, number: int, control: Host, config: ExchangeConfig) -> None:
        self._name, self._other = SUPERVISORS[number], SUPERVISORS[1 - number]
        self._other_number = 1 - number
        self._handle: Any = None
        self._other_seen = SupervisorSeen(self._other, int(Role.STANDBY), "", 0)
        self._control = control
        self._config = config
        self.node: str = ray.get_runtime_context().get_node_id()

    def seen(self) -> list[SupervisorSeen]:
        """Return how the two are, the active one first; the other one as it was when it was asked last."""
        active = SupervisorSeen(self._name, int(Role.PRIMARY), self.node, os.getpid())
        return [active, self._other_seen] if self._config.standbys else [active]

    async def _find(self) -> Any:
        """Return the other one's actor, looked up once: Ray's books may be away. Raises `ValueError` if it has none."""
        self._handle = self._handle or await asyncio.to_thread(ray.get_actor, self._other, namespace=NAMESPACE)
        return self._handle

    async def _ask(self) -> dict[str, Any] | None:
        """Return what the other one says, None if it does not answer."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                said: dict[str, Any] = await (await self._find()).lead.remote()
        except (LOST, ValueError, TimeoutError) as error:
            if isinstance(error, DEAD):
                self._handle = None
            self._other_seen = self._other_seen._replace(pid=0)
            return None
        self._other_seen = self._other_seen._replace(node=said["node"], pid=said["pid"])
        return said

    async def standby_node(self) -> str | None:
        if not self._config.standbys:
            return None
        said = await self._ask()
        # One that is active still has let go of the journal, or was fenced, and ends in a moment.
        return "" if said is None or said["is_active"] else said["node"]

    async def restart_standby(self, node: str) -> None:
        before = await self._ask()
        if before is None:
            raise NotActive(f"expected {self._other} to answer, found that it does not")
        if node:
            await self.move(node)
        else:
            try:
                await (await self._find()).restart.remote()
            except LOST:
                # It cannot answer: it ends.
                pass
        async with asyncio.timeout(RESTART_TIMEOUT_S):
            await self._until(lambda said: said["pid"] != before["pid"] and said["follows"])

    async def _until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Return when what the other one says of itself fulfils a condition."""
        while (said := await self._ask()) is None or not condition(said):  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(ASK_INTERVAL_S)

    async def move(self, node: str) -> None:
        """End the other one for good, as Ray starts an actor again where it was, and start one on this node."""
        with suppress(ValueError):
            await asyncio.to_thread(ray.kill, await self._find())
        self._handle = None
        async with asyncio.timeout(RESTART_TIMEOUT_S):
            while True:
                try:
                    start_supervisor(self._other_number, self._config, {"ray.io/node-id": node})
                except ValueError:
                    # The name is not free yet.
                    await asyncio.sleep(ASK_INTERVAL_S)
                else:
                    return

    async def restart_active(self) -> None:
        await self._control.hand_over()
        if self._config.standbys:
            # Ray may have this one back before the other one misses it: it would be active again where it was.
            with suppress(TimeoutError):
                async with asyncio.timeout(RELIEF_TIMEOUT_S):
                    await self._until(lambda said: said["is_active"])
        os._exit(1)


async def _keep_standby(supervisors: _Supervisors, reconciler: Reconciler, maintenance: Maintenance) -> None:
    """Have the supervisor that stands by started elsewhere when its node does not come back."""
    place = StandbyPlace()
    while True:
        await asyncio.sleep(PLACE_INTERVAL_S)
        if maintenance.is_under_way:
            # Which moves it itself.
            continue
        standby = await supervisors.standby_node() or ""
        node = place.see(supervisors.node, standby, reconciler.nodes.alive, reconciler.machine.drained)
        if node:
            told = f"the one that stands by starts on {reconciler.nodes.names[node]}"
            why = "it was beside the active one" if standby else "its node is gone"
            reconciler.events.note("moved", SUPERVISOR, f"{told}: {why}", node=node)
            try:
                await supervisors.move(node)
            except (ray.exceptions.RayError, TimeoutError) as error:
                _log.warning("supervisor.not_moved", node=node, error=repr(error))


async def _raylets() -> set[tuple[str, int]]:
    """Return where the nodes listen; nothing if Ray's books are out of reach."""
    try:
        async with asyncio.timeout(NODES_TIMEOUT_S):
            rows = await asyncio.to_thread(ray.nodes)
    except (ray.exceptions.RayError, TimeoutError):
        return set()
    return {(row["NodeManagerAddress"], row["NodeManagerPort"]) for row in rows if row["Alive"]}


def _address() -> str:
    address: str = ray.util.get_node_ip_address()
    return address
