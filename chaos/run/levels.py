"""What was promised beside the rules of the house: recovery, goodput, delays, memory; of what was seen alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from chaos.experiment.model import Experiment, ServiceLevels
from chaos.faults.catalogue import CATALOGUE
from chaos.load.client_log import REJECTED
from chaos.run.answers import Answer, percentile_ms
from chaos.run.record import Check, Event, Sample, found_by

WINDOW_S = 3
"""Goodput is looked at by so many seconds together: what is offered in one comes by chance."""
AWAY = ("REPLAYING", "HALTED")
REJECTED_NOW = frozenset((500, 501, 504, 603, 604))
"""By a stage that lets no order through, or as shard or journal are away."""
REPLACED = ("STARTING", "DOWN", "LOST", "FAILED")
NOTICED_S = 1.0
"""A shard tries its journal anew every half second, so it is not back the moment its disk is."""
RECONNECT_STORM = "reconnect-storm"
CUTS_OFF = frozenset(
    ("kill-process", "pause-process", "latency", "loss", "bandwidth", "blackhole", "slow-close", "reset-connections")
)
"""Faults that cut clients off if they are done to a gateway, or the links to it."""
CUTS_NODE_OFF = frozenset(("cut-link", "cut-peers", "cut-one-way", "kill-node", "pause-node"))
"""Faults that cut a node's gateway off from shards elsewhere, and so its clients."""
FOUND_S = 2.0
"""For a client to find a gateway again, with the back-off of its connection."""
CANCEL_P99_MS = 250.0
"""I8 promises it outside `REPLAYING`, whether or not an experiment says so."""
CANCELS_MIN = 20
"""Of fewer, the worst one is no percentile."""
AMPLIFICATION_MAX = 1.5
MEMORY_GROWTH_MB_MAX = 1_000.0
EXPLAINED_S = 90.0
"""A fault may bring about restarts for so long: standbys that are placed anew, nodes that come back."""


class Seen(NamedTuple):
    """What a run has left."""

    samples: Sequence[Sample]
    events: Sequence[Event]
    answers: Sequence[Answer]
    markets: dict[str, str]
    """Each market, and its shard."""
    nodes: Mapping[str, str] = MappingProxyType({})
    """Each gateway's address, and its node."""


class Window(NamedTuple):
    begin_s: float
    offered: float
    good: float

    @property
    def goodput(self) -> float:
        return self.good / self.offered


def windows(samples: Sequence[Sample], from_s: float, to_s: float = float("inf"), market: str = "") -> list[Window]:
    """Return goodput by `WINDOW_S` seconds, each beginning a second after the one before, of all or of one market."""

    def offered(sample: Sample) -> float:
        return sample.offered_by_market.get(market, 0.0) if market else sample.offered_per_s

    def good(sample: Sample) -> float:
        return sample.goodput_by_market.get(market, 0.0) if market else sample.goodput_per_s

    inside = [sample for sample in samples if from_s <= sample.t and sample.t + 1 <= to_s]
    found = []
    for at in range(len(inside) - WINDOW_S + 1):
        part = inside[at : at + WINDOW_S]
        total = sum(map(offered, part))
        if total:
            found.append(Window(part[0].t, total, sum(map(good, part))))
    return found


def recovered_after_s(experiment: Experiment, samples: Sequence[Sample]) -> float | None:
    """Return how long after the end of the trigger goodput is back, and stays so to the end; None: never."""
    recovered: float | None = None
    for window in windows(samples, experiment.trigger_end_s):
        if window.goodput < experiment.service_levels.recovered_goodput:
            recovered = None
        elif recovered is None:
            recovered = window.begin_s - experiment.trigger_end_s
    return None if recovered is None else max(recovered, 0.0)


def first_fault_s(experiment: Experiment, events: Sequence[Event]) -> float:
    """Return when trouble began: the first fault, else the second phase."""
    return next((event.t for event in events if event.kind == "fault"), experiment.phases[0].duration_s)


def times_away(events: Sequence[Event], shard: str, end_s: float) -> list[tuple[float, float]]:
    """Return when a shard let nothing through: from when it failed, or was seen to be away, until it was back."""
    away: list[tuple[float, float]] = []
    since: float | None = None
    is_told_away = False
    for event in events:
        is_away = (
            (event.kind == "fault" and event.what == "injected" and _is_of(event, shard))
            or (event.kind == "component" and event.name == shard and event.what in REPLACED)
            or (event.kind == "stage" and event.name == shard and event.what in AWAY)
        )
        if event.kind == "stage" and event.name == shard:
            is_told_away = event.what in AWAY
        is_back = event.kind == "stage" and event.name == shard and not is_told_away
        # What is taken back of one fault does not end what another one did.
        is_healed = event.kind == "rollback" and _is_of(event, shard) and not is_told_away
        if is_away and since is None:
            since = event.t
        elif (is_back or is_healed) and since is not None:
            away.append((since, event.t + (NOTICED_S if is_healed else 0.0)))
            since = None
    return [*away, (since, end_s)] if since is not None else away


