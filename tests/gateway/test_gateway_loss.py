"""Gateways that leave or fall silent under sessions that must not lose an order by it: the SDK and real gateways."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from exchange.client import AmendOrder, AsyncClient, Command, ExecutionType, PlaceOrder, RetryPolicy, Side
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2
from tests.gateway.failover_world import ALICE, SHARD, SYMBOL, Exchange, HostPeer, exchange, until
from tests.runtime.proxy import Proxy

NO_BUDGET = RetryPolicy(budget_max=0)
METADATA = (("authorization", f"Bearer secret-{ALICE}"),)


def order(n: int, price: int = 1) -> PlaceOrder:
    return PlaceOrder(instrument=SYMBOL, side=Side.BUY, quantity=1, price=price, client_order_id=f"o{n}")


def primary_of(world: Exchange) -> HostPeer:
    primary = world.peers[SHARD]
    assert primary is not None
    return primary


def entered(world: Exchange) -> list[str]:
    """The client order ids in the book, in the order of their entry."""
    orders = sorted(world.shard.books[SYMBOL].orders(), key=lambda resting: resting.order_id)
    return [resting.request.client_order_id for resting in orders]


async def test_a_trade_stream_is_told_to_go_and_what_it_has_taken_is_answered(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, grpc.aio.insecure_channel(world.gateways[0].address) as channel:
        stub: Any = trading_pb2_grpc.TradingServiceStub(channel)
        stream = stub.Trade(metadata=METADATA)
        primary = primary_of(world)
        primary.lets_through.clear()
        for number in range(1, 11):
            place = trading_pb2.PlaceOrderRequest(
                instrument=SYMBOL,
                client_order_id=f"o{number}",
                side=types_pb2.SIDE_BUY,
                type=types_pb2.ORDER_TYPE_LIMIT,
                price=100,
                quantity=10_000,
            )
            commands = [trading_pb2.Command(place=place)]
            await stream.write(trading_pb2.TradeRequest(request_id=number, commands=commands, deadline_ms=5_000))
        await until(lambda: primary.submits)
        draining = asyncio.create_task(world.gateways[0].drain())
        assert (await stream.read()).draining, "at once, though the shard keeps the answers"
        primary.lets_through.set()
        answered: list[int] = []

        async def read() -> None:
            while (response := await stream.read()) is not grpc.aio.EOF:
                assert not response.draining
                assert response.results[0].outcome == types_pb2.OUTCOME_ACKNOWLEDGED
                answered.append(response.request_id)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        await draining
        assert answered == list(range(1, 1 + len(answered)))
        assert answered, "at least the one that had arrived"
        assert entered(world) == [f"o{number}" for number in answered], "what was not answered was not executed"


async def test_a_drained_gateway_fails_no_order_of_a_session_nor_of_single_calls(tmp_path: Path) -> None:
    async with (
        exchange(tmp_path, gateways=2) as world,
        world.client(retry=NO_BUDGET, timeout=20.0) as client,
        client.trade(timeout=5.0, in_flight_max=200) as session,
        client.stream_executions() as executions,
    ):
        told: list[str] = []

        async def listen() -> None:
            async for execution in executions:
                assert execution.type is ExecutionType.NEW
                told.append(execution.client_order_id)

        listening = asyncio.create_task(listen())
        await until(lambda: executions.position)
        await client.instruments()
        primary = primary_of(world)
        primary.lets_through.clear()
        batches = [asyncio.create_task(session.send([order(n)])) for n in range(50)]
        calls = [
            asyncio.create_task(client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id=f"o{n}"))
            for n in range(50, 80)
        ]
        # One call is the session's stream, another one that of executions.
        await until(lambda: world.gateways[0]._draining._calls == 32)
        draining = asyncio.create_task(world.gateways[0].drain())
        await until(lambda: world.gateways[0]._draining.is_on)
        primary.lets_through.set()
        later = [asyncio.create_task(session.send([order(n)])) for n in range(80, 100)]
        results = [result for batch in [*batches, *later] for result in await batch]
        results += [await call for call in calls]
        await draining
        assert all(result.accepted and not result.duplicate for result in results)
        await until(lambda: len(told) == 100)
        listening.cancel()
        await asyncio.wait([listening])
        assert sorted(entered(world)) == sorted(f"o{n}" for n in range(100))
        assert sorted(told) == sorted(entered(world)), "each is told once"
        assert client.statistics.outcomes_unknown == 0
        assert client.address == world.gateways[1].address


async def test_rolling_restarts_of_the_gateways_leave_nothing_unknown_whatever_is_sent(tmp_path: Path) -> None:
    async with exchange(tmp_path, gateways=3) as world, world.client(retry=NO_BUDGET, timeout=20.0) as client:
        await client.instruments()
        placed = 0
        stopping = asyncio.Event()

        async def trade(sender: int) -> None:
            """Place and amend, one after the other: an amend that is unknown could not be sent again."""
            nonlocal placed
            async with client.trade(timeout=5.0) as session:
                while not stopping.is_set():
                    name = f"o{sender}-{placed}"
                    commands: list[Command] = [
                        PlaceOrder(instrument=SYMBOL, side=Side.BUY, quantity=1, price=1, client_order_id=name),
                        AmendOrder(instrument=SYMBOL, client_order_id=name, price=2),
                    ]
                    for command in commands:
                        (result,) = await session.send([command])
                        assert result.accepted
                        assert not result.duplicate
                    placed += 1

        trading = asyncio.gather(*(trade(sender) for sender in range(4)))
        for turn in range(6):
            before = placed
            await until(lambda: placed > before + 5 or trading.done())  # noqa: B023  # it is over with this turn
            await world.gateways[turn % 3].drain()
            await world.restart_gateway(turn % 3)
        before = placed
        await until(lambda: placed > before + 5 or trading.done())
        stopping.set()
        await trading
        assert len(world.resting()) == placed
        assert client.statistics.outcomes_unknown == client.statistics.retries_refused == 0


async def test_a_gateway_that_falls_silent_is_left_while_there_is_time(tmp_path: Path) -> None:
    async with exchange(tmp_path, gateways=2) as world:
        near, far = (gateway.address for gateway in world.gateways)
        with Proxy(int(near.rpartition(":")[2])) as proxy:
            addresses = [f"127.0.0.1:{proxy.port}", far]
            async with (
                AsyncClient(addresses, f"secret-{ALICE}", timeout=20.0) as client,
                client.trade(timeout=5.0) as session,
            ):
                assert (await session.send([order(0)]))[0].accepted
                proxy.hold("down")
                assert (await session.send([order(1)]))[0].accepted
                assert client.address == far
                proxy.release()
        assert world.resting() == ["o0", "o1"]


async def test_a_gateway_whose_shard_is_slow_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with exchange(tmp_path, gateways=2) as world, world.client(timeout=20.0) as client:
        await client.instruments()
        gateway = client._caller.channels.current
        is_silent = gateway.is_silent
        asked: list[bool] = []

        async def ask(timeout_s: float) -> bool:
            asked.append(await is_silent(timeout_s * 20))  # this machine may be slow
            return asked[-1]

        monkeypatch.setattr(gateway, "is_silent", ask)
        async with client.trade(timeout=5.0) as session:
            primary = primary_of(world)
            primary.lets_through.clear()
            waiting = asyncio.create_task(session.send([order(0)]))
            await until(lambda: len(asked) > 1)
            assert not any(asked)
            primary.lets_through.set()
            assert (await waiting)[0].accepted
            assert session.reconnects == 0
        assert client.address == world.gateways[0].address
