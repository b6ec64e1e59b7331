"""A campaign: an exchange under load, faults one after the other, and the verdict on what is left of it."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chaos.campaign.pauses import longest_pauses
from chaos.campaign.plan import LoadPlan, Trader
from chaos.faults.fault import Fault, Injector, Planned, Target, choose, plan_faults
from chaos.invariants.checker import check_history
from chaos.invariants.findings import Findings
from chaos.invariants.history import History, kept_history
from chaos.worlds.health import Health
from chaos.worlds.world import World
from exchange.client import AsyncClient, EvenkeelError, Permission

HEALTHY_S_MAX = 60.0
"""Within this time after each fault all must be well again; else the campaign ends there."""
SETTLED_S_MAX = 60.0
SICK_CHARACTERS_MAX = 300
MARKETS = ("AAA-USDT", "BBB-USDT", "CCC-USDT")
DEPOSITS = {"USDT": "60000", "AAA": "60", "BBB": "60", "CCC": "60"}
"""Some ten times what an account's open orders hold: so money matters, moves between the shards, and is there."""
ASSET_SCALE = 6
KEPT_FILE = "campaign.json"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    seed: int
    faults: int
    commands_per_s: float = 1_000.0
    traders: int = 6
    pause_s_max: float = 3.0
    warm_up_s: float = 2.0
    doubles: float = 0.15
    """The share of faults that come two at a time."""
    outcome_s_max: float = 10.0
    naive_commands_max: int = 3_000
    """Of each shard, done by the naive one as well: that takes a quarter of a minute."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault that was done, what it took until all was well, and the longest time without a new order."""

    kind: str
    target: str
    role: str
    injected_ns: int
    lasted_s: float
    healthy_ns: int
    healthy_s: float
    sick: str = ""
    """What was not well at last, if anything."""
    is_double: bool = False
    """Another fault was done at the same time."""


@dataclass(slots=True)
class Report:
    options: Options
    findings: Findings
    happened: list[Happened]
    failures: list[str] = field(default_factory=list)
    """What went wrong apart from the rules: not healthy in time, books that do not balance."""
    pauses_s: list[float] = field(default_factory=list)
    """For each fault: the longest time in which a market took no new order."""

    @property
    def is_good(self) -> bool:
        return not self.failures and not self.findings.violations


def run_campaign(world: World, directory: Path, options: Options, say: Say = lambda _: None) -> Report:
    """Run a campaign on an exchange that is not started yet. `directory` keeps logs and history."""
    logs = directory / "logs"
    logs.mkdir(parents=True)
    for left_out in world.left_out:
        say(left_out)
    world.start()
    try:
        history = world.history(directory / "history")
        happened, failures = asyncio.run(_trouble(world, logs, history, options, say))
        world.stop_exchange()
        asyncio.run(history.finish())
    finally:
        world.stop()
    kept = {
        "options": asdict(options),
        "machines": dict(world.machines),
        "happened": [asdict(fault) for fault in happened],
        "failures": failures,
    }
    (directory / KEPT_FILE).write_text(json.dumps(kept, indent=1))
    say("checking the history …")
    return _report(directory, options, history, world.machines, happened, failures)


def check_again(directory: Path) -> Report:
    """Check a campaign that was kept: its logs and its history."""
    kept = json.loads((directory / KEPT_FILE).read_text())
    happened = [Happened(**fault) for fault in kept["happened"]]
    machines, options = kept["machines"], Options(**kept["options"])
    return _report(directory, options, kept_history(directory / "history"), machines, happened, kept["failures"])


def _report(
    directory: Path,
    options: Options,
    history: History,
    machines: Mapping[str, str],
    happened: list[Happened],
    failures: list[str],
) -> Report:
    logs = directory / "logs"
    plan = LoadPlan.read(logs / "plan.json")
    findings = check_history(
        history,
        machines,
        plan.logged,
        logs,
        directory / "status.log",
        naive_commands_max=options.naive_commands_max,
        outcome_s_max=options.outcome_s_max,
    )
    spans = [(h.injected_ns, h.healthy_ns) for h in happened]
    return Report(options, findings, happened, failures, longest_pauses(plan, logs, spans))


async def _trouble(
    world: World, logs: Path, history: History, options: Options, say: Say
) -> tuple[list[Happened], list[str]]:
    plan, probe_key = await _furnish(world, options)
    plan.write(logs / "plan.json")
    health = Health(world.addresses, world.operator_key, probe_key, plan.markets, logs.parent / "status.log")
    happened: list[Happened] = []
    failures: list[str] = []
    _, sick = await health.wait(HEALTHY_S_MAX)
    if sick:
        return happened, [f"not healthy before the first fault: {sick}"]
    gathering = asyncio.create_task(history.run())
    try:
        async with _load(logs, failures):
            await asyncio.sleep(options.warm_up_s)
            for together in plan_faults(
                options.seed, options.faults, world.roles, options.pause_s_max, options.doubles
            ):
                for fault in await _do(together, world, health):
                    happened.append(fault)
                    say(_describe(len(happened), fault))
                    if fault.sick:
                        failures.append(f"not healthy {HEALTHY_S_MAX:.0f} s after {fault.target}: {fault.sick}")
                if failures:
                    break
        if not failures:
            failures += await _audit(world)
            await health.sick()
    finally:
        gathering.cancel()
        await asyncio.gather(gathering, return_exceptions=True)
        await health.close()
    return happened, failures