def _is_of(event: Event, shard: str) -> bool:
    """Return whether what an event tells of was done to a shard, or to the node that it was on."""
    return event.target == shard or event.detail == found_by(shard, event.target)


def times_cut_off(events: Sequence[Event], end_s: float, node: str = "") -> list[tuple[float, float]]:
    """Return when clients were cut off by a fault of their own links, of a gateway, or of the node that they are at,
    until they had found another.

    What is lost on its way to or from a client, the exchange can neither serve nor answer.
    """
    cut_off: list[tuple[float, float]] = []
    for event in events:
        cuts_off = (
            event.name == RECONNECT_STORM
            or (event.name in CUTS_OFF and event.target.startswith("gateway"))
            or (event.name in CUTS_NODE_OFF and event.target == node)
        )
        if event.kind != "fault" or event.what != "injected" or not cuts_off:
            continue
        back_s = event.t
        if CATALOGUE[event.name].takes_back:
            ends = (e.t for e in events if e.kind == "rollback" and (e.name, e.target) == (event.name, event.target))
            back_s = min((t for t in ends if t >= event.t), default=end_s)
        cut_off.append((event.t, back_s + FOUND_S))
    return cut_off


def cancels_outside_replay(seen: Seen) -> list[Answer]:
    """Return the answers to cancels that were due while their shard let cancels through, until they were answered.

    Those of clients that were cut off are left out.
    """
    end_s = seen.samples[-1].t + 1.0 if seen.samples else 0.0
    cut_off = {node: times_cut_off(seen.events, end_s, node) for node in {"", *seen.nodes.values()}}
    away = {shard: times_away(seen.events, shard, end_s) for shard in set(seen.markets.values())}

    def is_served(answer: Answer) -> bool:
        times = away[seen.markets[answer.market]] + cut_off[seen.nodes.get(answer.gateway, "")]
        return not any(begin < answer.done_s and answer.due_s < end for begin, end in times)

    return [answer for answer in seen.answers if answer.kind == "cancel" and is_served(answer)]


def longest_pause_s(answers: Sequence[Answer], from_s: float, to_s: float) -> float:
    """Return the longest time in which a market took no new order that had some to take; 0 if none had."""
    taken: dict[str, list[float]] = defaultdict(lambda: [from_s])
    for answer in answers:
        if answer.kind == "place" and from_s <= answer.done_s <= to_s:
            times = taken[answer.market]
            if answer.is_definite and not answer.is_duplicate:
                times.append(answer.done_s)
    pauses = [b - a for times in taken.values() for a, b in zip(times, [*times[1:], to_s], strict=True)]
    return max(pauses, default=0.0)


def figures_of(experiment: Experiment, seen: Seen) -> dict[str, float]:
    """Return what a report says of the run in numbers, as far as it was seen."""
    samples = seen.samples
    if not samples:
        return {}
    trouble_s, end_s = first_fault_s(experiment, seen.events), samples[-1].t + 1.0
    after = [sample for sample in samples if sample.t >= trouble_s]
    figures: dict[str, float] = {}
    if (offered := sum(sample.offered_per_s for sample in after)) > 0:
        figures["goodput"] = sum(sample.goodput_per_s for sample in after) / offered
        figures["amplification"] = sum(sample.attempts_per_s for sample in after) / offered
    if (recovered := recovered_after_s(experiment, samples)) is not None:
        figures["recover_s"] = recovered
    late = [window.goodput for window in windows(samples, end_s - 10.0)]
    if late:
        figures["goodput_at_end"] = min(late)
    tried = [answer for answer in seen.answers if answer.kind == "cancel" and answer.due_s >= trouble_s]
    if tried:
        figures["cancels_served"] = sum(answer.is_definite for answer in tried) / len(tried)
    placed = [a for a in seen.answers if a.kind == "place" and a.is_definite and a.due_s >= trouble_s]
    cancels = [answer for answer in cancels_outside_replay(seen) if answer.is_definite]
    for name, answers, percent in (
        ("p50_ms", placed, 50.0),
        ("p99_ms", placed, 99.0),
        ("p999_ms", placed, 99.9),
        ("cancel_p99_ms", cancels, 99.0),
    ):
        if answers:
            figures[name] = percentile_ms(answers, percent)
    figures["pause_s"] = longest_pause_s(seen.answers, trouble_s, end_s)
    figures["refused"] = sum(sample.refused_per_s for sample in after)
    figures["not_sent"] = sum(sample.not_sent_per_s for sample in samples)
    figures["generator_late_p99_ms"] = max(sample.late_p99_ms for sample in samples)
    memory = [sample.memory_mb for sample in samples if sample.memory_mb]
    if memory:
        figures["memory_mb_begin"], figures["memory_mb_max"] = memory[0], max(memory)
    return {name: round(value, 3) for name, value in figures.items()}


