"""Listeners at the end of a load: what was acknowledged last is heard of, too, before anybody leaves."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from chaos.load.client_log import read_lines
from chaos.load.echo import MARKET
from chaos.load.listeners import ExecutionListener
from chaos.load.worker import Worker
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2
from tests.chaos.load.plans import group_of, plan_of


class SlowToTell(trading_pb2_grpc.TradingServiceServicer):
    """Acknowledges every order at once, and tells of none before somebody waits for that."""

    def __init__(self) -> None:
        self.sequence = 0
        self.is_awaited = asyncio.Event()

    async def PlaceOrder(self, request: Any, context: Any) -> trading_pb2.PlaceOrderResponse:
        self.sequence += 1
        result = trading_pb2.OrderResult(
            outcome=types_pb2.OUTCOME_ACKNOWLEDGED, order_id=self.sequence, sequence=self.sequence
        )
        return trading_pb2.PlaceOrderResponse(result=result)

    async def StreamExecutions(self, request: Any, context: Any) -> AsyncIterator[trading_pb2.StreamExecutionsResponse]:
        yield trading_pb2.StreamExecutionsResponse(start_sequences={MARKET.shard: 0})
        await self.is_awaited.wait()
        for sequence in range(1, self.sequence + 1):
            told = trading_pb2.Execution(shard=MARKET.shard, sequence=sequence, instrument=MARKET.symbol)
            yield trading_pb2.StreamExecutionsResponse(executions=[told])
        await asyncio.Event().wait()


@pytest.fixture
async def slow_to_tell() -> AsyncIterator[tuple[SlowToTell, str]]:
    servicer, server = SlowToTell(), grpc.aio.server()  # type: ignore[abstract]
    trading_pb2_grpc.add_TradingServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_client_leaves_when_it_was_told_of_its_last_order(
    slow_to_tell: tuple[SlowToTell, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, address = slow_to_tell
    has_heard = ExecutionListener.has_heard

    def await_it(listener: ExecutionListener, sequences: dict[str, int]) -> bool:
        servicer.is_awaited.set()
        return has_heard(listener, sequences)

    monkeypatch.setattr(ExecutionListener, "has_heard", await_it)
    group = group_of(1, behaviour="takers", transport="unary", retry="none", deadline_ms=30_000)
    plan = plan_of(group, address=address, duration_s=0.5)
    worker = Worker(plan, tmp_path, 0, 1, lambda _: None)
    await worker.prepare()
    await worker.run(time.monotonic_ns())
    told = [line["seq"] for line, _ in read_lines(tmp_path / "c-0.executions.log") if line["e"] == "exec"]
    assert told == list(range(1, len(list(plan.schedule())) + 1))