async def _furnish(world: World, options: Options) -> tuple[LoadPlan, str]:
    """Create markets, accounts with money, keys; return the plan of the load and the key of the probe."""
    shards = sorted(name for name, kind in world.machines.items() if kind == "shard")
    async with AsyncClient(world.addresses, world.operator_key, timeout=10) as operator:
        for asset in DEPOSITS:
            await operator.create_asset(asset, ASSET_SCALE)
        markets = {}
        for number, symbol in enumerate(MARKETS):
            markets[symbol] = shards[number % len(shards)]
            await operator.create_instrument(
                symbol,
                tick_size="0.01",
                lot_size="0.0001",
                max_quantity=1_000,
                maker_fee_ppm=-200,
                taker_fee_ppm=900,
                shard=markets[symbol],
            )
        keys = []
        for number in range(options.traders + 1):
            account = (await operator.create_account(f"trader-{number}")).account_id
            for asset, amount in DEPOSITS.items():
                await operator.deposit(account, asset, amount, reference=f"{number}-{asset}")
            key = await operator.create_api_key(account, [Permission.READ, Permission.TRADE])
            keys.append((account, key.secret))
    traders = [Trader(f"t{n}", account, key, by_sdk=n % 2 == 1) for n, (account, key) in enumerate(keys[:-1])]
    plan = LoadPlan(options.seed, world.addresses, markets, tuple(traders), options.commands_per_s)
    return plan, keys[-1][1]


@asynccontextmanager
async def _load(logs: Path, failures: list[str]) -> AsyncIterator[None]:
    """Run the load as a process of its own; at the end let it settle everything that is open."""
    command = [sys.executable, "-m", "chaos.campaign.process", str(logs / "plan.json"), str(logs)]
    with (logs / "load.err").open("w") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            await process.stdout.readline()
            yield
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(SETTLED_S_MAX):
                    code = await process.wait()
                if code:
                    failures.append(f"the load ended with {code}: {(logs / 'load.err').read_text()[-2_000:]}")
            except TimeoutError:
                failures.append(f"the load still had open outcomes {SETTLED_S_MAX:.0f} s after its end")
                process.kill()
                await process.wait()


async def _do(together: Sequence[Planned], world: World, health: Health) -> list[Happened]:
    """Inject one fault, or two at a time, heal them, and wait until all is well."""
    taken: list[Target] = []
    started = [asyncio.create_task(_inject(planned, world, health, taken)) for planned in together]
    done = [fault for fault in await asyncio.gather(*started) if fault is not None]
    _, sick = await health.wait(HEALTHY_S_MAX, [pid for _, _, _, fault in done for pid in fault.killed_pids])
    healthy_ns = time.monotonic_ns()
    return [
        Happened(
            planned.kind.value,
            str(target),
            target.role,
            injected_ns,
            fault.lasts_s,
            healthy_ns,
            (healthy_ns - injected_ns) / 1e9,
            sick[:SICK_CHARACTERS_MAX],
            len(done) > 1,
        )
        for planned, target, injected_ns, fault in done
    ]


async def _inject(
    planned: Planned, world: World, health: Health, taken: list[Target]
) -> tuple[Planned, Target, int, Fault] | None:
    """Inject a fault in its time and heal it; None if there is nothing to do it to."""
    await asyncio.sleep(planned.pause_s)
    injector: Injector = next(i for i in world.injectors if i.kind == planned.kind)
    targets = injector.targets([*health.targets(), *world.unlisted_targets()])
    target = choose(planned, [t for t in targets if t not in taken])
    if target is None:
        return None
    taken.append(target)
    fault = injector.make(target, random.Random(planned.seed))
    injected_ns = time.monotonic_ns()
    await asyncio.to_thread(fault.inject)
    if fault.lasts_s:
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(fault.heal)
    return planned, target, injected_ns, fault


async def _audit(world: World) -> list[str]:
    """Return what the exchange's own audit of its money finds (I3, I4)."""
    async with AsyncClient(world.addresses, world.operator_key, timeout=30) as operator:
        try:
            audit = await operator.audit()
        except EvenkeelError as error:
            return [f"no audit: {error!r}"]
    return [f"audit: {found.summary}" for found in audit.breaks]


def _describe(number: int, fault: Happened) -> str:
    lasted = f" for {fault.lasted_s:.1f} s" if fault.lasted_s else ""
    outcome = f"NOT WELL: {fault.sick}" if fault.sick else f"well after {fault.healthy_s:.2f} s"
    both = " (two at once)" if fault.is_double else ""
    return f"{number:4} {fault.kind} {fault.target}{lasted}{both}: {outcome}"


def table(report: Report) -> str:
    """Return recovery by kind and role, then the verdict."""
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for fault, pause_s in zip(report.happened, report.pauses_s, strict=True):
        row = (fault.kind, "two at once" if fault.is_double else fault.role)
        rows.setdefault(row, []).append((fault.healthy_s, pause_s))
    lines = [
        f"seed {report.options.seed}, {len(report.happened)} faults at {report.options.commands_per_s:,.0f} commands/s",
        f"{'fault':<16}{'of':<12}{'count':>6}{'well again (s)':>20}{'no new order (s)':>20}",
        f"{'':34}{'median':>10}{'worst':>10}{'median':>10}{'worst':>10}",
    ]
    for (kind, role), figures in sorted(rows.items()):
        well, pause = (sorted(column) for column in zip(*figures, strict=True))
        numbers = (well[len(well) // 2], well[-1], pause[len(pause) // 2], pause[-1])
        lines.append(f"{kind:<16}{role:<12}{len(figures):>6}" + "".join(f"{n:>10.2f}" for n in numbers))
    lines.append(str(report.findings))
    lines += [f"FAILED: {failure}" for failure in report.failures]
    lines.append("verdict: " + ("all rules hold" if report.is_good else "NOT GOOD"))
    return "\n".join(lines)
