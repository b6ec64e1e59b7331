"""A real shard that is killed opens in stages, which its clients see, also under the next supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from exchange.client import AsyncClient, Client, Component, EvenkeelError, OrderStatus, Side, Stage, StageForbids
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.ray_calls import NAMESPACE, SUPERVISORS
from tests.cluster.money import open_market, open_rich_account

pytestmark = pytest.mark.cluster
SYMBOL, OTHER = "BTC-USDT", "ETH-USDT"
UPWARDS = [Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.OPEN]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    config = ExchangeConfig(data_dir=Path(tmp_path_factory.mktemp("exchange")), port=0, shards=1)
    with LocalExchange(config) as running:
        with Client(running.address, running.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
            open_market(operator, OTHER)
        running.wait(complete=True)
        yield running


@pytest.fixture
def operator(exchange: LocalExchange) -> Iterator[Client]:
    with Client(exchange.address, exchange.operator_key, timeout=10) as client:
        yield client


@pytest.fixture
def trader(exchange: LocalExchange, operator: Client, request: pytest.FixtureRequest) -> Iterator[Client]:
    _, key = open_rich_account(operator, request.node.name[:32])
    with Client(exchange.address, key, timeout=10) as client:
        yield client


def shard_of(operator: Client) -> Component:
    return next(c for c in operator.status().components if c.name == "shard-0")


def until(is_so: Callable[[], bool], *, limit_s: float = 60.0) -> None:
    give_up_s = time.monotonic() + limit_s
    while True:
        try:
            if is_so():
                return
        except EvenkeelError:
            pass  # nobody answers while it is replaced
        assert time.monotonic() < give_up_s, f"not so after {limit_s:g} s"
        time.sleep(0.05)


async def stages_seen(exchange: LocalExchange) -> list[tuple[Stage, str, int]]:
    """Kill the shard; return what the stream of a book tells of its stages until it is open again."""
    async with AsyncClient(exchange.address, exchange.operator_key, timeout=10) as client:
        seen: list[tuple[Stage, str, int]] = []
        killed = False
        async for book in client.stream_order_book(SYMBOL, depth=1):
            if not killed:
                pid = next(c for c in (await client.status()).components if c.name == "shard-0").pid
                os.kill(pid, signal.SIGKILL)
                killed = True
            elif not seen or seen[-1][0] != book.stage:
                seen.append((book.stage, book.stage_reason, book.next_stage_time_ns))
            if book.stage == Stage.OPEN and len(seen) > 1:
                return seen
    raise AssertionError("the stream ended")


def test_a_client_sees_each_stage_and_when_the_next_one_is_expected(
    exchange: LocalExchange, operator: Client, trader: Client
) -> None:
    exchange.wait(complete=True)
    before_ns = time.time_ns()
    trader.place_order(SYMBOL, Side.BUY, "1", "5", client_order_id="resting")
    seen = asyncio.run(asyncio.wait_for(stages_seen(exchange), 60))
    stages = [stage for stage, _, _ in seen if stage in UPWARDS]
    assert stages[-4:] == UPWARDS
    for stage, reason, next_ns in seen:
        if stage in UPWARDS[1:3]:
            assert reason.startswith("well after")
            assert before_ns < next_ns < time.time_ns() + 10_000_000_000
    assert trader.cancel_order(SYMBOL, client_order_id="resting").status == OrderStatus.CANCELLED
    told = [event.detail for event in operator.events() if event.kind == "stage" and event.time_ns > before_ns]
    assert [detail.partition(":")[0].partition(" ")[0] for detail in told] == [stage.name for stage in UPWARDS]


def test_one_instrument_is_halted_by_hand_and_the_other_trades_on(operator: Client, trader: Client) -> None:
    until(lambda: shard_of(operator).stage == Stage.OPEN)
    trader.place_order(SYMBOL, Side.BUY, "1", "5", client_order_id="kept")
    assert operator.hold_stage(Stage.HALTED, instrument=SYMBOL, reason="news") == (SYMBOL,)
    with pytest.raises(StageForbids):
        trader.place_order(SYMBOL, Side.BUY, "1", "5", timeout=0.5)
    with pytest.raises(StageForbids):
        trader.cancel_order(SYMBOL, client_order_id="kept", timeout=0.5)
    assert trader.place_order(OTHER, Side.BUY, "1", "5").accepted
    until(lambda: [held.reason for held in shard_of(operator).instrument_stages] == ["news"])
    halted = {instrument.symbol: instrument.stage_reason for instrument in trader.instruments()}
    assert (halted[SYMBOL], halted[OTHER]) == ("news", "")
    assert operator.resume(instrument=SYMBOL, reason="no news") == (SYMBOL,)
    assert trader.cancel_order(SYMBOL, client_order_id="kept").status == OrderStatus.CANCELLED


def test_a_shard_goes_on_opening_under_the_next_supervisor(exchange: LocalExchange, operator: Client) -> None:
    exchange.wait(complete=True)
    os.kill(shard_of(operator).pid, signal.SIGKILL)
    until(lambda: shard_of(operator).stage == Stage.LIMITED)
    before = shard_of(operator)
    leads = [ray.get(ray.get_actor(name, namespace=NAMESPACE).lead.remote()) for name in SUPERVISORS]
    (active,) = (lead["pid"] for lead in leads if lead["is_active"])
    os.kill(active, signal.SIGKILL)
    until(lambda: shard_of(operator).stage == Stage.OPEN)
    after = shard_of(operator)
    assert (after.pid, after.epoch) == (before.pid, before.epoch)
    told = [event.detail.partition(" ")[0] for event in operator.events() if event.kind == "stage"]
    assert "CANCEL_ONLY:" not in told, "it began anew"
