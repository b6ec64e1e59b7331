"""Planned maintenance of a real exchange under an open-loop load: no order fails, whatever is restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import ray

from exchange.client import (
    AsyncClient,
    Client,
    ComponentState,
    EvenkeelError,
    Maintenance,
    MaintenanceKind,
    MaintenanceState,
    NotExecuted,
    Outcome,
    PlaceOrder,
    Role,
    Side,
    TradeSession,
)
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.ray_calls import NAMESPACE, SUPERVISORS
from exchange.ray_settings import NODE_LABEL
from tests.cluster.money import open_market, open_rich_account

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
SYMBOLS = ("BTC-USDT", "ETH-USDT")
BATCH_INTERVAL_S = 0.04
LIMIT_S = 300.0


class Load:
    """Sends two orders to each market at a fixed pace, whatever comes back, and keeps what came of them."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._begun_s = time.monotonic()
        self.answered: list[tuple[float, float]] = []
        """When a batch was due, and when all of it was accepted."""
        self.failed: list[str] = []
        self._stop = asyncio.Event()

    async def run(self, session: TradeSession) -> None:
        due_s = time.monotonic()
        async with asyncio.TaskGroup() as batches:
            while not self._stop.is_set():
                batches.create_task(self._send(session, due_s))
                due_s += BATCH_INTERVAL_S
                await asyncio.sleep(max(due_s - time.monotonic(), 0))

    async def _send(self, session: TradeSession, due_s: float) -> None:
        orders = [PlaceOrder(instrument=s, side=self._side, quantity="0.001", price=10) for s in SYMBOLS for _ in "ab"]
        try:
            results = await session.send(orders)
        except EvenkeelError as error:
            self.failed.append(f"{due_s - self._begun_s:.2f} s: {error!r}")
            return
        self.failed += [f"{due_s - self._begun_s:.2f} s: {r}" for r in results if r.outcome != Outcome.ACKNOWLEDGED]
        self.answered.append((due_s, time.monotonic()))

    def stop(self) -> None:
        self._stop.set()

    @property
    def slowest_s(self) -> float:
        return max(done_s - due_s for due_s, done_s in self.answered)

    @property
    def longest_pause_s(self) -> float:
        """Between two batches that were accepted, one after the other."""
        done = sorted(done_s for _, done_s in self.answered)
        return max(after - before for before, after in pairwise(done))


class World:
    def __init__(self, exchange: LocalExchange) -> None:
        self.exchange = exchange
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            self.addresses = [c.address for c in operator.status().components if c.address]
            for symbol in SYMBOLS:
                open_market(operator, symbol)
            self.keys = [open_rich_account(operator, f"trader-{number}")[1] for number in range(2)]

    @asynccontextmanager
    async def load(self) -> AsyncIterator[list[Load]]:
        """Two traders who trade with each other, each at another gateway first."""
        loads = [Load(Side.BUY), Load(Side.SELL)]
        rotated = [self.addresses, self.addresses[::-1]]
        clients = [AsyncClient(a, key, timeout=5) for a, key in zip(rotated, self.keys, strict=True)]
        try:
            async with asyncio.TaskGroup() as running:
                for load, client in zip(loads, clients, strict=True):
                    session = await self._open(client)
                    running.create_task(self._run(load, session))
                await self._until_answered(loads, 25)
                yield loads
                await self._until_answered(loads, 25)
                for load in loads:
                    load.stop()
        finally:
            for client in clients:
                await client.aclose()

    async def _open(self, client: AsyncClient) -> TradeSession:
        return client.trade(in_flight_max=512)

    async def _run(self, load: Load, session: TradeSession) -> None:
        async with session:
            await load.run(session)

    async def _until_answered(self, loads: list[Load], more: int) -> None:
        counts = [len(load.answered) for load in loads]
        async with asyncio.timeout(LIMIT_S):
            while any(len(load.answered) < count + more for load, count in zip(loads, counts, strict=True)):
                await asyncio.sleep(0.05)

    async def maintain(self, kind: MaintenanceKind, *, node: str = "", shard: str = "") -> Maintenance:
        """Do it, and return how it ended. Gateways and supervisors may be away meanwhile."""
        async with (
            AsyncClient(self.addresses, self.exchange.operator_key, timeout=5) as operator,
            asyncio.timeout(LIMIT_S),
        ):
            begun = await operator.start_maintenance(kind, node=node, shard=shard)
            while True:
                try:
                    newest = (await operator.maintenance()).newest
                except EvenkeelError:
                    newest = begun
                assert newest is not None
                if newest.state != MaintenanceState.RUNNING:
                    return newest
                await asyncio.sleep(0.1)


