"""`depth`: what a command costs in a deep book, beside a shallow one; and the slowest of them."""

from __future__ import annotations

from statistics import median
from time import perf_counter, perf_counter_ns

from exchange.cli.bench import Figure
from exchange.cli.bench.engine import no_collection
from exchange.cli.bench.flow import OrderFlow, open_shard
from exchange.engine.commands import Command
from exchange.engine.shard import Shard
from exchange.runtime.large_pages import collapse_pages

DEPTHS = (1_000, 100_000, 1_000_000)
PRICES_PER_SIDE_MAX = 20_000
COMMANDS = 100_000
BATCH = 100
ROUNDS = 3
SEED = 1


def measure() -> Figure:
    """Return the microseconds of a command at a million resting orders, beside those at a thousand.

    Cancels name orders from anywhere in the book. What it costs if the commands trade and cancel among themselves, the
    same ones at every depth, stands in the detail.
    """
    near_us = {depth: _measure(depth, cancels_resting=False)[0] for depth in DEPTHS}
    anywhere = {depth: _measure(depth, cancels_resting=True) for depth in DEPTHS}
    anywhere_us = {depth: cost_us for depth, (cost_us, _) in anywhere.items()}
    shallow, deep = anywhere_us[DEPTHS[0]], anywhere_us[DEPTHS[-1]]
    detail = (
        f"us a command at so many resting orders: {_listed(anywhere_us)}; p99.99 of one at {DEPTHS[-1]:,}: "
        f"{anywhere[DEPTHS[-1]][1]:.0f} us; with cancels of recent orders alone: {_listed(near_us)}"
    )
    return Figure("depth", deep, "us/command", reference=shallow, ratio=deep / shallow, detail=detail)


def _measure(depth: int, *, cancels_resting: bool) -> tuple[float, float]:
    """Return the cost of a command, and what all but one in ten thousand stay below, in us."""
    flow = OrderFlow(SEED, cancels_resting=cancels_resting)
    resting = flow.resting(depth, prices_per_side=min(depth // 10, PRICES_PER_SIDE_MAX))
    commands = flow.commands(COMMANDS)
    costs = []
    for _ in range(ROUNDS):
        shard = _filled(resting)
        with no_collection():
            costs.append(_cost_us(shard, commands))
    shard = _filled(resting)
    with no_collection():
        return median(costs), _percentile_us(shard, commands, 0.9999)


def _listed(cost_us: dict[int, float]) -> str:
    return ", ".join(f"{depth:,}: {cost:.2f}" for depth, cost in cost_us.items())


def _filled(resting: list[Command]) -> Shard:
    shard = open_shard()
    with no_collection():
        shard.apply(1, resting)
    # As hosts do from time to time.
    collapse_pages()
    return shard


def _cost_us(shard: Shard, commands: list[Command]) -> float:
    started_s = perf_counter()
    for at in range(0, len(commands), BATCH):
        shard.apply(2, commands[at : at + BATCH])
    return (perf_counter() - started_s) * 1e6 / len(commands)


def _percentile_us(shard: Shard, commands: list[Command], fraction: float) -> float:
    """Return the time of one command, alone in its batch, that so large a part of them does not exceed."""
    times = []
    for command in commands:
        started_ns = perf_counter_ns()
        shard.apply(2, [command])
        times.append(perf_counter_ns() - started_ns)
    times.sort()
    return times[int(len(times) * fraction)] / 1e3
