"""What must be true of an experiment and no schema can say: that what it names is there, and fits into its time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import msgspec

from chaos.experiment import document
from chaos.experiment.model import Environment, Experiment, FaultStep, Phase, Population
from chaos.experiment.targets import targets_of
from chaos.faults.catalogue import CATALOGUE
from exchange.settings import SettingsInvalid
from exchange.settings_text import parse_settings

STEADY_S_MIN = 3.0
"""A steady state of less is no more than chance."""


class Problem(NamedTuple):
    """What is wrong with the value at a path: what was expected, what was found."""

    path: document.Path
    what: str


def problems_of(experiment: Experiment, directory: Path) -> Iterator[Problem]:
    """Yield all that is wrong; recordings are looked for from `directory`."""
    yield from _environment(experiment.environment)
    yield from _load(experiment, directory)
    yield from _steady_state(experiment.phases[0])
    yield from _phases(experiment)
    yield from _promises(experiment)


def _environment(environment: Environment) -> Iterator[Problem]:
    at = ("environment",)
    if environment.nodes > 1 and environment.journal != "nats":
        what = f"expected `nats` with {environment.nodes} nodes, as a file is on one of them alone, was `file`"
        yield Problem((*at, "journal"), what)
    if environment.links == "apart" and environment.nodes == 1:
        yield Problem((*at, "links"), "expected several nodes, as `apart` keeps nodes apart, was `apart` with 1")
    if environment.gateways < environment.nodes and environment.nodes > 1:
        found = f"{environment.gateways} with {environment.nodes} nodes"
        yield Problem((*at, "gateways"), f"expected one for each node at least, was {found}")
    if not environment.markets:
        yield Problem((*at, "markets"), "expected at least one, found none")
    yield from _unique((*at, "markets"), [market.symbol for market in environment.markets])
    for number, market in enumerate(environment.markets):
        if market.shard >= environment.shards:
            what = f"expected a shard from 0 to {environment.shards - 1}, was {market.shard}"
            yield Problem((*at, "markets", number, "shard"), what)
    try:
        parse_settings(msgspec.toml.encode(environment.settings).decode())
    except (SettingsInvalid, TypeError) as error:
        yield Problem((*at, "settings"), str(error))


def _load(experiment: Experiment, directory: Path) -> Iterator[Problem]:
    markets = [market.symbol for market in experiment.environment.markets]
    yield from _unique(("load",), [population.name for population in experiment.load])
    for number, population in enumerate(experiment.load):
        at: document.Path = ("load", number)
        for index, market in enumerate(population.markets):
            yield from _known((*at, "markets", index), market, markets, "market")
        trades_in = len(population.markets or markets)
        if population.behaviour == "arbitrageurs" and trades_in < 2:
            what = f"expected two or more, as arbitrageurs answer one market in another, found {trades_in}"
            yield Problem((*at, "markets"), what)
        yield from _recording(at, population, directory)


def _recording(at: document.Path, population: Population, directory: Path) -> Iterator[Problem]:
    if population.behaviour != "replay":
        if population.recording:
            what = f"expected none, as only `replay` sends one, was {population.recording!r}"
            yield Problem((*at, "recording"), what)
    elif not population.recording:
        yield Problem((*at, "recording"), "expected the file that is replayed, found none")
    elif not (file := directory / population.recording).is_file():
        yield Problem((*at, "recording"), f"expected a file, found none at {file}")


def _steady_state(first: Phase) -> Iterator[Problem]:
    at: document.Path = ("phases", 0)
    if first.faults:
        found = ", ".join(step.fault for step in first.faults)
        yield Problem((*at, "faults"), f"expected none in the first phase, which is the steady state, found {found}")
    if first.is_trigger:
        yield Problem((*at, "is_trigger"), "expected false for the first phase, which is the steady state, was true")
    for name, load in (("load", first.load), ("load_to", first.load_to)):
        wrong = [share for share in _shares(load) if share != 1.0]
        if wrong:
            yield Problem((*at, name), f"expected 1 in the first phase, which is the steady state, was {wrong[0]:g}")
    if first.duration_s < STEADY_S_MIN:
        what = f"expected at least {STEADY_S_MIN:g} s for a steady state, was {first.duration_s:g}"
        yield Problem((*at, "duration_s"), what)


def _phases(experiment: Experiment) -> Iterator[Problem]:
    populations = [population.name for population in experiment.load]
    targets = targets_of(experiment)
    yield from _unique(("phases",), [phase.name for phase in experiment.phases])
    begin_s = 0.0
    for number, phase in enumerate(experiment.phases):
        at: document.Path = ("phases", number)
        for name, load in (("load", phase.load), ("load_to", phase.load_to)):
            if isinstance(load, Mapping):
                for population in load:
                    yield from _known((*at, name, population), population, populations, "population")
            if wrong := [share for share in _shares(load) if not (math.isfinite(share) and share >= 0)]:
                yield Problem((*at, name), f"expected 0 or more, was {wrong[0]:g}")
        for index, step in enumerate(phase.faults):
            yield from _step((*at, "faults", index), step, phase, experiment.duration_s - begin_s, targets)
        begin_s += phase.duration_s


def _step(at: document.Path, step: FaultStep, phase: Phase, left_s: float, targets: Sequence[str]) -> Iterator[Problem]:
    """`left_s`: from the begin of its phase to the end of the experiment."""
    if step.fault not in CATALOGUE:
        near = get_close_matches(step.fault, CATALOGUE, 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        yield Problem((*at, "fault"), f"expected a fault of the catalogue, was {step.fault!r}{hint}")
    else:
        try:
            msgspec.convert(step.arguments, CATALOGUE[step.fault].arguments)
        except msgspec.ValidationError as error:
            yield Problem((*at, "arguments"), str(error))
        if step.for_s and not CATALOGUE[step.fault].takes_back:
            yield Problem((*at, "for_s"), f"expected 0, as {step.fault} is not taken back, was {step.for_s:g}")
    if step.target and step.target not in targets:
        near = get_close_matches(step.target, targets, 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        yield Problem((*at, "target"), f"expected something that the experiment has, was {step.target!r}{hint}")
    if step.at_s > phase.duration_s:
        yield Problem((*at, "at_s"), f"expected at most the phase's {phase.duration_s:g} s, was {step.at_s:g}")
    elif step.at_s + step.for_s > left_s:
        what = f"expected an end within the experiment, {left_s:g} s after its phase begins, was {step.at_s:g}"
        yield Problem((*at, "for_s"), f"{what} + {step.for_s:g}")


def _promises(experiment: Experiment) -> Iterator[Problem]:
    markets = [market.symbol for market in experiment.environment.markets]
    for index, market in enumerate(experiment.blast_radius.markets):
        yield from _known(("blast_radius", "markets", index), market, markets, "market")
    yield from _unique(("invariants",), experiment.invariants)
    yield from _unique(("sometimes",), experiment.sometimes)
    if experiment.deviates_in and experiment.expect == "hold":
        yield Problem(("deviates_in",), f"expected none with `expect: hold`, was {', '.join(experiment.deviates_in)}")
    if experiment.service_levels.recover_s is not None and not experiment.trigger_end_s:
        what = "expected a phase with a fault or `is_trigger`, as recovery counts from its end, found none"
        yield Problem(("service_levels", "recover_s"), what)
    if experiment.incident is not None:
        marks = [event.mark for event in experiment.incident.timeline if event.mark]
        yield from _unique(("incident", "timeline"), marks)


def _shares(load: float | dict[str, float] | None) -> Sequence[float]:
    if load is None:
        return ()
    return tuple(load.values()) if isinstance(load, dict) else (load,)


def _unique(at: document.Path, names: Sequence[str]) -> Iterator[Problem]:
    for name, times in Counter(names).items():
        if times > 1:
            yield Problem(at, f"expected each name once, found {name!r} {times} times")


def _known(at: document.Path, name: str, known: Sequence[str], kind: str) -> Iterator[Problem]:
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        yield Problem(at, f"expected a {kind} of the experiment ({', '.join(known)}), was {name!r}{hint}")