def report(name: str, loads: list[Load], ended: Maintenance) -> None:
    orders = sum(len(load.answered) for load in loads) * 2 * len(SYMBOLS)
    slowest, pause = (max(getattr(load, of) for load in loads) for of in ("slowest_s", "longest_pause_s"))
    took_s = (ended.end_time_ns - ended.begin_time_ns) / 1e9
    failed = sum(len(load.failed) for load in loads)
    print(
        f"\n{name}: {len(ended.steps)} steps in {took_s:.1f} s, {orders:,} orders accepted, {failed} failed; "
        f"slowest batch {slowest * 1_000:.0f} ms, longest pause {pause * 1_000:.0f} ms"
    )
    for step in ended.steps:
        step_s = (step.end_time_ns - step.begin_time_ns) / 1e9
        begun_s = (step.begin_time_ns - ended.begin_time_ns) / 1e9
        print(
            f"  {begun_s:.1f} s: {step.action.name} {step.component}: {step.state.name} in {step_s:.1f} s {step.detail}"
        )
    for load in loads:
        print(*load.failed[:20], sep="\n")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config = ExchangeConfig(data_dir=tmp_path, port=0, gateways=2)
    with LocalExchange(config) as exchange:
        exchange.wait(complete=True)
        yield World(exchange)


async def test_a_shard_is_handed_over_and_no_order_fails(world: World) -> None:
    world.exchange.wait(complete=True)
    async with world.load() as loads:
        ended = await world.maintain(MaintenanceKind.RESTART, shard="shard-0")
    report("restart --shard shard-0", loads, ended)
    assert (ended.state, ended.detail) == (MaintenanceState.DONE, "")
    assert [load.failed for load in loads] == [[], []]


async def test_everything_is_restarted_and_no_order_fails(world: World) -> None:
    world.exchange.wait(complete=True)
    before = {c.name: c.pid for c in world.exchange.status().components}
    async with world.load() as loads:
        ended = await world.maintain(MaintenanceKind.RESTART)
    report("restart --all", loads, ended)
    assert (ended.state, ended.detail) == (MaintenanceState.DONE, "")
    assert [load.failed for load in loads] == [[], []]
    world.exchange.wait(complete=True)
    after = {c.name: c.pid for c in world.exchange.status().components}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