def check_levels(experiment: Experiment, seen: Seen) -> list[Check]:
    """Return a check for each level that the experiment promises, and for what must be spared."""
    return [*_service_levels(experiment, seen), *_blast_radius(experiment, seen)]


def _service_levels(experiment: Experiment, seen: Seen) -> Iterator[Check]:
    levels = experiment.service_levels
    figures = figures_of(experiment, seen)
    samples = seen.samples
    trouble_s = first_fault_s(experiment, seen.events)
    after = [sample for sample in samples if sample.t >= trouble_s]
    if levels.recover_s is not None:
        yield _recovery(experiment, levels, levels.recover_s, samples)
    if levels.goodput_min is not None:
        yield goodput_check("goodput_min", levels.goodput_min, windows(samples, experiment.phases[0].duration_s))
    placed = sum(answer.kind == "place" and answer.is_definite and answer.due_s >= trouble_s for answer in seen.answers)
    cancels = len(cancels_outside_replay(seen))
    for name, wanted, figure, unit, looked_at in (
        ("p99_ms_max", levels.p99_ms_max, "p99_ms", "ms", placed),
        ("cancel_p99_ms_max", levels.cancel_p99_ms_max, "cancel_p99_ms", "ms", cancels),
        ("amplification_max", levels.amplification_max, "amplification", "attempts a request", len(after)),
        ("pause_s_max", levels.pause_s_max, "pause_s", "s", placed),
    ):
        if wanted is not None:
            found = figures.get(figure, 0.0)
            yield Check(
                name=name,
                held=bool(looked_at) and found <= wanted,
                wanted=f"at most {wanted:g} {unit}",
                found=f"{found:.2f} {unit}" if looked_at else "nothing to look at",
                looked_at=looked_at,
            )
    if levels.memory_growth_mb_max is not None:
        yield memory_check("memory_growth_mb_max", levels.memory_growth_mb_max, samples)


def _recovery(experiment: Experiment, levels: ServiceLevels, within_s: float, samples: Sequence[Sample]) -> Check:
    looked_at = windows(samples, experiment.trigger_end_s)
    after_s = recovered_after_s(experiment, samples)
    wanted = f"goodput ≥ {levels.recovered_goodput:.0%} within {within_s:g} s of the end of the trigger"
    if not looked_at:
        return Check(name="recover_s", held=False, wanted=wanted, found="nothing was offered after the trigger")
    last = f"{looked_at[-1].goodput:.0%} at the end"
    found = f"never; {last}" if after_s is None else f"after {after_s:.0f} s; {last}"
    held = after_s is not None and after_s <= within_s
    return Check(name="recover_s", held=held, wanted=wanted, found=found, looked_at=len(looked_at))


def goodput_check(name: str, least: float, looked_at: Sequence[Window]) -> Check:
    """Check that goodput is at least so much in every window."""
    wanted = f"goodput ≥ {least:.0%} of what is offered, in every {WINDOW_S} s"
    if not looked_at:
        return Check(name=name, held=False, wanted=wanted, found="nothing was offered")
    worst = min(looked_at, key=lambda window: window.goodput)
    return Check(
        name=name,
        held=worst.goodput >= least,
        wanted=wanted,
        found=f"{worst.goodput:.0%} at worst, from {worst.begin_s:.0f} s on",
        looked_at=len(looked_at),
        evidence=tuple(
            f"{window.begin_s:.0f} s: {window.good:.0f} of {window.offered:.0f}"
            for window in looked_at
            if window.goodput < least
        )[:5],
    )


def memory_check(name: str, growth_mb_max: float, samples: Sequence[Sample]) -> Check:
    """Check that the exchange's processes together grow by no more than that; restarts make it less, never more."""
    memory = [(sample.t, sample.memory_mb) for sample in samples if sample.memory_mb]
    wanted = f"at most {growth_mb_max:g} MB more than at the begin"
    if not memory:
        return Check(name=name, held=False, wanted=wanted, found="no memory was seen")
    first = memory[0][1]
    at, most = max(memory, key=lambda seen: seen[1])
    return Check(
        name=name,
        held=most - first <= growth_mb_max,
        wanted=wanted,
        found=f"{most - first:+.0f} MB at {at} s, {first:.0f} MB at the begin",
        looked_at=len(memory),
    )


