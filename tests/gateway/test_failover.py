"""Hosts and gateways that go, under clients that trade: real gateways and hosts, real connections, one process."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from exchange.client import AsyncClient, PlaceOrder, RetryPolicy, Side, TradeSession
from exchange.engine.commands import SetStage
from exchange.engine.words import Stage
from exchange.gateway import draining, links
from exchange.gateway.replica import ShardReplica
from exchange.gateway.server import LEDGER
from exchange.runtime.feed import Feed
from exchange.runtime.messages import LinkBatch
from exchange.runtime.rows import rows_segment
from exchange.v1 import trading_pb2, types_pb2
from tests.gateway.failover_world import BOB, SHARD, SYMBOL, Exchange, exchange, until


def order(name: str, **how: Any) -> PlaceOrder:
    return PlaceOrder(instrument=SYMBOL, side=Side.BUY, quantity=1, price=1, client_order_id=name, **how)


class Trader:
    """Sends numbered orders through a session, a few in flight, and keeps what became of each."""

    def __init__(self, session: TradeSession, in_flight: int = 8) -> None:
        self.results: dict[str, Any] = {}
        self._session = session
        self._in_flight = in_flight
        self._count = 0
        self._stop = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._in_flight):
                group.create_task(self._send())

    async def _send(self) -> None:
        while not self._stop:
            self._count += 1
            name = f"o{self._count}"
            (command,) = await self._session.encode([order(name)])
            (self.results[name],) = await self._session.outcomes([command], timeout=5.0)

    async def more(self, count: int = 20) -> None:
        """Wait for so many more results."""
        wanted = len(self.results) + count
        await until(lambda: len(self.results) >= wanted)

    def stop(self) -> None:
        self._stop = True

    @property
    def failed(self) -> dict[str, Any]:
        return {
            name: result for name, result in self.results.items() if result.outcome != types_pb2.OUTCOME_ACKNOWLEDGED
        }


def check_all_rest(world: Exchange, trader: Trader) -> None:
    assert trader.failed == {}
    resting = world.resting()
    assert len(resting) == len(set(resting)), "each once"
    assert set(resting) == set(trader.results)


# ---------------------------------------------------------------- hosts


@pytest.mark.parametrize("machine", [SHARD, LEDGER])
async def test_planned_handovers_fail_no_order(tmp_path: Path, machine: str) -> None:
    async with exchange(tmp_path) as world, world.client() as client, client.trade() as session:
        trader = Trader(session)
        running = asyncio.create_task(trader.run())
        for _ in range(3):
            await trader.more()
            await world.hand_over(machine)
        await trader.more()
        trader.stop()
        await running
        assert session.reconnects == 0
        check_all_rest(world, trader)


async def test_a_host_that_hangs_and_comes_back_changes_nothing(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client, client.trade() as session:
        trader = Trader(session)
        running = asyncio.create_task(trader.run())
        for _ in range(3):
            await trader.more()
            primary = world.peers[SHARD]
            assert primary is not None
            primary.lets_through.clear()
            await until(lambda: world.gateways[0]._links[SHARD]._is_sending)
            old = await world.fail_over()
            old.lets_through.set()
        await trader.more()
        trader.stop()
        await running
        check_all_rest(world, trader)
        assert world.gateways[0].stale == 0


async def test_a_host_that_dies_with_orders_in_flight_loses_and_doubles_none(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client, client.trade() as session:
        trader = Trader(session)
        running = asyncio.create_task(trader.run())
        for _ in range(3):
            await trader.more()
            primary = world.peers[SHARD]
            assert primary is not None
            primary.is_gone = True
            await world.fail_over()
        await trader.more()
        trader.stop()
        await running
        check_all_rest(world, trader)


async def test_a_fenced_host_that_answers_it_does_not_know_leaves_no_order_unknown(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client:
        # The standby takes the journal, and the gateway has not been told: the old host learns it from the journal.
        await world.fail_over(tell=False)
        placing = asyncio.create_task(client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="a", timeout=5))
        await until(lambda: not world.gateways[0]._links[SHARD].is_up or world.gateways[0]._links[SHARD]._is_sending)
        world.tell()
        assert (await placing).accepted
        assert world.resting() == ["a"]


async def test_a_topology_of_a_replaced_supervisor_changes_nothing(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client:
        late = dict(world.peers)
        await world.fail_over()
        gateway = world.gateways[0]
        gateway.set_peers(late, (1, 0))
        gateway.set_peers({}, (0, 99))
        assert gateway._links[SHARD].peer is world.peers[SHARD]
        assert (await client.place_order(SYMBOL, Side.BUY, 1, 1)).accepted
        gateway.set_peers({}, (2, 0))
        assert gateway._links[SHARD].peer is None


# ---------------------------------------------------------------- queue_for


async def test_orders_wait_for_their_shard_and_enter_in_the_order_in_which_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "HOLD_S", 0.0)
    async with exchange(tmp_path) as world, world.client() as client, client.trade(timeout=5.0) as session:
        await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="rests")
        primary = world.peers[SHARD]
        assert primary is not None
        primary.is_gone = True
        world.peers[SHARD] = None
        world.tell()
        world.peers[SHARD] = primary
        waiting = [asyncio.create_task(session.send([order(f"w{n}", queue_for=8.0)])) for n in range(50)]
        by_call_too = asyncio.create_task(client.place_orders([order("u", queue_for=8.0)]))
        held = world.gateways[0].held[SHARD]
        await until(lambda: len(held) == 51)
        (other,) = await session.send([order("does-not-wait")])
        assert other.reject_reason.name == "SHARD_UNAVAILABLE"
        await world.fail_over()
        results = [(await task)[0] for task in [*waiting, by_call_too]]
        assert all(result.accepted for result in results)
        assert [name for name in world.resting() if name.startswith("w")] == [f"w{n}" for n in range(50)]


async def test_orders_that_have_waited_long_enough_are_refused_as_not_executed(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client, client.trade() as session:
        await client.instruments()
        world.peers[SHARD] = None
        world.tell()
        (result,) = await session.send([order("a", queue_for=1.2)], timeout=0.5)
        assert result.reject_reason.name == "SHARD_UNAVAILABLE"
        assert result.retry_after is not None


async def test_answers_on_the_same_stream_do_not_wait_for_orders_that_do(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client, client.trade(timeout=5.0) as session:
        await client.instruments()
        world.peers[SHARD], primary = None, world.peers[SHARD]
        world.tell()
        waiting = [asyncio.create_task(session.send([order(f"w{n}", queue_for=8.0)])) for n in range(30)]
        held = world.gateways[0].held[SHARD]
        await until(lambda: len(held) == 30)
        cancel = trading_pb2.Command(cancel=trading_pb2.CancelOrderRequest(instrument="NONE", client_order_id="x"))
        (unknown,) = await session.send_encoded([cancel])
        assert unknown.reject_reason == types_pb2.REJECT_REASON_INSTRUMENT_UNKNOWN
        assert not any(task.done() for task in waiting)
        world.peers[SHARD] = primary
        world.tell()
        assert all([(await task)[0].accepted for task in waiting])


async def test_a_shard_that_hangs_holds_up_no_other_answers_on_the_same_stream(tmp_path: Path) -> None:
    async with (
        exchange(tmp_path) as world,
        world.client() as client,
        client.trade(timeout=5.0, in_flight_max=200) as session,
    ):
        await client.instruments()
        primary = world.peers[SHARD]
        assert primary is not None
        primary.lets_through.clear()
        stuck = [asyncio.create_task(session.send([order(f"o{n}")])) for n in range(100)]
        cancel = trading_pb2.Command(cancel=trading_pb2.CancelOrderRequest(instrument="NONE", client_order_id="x"))
        (unknown,) = await session.send_encoded([cancel])
        assert unknown.reject_reason == types_pb2.REJECT_REASON_INSTRUMENT_UNKNOWN
        assert not any(task.done() for task in stuck)
        primary.lets_through.set()
        assert all([(await task)[0].accepted for task in stuck])


# ---------------------------------------------------------------- copies


async def test_a_copy_that_was_behind_goes_on_with_the_new_host_without_a_gap(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client:
        executions = client.stream_executions()
        reading = asyncio.create_task(anext(executions))
        gateway, replica = world.gateways[0], world.gateways[0].replicas[SHARD]
        gateway._followers[SHARD].follow(None)
        for n in range(10):
            await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id=f"o{n}")
        assert replica.sequence < world.shard.sequence
        resets: list[str] = []
        gateway.executions.reset = resets.append  # type: ignore[method-assign, assignment]  # a dump would call it
        await world.fail_over()
        await until(lambda: replica.sequence == world.shard.sequence)
        assert resets == []
        assert [(await reading).client_order_id] == ["o0"]
        assert [(await anext(executions)).client_order_id for _ in range(9)] == [f"o{n}" for n in range(1, 10)]
        await executions.aclose()


class Stages:
    """Watches a book: what its readers are told of the stage."""

    def __init__(self, replica: ShardReplica) -> None:
        self.told: list[int] = []
        self._replica = replica

    def on_stage(self) -> None:
        self.told.append(self._replica.stage_of(SYMBOL).stage)

    def on_command(self, _: object) -> None: ...

    def on_load(self) -> None: ...


async def test_nobody_is_told_that_a_new_host_is_in_the_stage_of_the_old_one(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world:
        replica = world.gateways[0].replicas[SHARD]
        await until(lambda: replica.stage == Stage.OPEN)
        seen = Stages(replica)
        replica.books[SYMBOL].watch(seen)
        await world.fail_over(opened=False)
        await until(lambda: replica.stage == Stage.CANCEL_ONLY)
        assert seen.told == [Stage.REPLAYING, Stage.CANCEL_ONLY]
        # After a handover there is nothing new to tell, and that is told.
        await world.hand_over()
        await until(lambda: len(seen.told) == 4)
        assert seen.told[2:] == [Stage.REPLAYING, Stage.CANCEL_ONLY]


async def test_a_copy_starts_again_from_a_dump_where_the_new_host_holds_too_little(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client:
        gateway = world.gateways[0]
        gateway._followers[SHARD].follow(None)
        for n in range(5):
            await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id=f"o{n}")
        await world.fail_over(tell=False)
        primary = world.peers[SHARD]
        assert primary is not None
        primary.host.at.feed = Feed(last_sequence=primary.host.machine.sequence)
        world.tell()
        replica = gateway.replicas[SHARD]
        await until(lambda: replica.sequence == world.shard.sequence)
        assert [o.named.client_order_id for o in replica.books[SYMBOL].orders.values()] == world.resting()


async def test_what_a_replaced_host_tells_is_not_believed(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world:
        gateway, replica = world.gateways[0], world.gateways[0].replicas[SHARD]
        old = await world.fail_over()
        await until(lambda: replica.sequence == world.shard.sequence)
        known = replica.sequence, replica.epoch
        # A zombie that has gone on by itself: what no journal has, it might tell.
        zombie = Exchange(tmp_path / "zombie")
        await zombie.start(0)
        ahead = zombie.peers[SHARD]
        assert ahead is not None
        while zombie.shard.sequence <= replica.sequence + 5:
            segment = rows_segment([SetStage(int(Stage.OPEN))])
            await ahead.host.submit(LinkBatch("", 0, 0, [segment]))
        for peer in (old, ahead):
            gateway._followers[SHARD].follow(peer)
            stale = gateway.stale
            if peer is ahead:
                await until(lambda: gateway.stale > stale)  # noqa: B023  # it is over with this turn
            assert (replica.sequence, replica.epoch) == known
        gateway._followers[SHARD].follow(world.peers[SHARD])
        await zombie.stop()


# ---------------------------------------------------------------- gateways


async def test_draining_a_gateway_fails_no_order(tmp_path: Path) -> None:
    async with exchange(tmp_path, gateways=2) as world, world.client() as client, client.trade() as session:
        trader, unary = Trader(session), Unary(client)
        running = asyncio.gather(trader.run(), unary.run())
        for turn in range(3):
            await trader.more()
            gateway = world.gateways[turn % 2]
            assert client.address == gateway.address
            await gateway.drain()
            await trader.more()
            await world.restart_gateway(turn % 2)
        trader.stop()
        unary.stop()
        await running
        assert unary.failed == []
        assert session.reconnects == 3
        assert trader.failed == {}
        assert client.statistics.outcomes_unknown == 0
        assert set(trader.results) <= set(world.resting())


class Unary:
    """Places orders with calls, one after the other."""

    def __init__(self, client: AsyncClient) -> None:
        self.failed: list[Any] = []
        self._client = client
        self._stop = False

    async def run(self) -> None:
        while not self._stop:
            try:
                await self._client.place_order(SYMBOL, Side.BUY, 1, 1)
            except Exception as error:
                self.failed.append(error)

    def stop(self) -> None:
        self._stop = True


async def test_a_gateway_that_dies_leaves_an_outcome_for_every_order(tmp_path: Path) -> None:
    patient = RetryPolicy(budget_max=1_000, budget_ratio=1.0)
    async with (
        exchange(tmp_path, gateways=2) as world,
        world.client(retry=patient) as client,
        client.trade() as session,
    ):
        trader = Trader(session)
        running = asyncio.create_task(trader.run())
        await trader.more()
        await world.gateways[0].stop(0)
        await trader.more()
        trader.stop()
        await running
        check_all_rest(world, trader)


async def test_streams_go_on_at_another_gateway_when_theirs_drains(tmp_path: Path) -> None:
    async with exchange(tmp_path, gateways=2) as world, world.client() as client, world.client(BOB) as bob:
        first, second = world.gateways
        executions, balances = client.stream_executions(), client.stream_balances()
        book, trades = client.stream_order_book(SYMBOL), client.stream_trades(SYMBOL)
        told = asyncio.create_task(anext(executions))
        next_trade = asyncio.create_task(anext(trades))
        await anext(balances)
        await anext(book)
        await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="a")
        assert (await told).client_order_id == "a"
        # Every stream is being read while the gateway drains.
        next_execution, next_balance = asyncio.create_task(anext(executions)), asyncio.create_task(anext(balances))
        levels = asyncio.create_task(until_level(book, 2))
        await first.drain()
        await until(lambda: second._draining._calls == 4)
        await bob.place_order(SYMBOL, Side.SELL, 1, 1, client_order_id="b")
        await client.place_order(SYMBOL, Side.BUY, 1, 2, client_order_id="c")
        traded = await next_execution
        assert (traded.client_order_id, traded.trade_quantity) == ("a", Decimal(1)), "it goes on where it was"
        assert (await anext(executions)).client_order_id == "c"
        assert [change.asset for change in (await next_balance).changes] == ["BTC", "USDT"]
        assert (await next_trade).quantity == 1
        await levels
        assert [stream.reconnects for stream in (executions, balances, book, trades)] == [1] * 4
        for stream in (executions, balances, book, trades):
            await stream.aclose()


async def test_streams_in_which_nothing_happens_survive_a_rolling_restart(tmp_path: Path) -> None:
    async with exchange(tmp_path, gateways=2) as world, world.client() as client, world.client(BOB) as bob:
        executions, balances = client.stream_executions(), client.stream_balances()
        reads = asyncio.create_task(anext(executions)), asyncio.create_task(balances_until(balances, "deposit"))
        await until(lambda: world.gateways[0]._draining._calls == 2)
        for turn in range(4):
            # What each new gateway holds begins after what the streams were last told.
            for n in range(3):
                await bob.place_order(SYMBOL, Side.SELL, 1, 9, client_order_id=f"b{turn}-{n}")
            await world.gateways[turn % 2].drain()
            await until(lambda: sum(g._draining._calls for g in world.gateways) == 2)
            await world.restart_gateway(turn % 2)
        await world.deposit()
        await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="a")
        assert (await reads[0]).client_order_id == "a"
        await reads[1]
        for stream in (executions, balances):
            await stream.aclose()


async def balances_until(stream: Any, reference: str) -> None:
    async for update in stream:
        if any(change.reference == reference for change in update.changes):
            return


async def until_level(book: Any, price: int) -> None:
    async for seen in book:
        if seen.bids and seen.bids[0].price == price:
            return


async def test_a_session_of_a_draining_gateway_is_cancelled_as_it_was_promised(tmp_path: Path) -> None:
    async with (
        exchange(tmp_path) as world,
        world.client() as client,
        client.trade(cancel_on_disconnect=True) as session,
    ):
        assert (await session.send([order("a")]))[0].accepted
        await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="stays")
        assert world.resting() == ["a", "stays"]
        await world.gateways[0].drain()
        assert world.resting() == ["stays"], "cancelled before the gateway's link is closed"


async def test_a_draining_gateway_refuses_what_is_new_and_says_that_it_does_not_serve(tmp_path: Path) -> None:
    once: dict[str, Any] = {"retry": RetryPolicy(attempts_max=1), "reconnect_timeout": 0.0}
    async with exchange(tmp_path) as world, world.client(**once) as client:
        gateway = world.gateways[0]
        primary = world.peers[SHARD]
        assert primary is not None
        await client.instruments()
        primary.lets_through.clear()
        in_flight = asyncio.create_task(client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="a", timeout=5))
        await until(lambda: primary.submits)
        drained = asyncio.create_task(gateway.drain())
        await until(lambda: gateway._draining.is_on)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            health = await stub.Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        for call in (
            client.place_order(SYMBOL, Side.BUY, 1, 1),
            client.ticker(SYMBOL),
            anext(client.stream_executions()),
        ):
            with pytest.raises(Exception, match=draining.REASON):
                await call
        primary.lets_through.set()
        assert (await in_flight).accepted
        await drained