def test_a_node_is_emptied_and_filled_again(tmp_path: Path) -> None:
    config = ExchangeConfig(data_dir=tmp_path, port=0, gateways=2, nodes=2, shards=1)
    with LocalExchange(config) as exchange:
        exchange.wait(complete=True)
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            nodes = sorted({c.node for c in operator.status().components})
            world = World(exchange)
        ended = asyncio.run(world.maintain(MaintenanceKind.DRAIN, node=nodes[1]))
        assert (ended.state, ended.detail) == (MaintenanceState.DONE, "")
        with Client(world.addresses, exchange.operator_key, timeout=10) as operator:
            assert operator.maintenance().drained_nodes == (nodes[1],)
            running = [c for c in operator.status().components if c.pid]
            assert {c.node for c in running} == {nodes[0]}
            assert nodes_of_supervisors() == [nodes[0]] * 2
            with pytest.raises(NotExecuted, match=nodes[0]) as refused:
                operator.start_maintenance(MaintenanceKind.DRAIN, node=nodes[0])
            assert refused.value.reason_name == "ONLY_NODE"
        ended = asyncio.run(world.maintain(MaintenanceKind.UNDRAIN, node=nodes[1]))
        assert ended.state == MaintenanceState.DONE
        exchange.wait(complete=True)
        with Client(world.addresses, exchange.operator_key, timeout=10) as operator:
            assert operator.maintenance().drained_nodes == ()
            gateways = [c for c in operator.status().components if c.name.startswith("gateway")]
            assert {c.node for c in gateways} == set(nodes)
        # Both supervisors are there now: one moves, hands over, and the other one follows it.
        ended = asyncio.run(world.maintain(MaintenanceKind.DRAIN, node=nodes[0]))
        assert (ended.state, ended.detail) == (MaintenanceState.DONE, "")
        assert nodes_of_supervisors() == [nodes[1]] * 2
        with Client(world.addresses, exchange.operator_key, timeout=10) as operator:
            assert {c.node for c in operator.status().components if c.pid} == {nodes[1]}
        ended = asyncio.run(world.maintain(MaintenanceKind.UNDRAIN, node=nodes[0]))
        assert ended.state == MaintenanceState.DONE
        # They do not stay on one node where there are two.
        until_supervisors_are_on(set(nodes))


def test_the_supervisor_that_stands_by_is_started_elsewhere_when_its_node_is_gone(tmp_path: Path) -> None:
    config = ExchangeConfig(data_dir=tmp_path, port=0, nodes=3, shards=1)
    with LocalExchange(config) as exchange:
        exchange.wait(complete=True)
        assert exchange.nodes is not None
        first, second, third = exchange.nodes.nodes
        assert nodes_of_supervisors() == [first.name, second.name]
        exchange.nodes.kill(second)
        until_supervisors_are_on({first.name, third.name})
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            expected = {
                (Role.PRIMARY, ComponentState.UP, first.name),
                (Role.STANDBY, ComponentState.UP, third.name),
            }
            until(lambda: {(s.role, s.state, s.node) for s in operator.status().supervisors} == expected)
            (moved,) = [e for e in operator.events() if e.kind == "moved"]
            assert moved.detail == f"the one that stands by starts on {third.name}: its node is gone"
        # And it is as good as the one before.
        active = active_supervisor()
        exchange.nodes.kill(third)
        exchange.nodes.start_again(second)
        until_supervisors_are_on({first.name, second.name})
        assert active_supervisor() == active


def active_supervisor() -> tuple[str, int]:
    """Return the name of the active one, and its incarnation."""
    for name in SUPERVISORS:
        with suppress(ray.exceptions.RayError):
            said = ray.get(ray.get_actor(name, namespace=NAMESPACE).lead.remote(), timeout=LIMIT_S)
            if said["is_active"]:
                return name, said["incarnation"]
    raise AssertionError("no supervisor is active")


def until(is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < give_up_s, f"not within {LIMIT_S:g} s"
        time.sleep(0.2)


def until_supervisors_are_on(nodes: set[str]) -> None:
    """Return when the two answer from these nodes."""

    def is_so() -> bool:
        with suppress(ray.exceptions.RayError, TimeoutError, ValueError, KeyError):
            return set(nodes_of_supervisors()) == nodes
        return False

    until(is_so)


def nodes_of_supervisors() -> list[str]:
    """Return the names of the nodes of the two."""
    names = {node["NodeID"]: node["Labels"][NODE_LABEL] for node in ray.nodes()}
    leads = [ray.get_actor(name, namespace=NAMESPACE).lead.remote() for name in SUPERVISORS]
    return [names[lead["node"]] for lead in ray.get(leads, timeout=LIMIT_S)]
