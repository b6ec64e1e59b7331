"""One run of an experiment: puts the real parts together, and hands them to a director."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chaos.experiment.library import Source
from chaos.experiment.model import Experiment
from chaos.faults import catalogue
from chaos.faults.clocks import NAME as CLOCK_JUMP
from chaos.load.plan import LoadPlan
from chaos.load.workers import LoadWorkers, Workers
from chaos.run.agent import LocalAgent
from chaos.run.attached import AttachedExchange
from chaos.run.director import Clock, Director
from chaos.run.directory import make_directory
from chaos.run.judging import WholeRun
from chaos.run.load import WorkersLoad
from chaos.run.manifest import manifest_of
from chaos.run.parts import Parts
from chaos.run.private import PrivateExchange
from chaos.run.record import HISTORY, LOGS, STATUS_LOG, ExitCode, Manifest, Verdict
from chaos.run.watching import Memory, StatusWatch, memory_here, memory_unseen
from chaos.run.writer import Observer, RunWriter
from chaos.worlds.health import Health

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Attachment:
    """An exchange that runs already."""

    addresses: tuple[str, ...]
    operator_key: str


@dataclass(frozen=True, slots=True)
class RunOptions:
    directory: Path
    seed: int
    workers: int
    keep_history: bool
    attachment: Attachment | None
    command: Sequence[str]


async def run_experiment(source: Source, options: RunOptions, observer: Observer) -> Verdict:
    """Run an experiment from this machine and return its verdict. Ctrl-C ends it early.

    Raises `DirectoryNotEmpty`, and `FaultNotInjected` before anything is started if a fault cannot be done here.
    """
    experiment = seeded(source, options)
    steps = [step for phase in experiment.phases for step in phase.faults]
    for step in steps:
        catalogue.check(step)
    directory, attachment = options.directory, options.attachment
    make_directory(directory, source, options.seed)
    exchange: PrivateExchange | AttachedExchange
    if attachment is None:
        clocks_move = any(step.fault == CLOCK_JUMP for step in steps)
        exchange = PrivateExchange(experiment.environment, experiment.load, directory, clocks_move=clocks_move)
    else:
        exchange = attached(experiment, attachment)
    watch = watch_of(exchange, directory, memory_here if exchange.is_local else memory_unseen)
    load = load_of(experiment, exchange, source, options)
    agent = LocalAgent(exchange, lambda: [*watch.targets(), *exchange.targets], options.seed, load.storm)
    parts = Parts(exchange, load, watch, agent, WholeRun(experiment, exchange))
    try:
        return await conduct(source, options, observer, parts, exchange.target, interrupted_by_signals)
    finally:
        await agent.close()


def load_of(
    experiment: Experiment,
    exchange: PrivateExchange | AttachedExchange,
    source: Source,
    options: RunOptions,
    make_workers: Callable[[LoadPlan, Path, int], Workers] = LoadWorkers,
) -> WorkersLoad:
    """Return the load of a run, sent from this machine if nobody else makes its processes."""
    logs, recordings = options.directory / LOGS, source.path.parent
    return WorkersLoad(experiment, lambda: exchange, logs, options.workers, recordings, make_workers)


def seeded(source: Source, options: RunOptions) -> Experiment:
    """Return an experiment with the seed that it is run with."""
    return msgspec.structs.replace(source.experiment, seed=options.seed)


def attached(experiment: Experiment, attachment: Attachment) -> AttachedExchange:
    return AttachedExchange(experiment.environment, experiment.load, attachment.addresses, attachment.operator_key)


def watch_of(exchange: PrivateExchange | AttachedExchange, directory: Path, memory: Memory) -> StatusWatch:
    """Return who watches an exchange, once it serves."""

    def health() -> Health:
        furnished = exchange.furnished
        log = directory / STATUS_LOG
        return Health(exchange.addresses, exchange.operator_key, furnished.probe.key, furnished.markets, log)

    return StatusWatch(health, directory, memory, lambda: exchange.furnished.markets)


async def conduct(
    source: Source,
    options: RunOptions,
    observer: Observer,
    parts: Parts,
    target: str,
    holding: Callable[[Director], AbstractContextManager[None]],
) -> Verdict:
    """Run an experiment with these parts, in a directory that is made already, and return its verdict.

    `holding` is entered with the director while it runs: whoever may interrupt it has it there.
    """
    experiment = seeded(source, options)

    def manifest(begun_s: float) -> Manifest:
        return manifest_of(
            source.name,
            options.seed,
            experiment.environment,
            begun_s=begun_s,
            schedule_sha256=parts.load.schedule_sha256,
            command=options.command,
            target=target,
        )

    clock = Clock()
    with RunWriter(options.directory, clock.now_s, observer) as writer:
        director = Director(source.name, experiment, parts, writer, clock, manifest)
        with holding(director):
            verdict = await director.run()
    if verdict.exit_code == ExitCode.HELD and not options.keep_history:
        shutil.rmtree(options.directory / HISTORY)
    return verdict


@contextmanager
def interrupted_by_signals(director: Director) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end the run: the first takes everything back, the next ones say that it is under way."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        # Ray's own handler of SIGTERM, which comes before, has set an alarm that would abort this process in 3 s.
        signal.alarm(0)
        director.interrupt()

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
