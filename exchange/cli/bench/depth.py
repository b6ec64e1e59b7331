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
TURN = 5_000
"""The depths take turns of so many commands, so that what else the machine does is the same for all."""
BATCH = 100
ROUNDS = 3
SEED = 1


def measure() -> Figure:
    """Return the microseconds of a command at a million resting orders, beside those at a thousand.

    Cancels name orders from anywhere in the book. What it costs if the commands trade and cancel among themselves, the
    same ones at every depth, stands in the detail.
    """
    near = _measure(cancels_resting=False)
    anywhere = _measure(cancels_resting=True)
    shallow, deep = DEPTHS[0], DEPTHS[-1]
    ratio, near_ratio = (median(r[deep] / r[shallow] for r in rounds) for rounds in (anywhere, near))
    cost_us = _medians(anywhere)
    detail = (
        f"us a command at so many resting orders: {_listed(cost_us)}; p99.99 of one at {deep:,}: "
        f"{_slowest_us(deep):.0f} us; with cancels of recent orders alone: {_listed(_medians(near))} ({near_ratio:.2f})"
    )
    return Figure("depth", cost_us[deep], "us/command", reference=cost_us[shallow], ratio=ratio, detail=detail)


def _measure(*, cancels_resting: bool) -> list[dict[int, float]]:
    """Return for each round the cost of a command at each depth in us."""
    flows = {depth: _flow(depth, cancels_resting=cancels_resting) for depth in DEPTHS}
    rounds = []
    for _ in range(ROUNDS):
        shards = {depth: _filled(resting) for depth, (resting, _) in flows.items()}
        spent_s = dict.fromkeys(DEPTHS, 0.0)
        with no_collection():
            for at in range(0, COMMANDS, TURN):
                for depth, (_, commands) in flows.items():
                    spent_s[depth] += _spent_s(shards[depth], commands[at : at + TURN])
        rounds.append({depth: spent_s[depth] * 1e6 / COMMANDS for depth in DEPTHS})
    return rounds


def _flow(depth: int, *, cancels_resting: bool) -> tuple[list[Command], list[Command]]:
    """Return the orders of a book, and the commands that come then."""
    flow = OrderFlow(SEED, cancels_resting=cancels_resting)
    return flow.resting(depth, prices_per_side=min(depth // 10, PRICES_PER_SIDE_MAX)), flow.commands(COMMANDS)


def _medians(rounds: list[dict[int, float]]) -> dict[int, float]:
    return {depth: median(costs[depth] for costs in rounds) for depth in DEPTHS}


def _listed(cost_us: dict[int, float]) -> str:
    return ", ".join(f"{depth:,}: {cost:.2f}" for depth, cost in cost_us.items())


def _filled(resting: list[Command]) -> Shard:
    shard = open_shard()
    with no_collection():
        shard.apply(1, resting)
    # As hosts do from time to time.
    collapse_pages()
    return shard


def _spent_s(shard: Shard, commands: list[Command]) -> float:
    started_s = perf_counter()
    for at in range(0, len(commands), BATCH):
        shard.apply(2, commands[at : at + BATCH])
    return perf_counter() - started_s


def _slowest_us(depth: int) -> float:
    """Return what all but one in ten thousand commands stay below, each alone in its batch, in us."""
    resting, commands = _flow(depth, cancels_resting=True)
    shard = _filled(resting)
    times = []
    with no_collection():
        for command in commands:
            started_ns = perf_counter_ns()
            shard.apply(2, [command])
            times.append(perf_counter_ns() - started_ns)
    times.sort()
    return times[int(len(times) * 0.9999)] / 1e3
