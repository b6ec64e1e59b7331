"""Faults are done to a real exchange, one after the other: each shows its effect, and is over in the end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.experiment.model import Environment, FaultStep, Market, Population
from chaos.run.agent import LocalAgent
from chaos.run.private import PrivateExchange
from chaos.worlds.clocks import COMPILER
from chaos.worlds.health import Health
from exchange.client import AsyncClient, EvenkeelError, Side
from exchange.netns import missing

WELL_S_MAX = 90.0
MARKET = "BTC-USDT"
QUICKLY = {"cancel_only_ms": 100, "post_only_ms": 100, "ramp_ms": 300, "healthy_ms": 100}
SETTINGS: dict[str, Any] = {
    "stages": {"warm": QUICKLY, "cold": QUICKLY, "regresses_max": 100, "regress_window_ms": 1_000},
    "governor": {"restarts_per_min_max": 1_000, "backoff_max_ms": 0},
}
LOAD = (Population(name="makers", behaviour="makers", clients=1, per_s=1.0),)
has_all = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("strace", COMPILER)), reason="needs strace and gcc"
)


async def _nobody(what: str, population: str) -> int:
    return 0


async def _trade(addresses: tuple[str, ...], key: str) -> None:
    """Send an order every few hundredths of a second, whatever becomes of it, so that something passes."""
    async with AsyncClient(addresses, key, timeout=2.0) as client:
        while True:
            with contextlib.suppress(EvenkeelError):
                await client.place_order(MARKET, Side.BUY, "0.0001", "0.01", post_only=True)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def exchange(environment: Environment, directory: Path) -> AsyncIterator[tuple[LocalAgent, Health]]:
    """An exchange that is traded on."""
    private = PrivateExchange(environment, LOAD, directory, clocks_move=environment.nodes == 1)
    try:
        await private.start()
        furnished = private.furnished
        probe, maker = furnished.probe.key, furnished.clients["makers"][0].key
        health = Health(private.addresses, private.operator_key, probe, furnished.markets, directory / "status.log")
        agent = LocalAgent(private, health.targets, 1, _nobody)
        trading = asyncio.create_task(_trade(private.client_addresses, maker))
        try:
            yield agent, health
        finally:
            trading.cancel()
            await asyncio.wait([trading])
            await agent.close()
            await health.close()
    finally:
        await private.stop_exchange()
        await private.stop()


async def do(agent: LocalAgent, health: Health, number: int, step: FaultStep) -> str:
    """Do a fault to an exchange that is well, and take it back."""
    begin_s = time.monotonic()
    _, sick = await health.wait(WELL_S_MAX)
    assert not sick, f"before {step.fault}: {sick}"
    fault = await agent.make(number, step)
    try:
        await fault.inject()
        proof = await fault.proof()
    finally:
        await fault.rollback()
    print(f"{step.fault} {fault.target}: {proof} ({time.monotonic() - begin_s:.1f} s)")
    return proof


def step(fault: str, target: str = "", **arguments: Any) -> FaultStep:
    return FaultStep(fault=fault, target=target, arguments=arguments)


@pytest.mark.cluster
@pytest.mark.slow
@has_all
@pytest.mark.timeout(240)
async def test_every_fault_of_one_node_is_done_and_is_over(tmp_path: Path) -> None:
    environment = Environment(
        links="proxied", capacity_per_s=500, settings=SETTINGS, markets=(Market(symbol=MARKET),), gateways=2
    )
    steps = (
        step("latency", "gateway", latency_ms=20.0, jitter_ms=10.0),
        step("loss", "gateway-0", loss=0.3),
        step("bandwidth", "gateway", bytes_per_s=10_000.0),
        step("blackhole", "gateway", direction="down"),
        step("slow-close", "gateway-1", close_ms=50.0),
        step("reset-connections", "gateway"),
        step("slow-reader", "gateway-1", readers=2),
        step("busy-machine", "", processes=1),
        step("clock-jump", "shard-0", by_s=-5.0),
        step("pause-process", "gateway"),
        step("slow-process", MARKET),
        step("slow-machine", "", factor=2.0),
        step("hold-stage", MARKET, stage="POST_ONLY", at_once=True),
        step("slow-disk", "shard-0", fsync_ms=100),
        step("planned-restart", "shard-0", force=True),
        step("kill-process", "shard-0", moment="acknowledged"),
        step("kill-process", "standby"),
        step("kill-process", "supervisor"),
        step("torn-journal", "shard-0"),
    )
    async with exchange(environment, tmp_path) as (agent, health):
        for number, one in enumerate(steps):
            assert await do(agent, health, number, one)
        _, sick = await health.wait(WELL_S_MAX)
        assert not sick


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.timeout(400)
async def test_every_fault_of_several_nodes_is_done_and_is_over(tmp_path: Path) -> None:
    environment = Environment(
        nodes=3, gateways=3, journal="nats", links="apart", settings=SETTINGS, markets=(Market(symbol=MARKET),)
    )
    steps = (
        step("cut-one-way", "node-1"),
        step("cut-peers", "node-2"),
        step("cut-nats", "node-1"),
        step("cut-link", "node-2"),
        step("pause-process", "nats"),
        step("pause-node", "node-1"),
        step("kill-nats", "nats-0"),
        step("kill-gcs", "gcs"),
        step("kill-node", "node-2"),
        step("kill-process", "raylet"),
    )
    async with exchange(environment, tmp_path) as (agent, health):
        for number, one in enumerate(steps):
            assert await do(agent, health, number, one)
        _, sick = await health.wait(WELL_S_MAX)
        assert not sick