def _blast_radius(experiment: Experiment, seen: Seen) -> Iterator[Check]:
    radius = experiment.blast_radius
    if not radius.markets:
        return
    begin_s = experiment.phases[0].duration_s
    spared = [market for market in seen.markets if market not in radius.markets]
    for market in spared:
        looked_at = windows(seen.samples, begin_s, market=market)
        yield goodput_check(f"blast_radius:{market}", radius.goodput_min, looked_at)
        if radius.p99_ms_max is not None:
            answers = [a for a in seen.answers if a.market == market and a.is_definite and a.due_s >= begin_s]
            p99_ms = percentile_ms(answers, 99.0)
            yield Check(
                name=f"blast_radius:{market}:p99_ms",
                held=bool(answers) and p99_ms <= radius.p99_ms_max,
                wanted=f"p99 ≤ {radius.p99_ms_max:g} ms in {market}",
                found=f"{p99_ms:.0f} ms",
                looked_at=len(answers),
            )


# ---------------------------------------------------------------- the rules that samples and events show


def _cancels_are_served(experiment: Experiment, seen: Seen) -> Check:
    """I8: no cancel is refused for load, and outside `REPLAYING` they are answered quickly."""
    cancels = cancels_outside_replay(seen)
    shed = [answer for answer in cancels if answer.outcome == REJECTED and not answer.is_definite]
    p99_ms = percentile_ms([answer for answer in cancels if answer.is_definite], 99.0)
    limit_ms = experiment.service_levels.cancel_p99_ms_max or CANCEL_P99_MS
    is_quick = p99_ms <= limit_ms or len(cancels) < CANCELS_MIN
    return Check(
        name="I8",
        held=not shed and is_quick,
        wanted=f"no cancel refused where cancels are let through, p99 ≤ {limit_ms:g} ms",
        found=f"{len(shed)} of {len(cancels)} refused, p99 {p99_ms:.0f} ms",
        looked_at=len(cancels),
        evidence=tuple(f"{answer.line}: refused after {answer.latency_s * 1e3:.0f} ms" for answer in shed[:5]),
    )


def _load_ends(experiment: Experiment, seen: Seen) -> Check:
    """I11: goodput returns, and what is offered stays below 1.5 times the first attempts."""
    levels = experiment.service_levels
    figures = figures_of(experiment, seen)
    recovery = _recovery(
        experiment, levels, float("inf") if levels.recover_s is None else levels.recover_s, seen.samples
    )
    amplification = figures.get("amplification", 0.0)
    most = levels.amplification_max or AMPLIFICATION_MAX
    return Check(
        name="I11",
        held=recovery.held and 0.0 < amplification <= most,
        wanted=f"{recovery.wanted.replace('within inf s', 'at last')}; at most {most:g} attempts a request",
        found=f"{recovery.found}; {amplification:.2f} attempts a request",
        looked_at=recovery.looked_at,
    )


def _is_bounded(experiment: Experiment, seen: Seen) -> Check:
    """I13: memory is bounded, and nothing restarts that no fault explains."""
    growth_mb_max = experiment.service_levels.memory_growth_mb_max or MEMORY_GROWTH_MB_MAX
    memory = memory_check("I13", growth_mb_max, seen.samples)
    faults = [event for event in seen.events if event.kind == "fault"]
    starts = [event for event in seen.events if event.kind == "component" and event.what == "STARTING" and event.t > 0]
    unexplained = [event for event in starts if not any(0.0 <= event.t - fault.t <= EXPLAINED_S for fault in faults)]
    return Check(
        name="I13",
        held=memory.held and not unexplained,
        wanted=f"{memory.wanted}; no restart that no fault explains",
        found=f"{memory.found}; {len(unexplained)} of {len(starts)} restarts unexplained",
        looked_at=memory.looked_at,
        evidence=tuple(f"{event.t:.1f} s: {event.name} {event.what} {event.detail}" for event in unexplained[:5]),
    )


RULE_CHECKS: dict[str, Callable[[Experiment, Seen], Check]] = {
    "I8": _cancels_are_served,
    "I11": _load_ends,
    "I13": _is_bounded,
}


def check_rules(experiment: Experiment, seen: Seen) -> list[Check]:
    """Return a check of each rule that the experiment names and that follows from what clients and status saw."""
    return [check(experiment, seen) for rule, check in RULE_CHECKS.items() if rule in experiment.invariants]
