"""What happened in a run, derived from its events and samples: phases, faults, stages, figures, percentiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from chaos.faults.catalogue import CATALOGUE
from chaos.load.histograms import percentile_ms
from chaos.report.latencies import merged
from chaos.report.reading import Run
from chaos.run.record import Delay, Sample

DOWN = "DOWN"
_UP = "UP"
_ALIVE = frozenset({"UP", "SUSPECT"})
_PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted, in s since the load began."""

    name: str
    begin_s: float
    end_s: float
    detail: str = ""
    is_trigger: bool = False


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Latency of a class of requests in a phase, in ms. `is_exact`: of all requests, from their histogram; otherwise
    p50 is of the median second and p99 of the worst one."""

    kind: str
    phase: str
    count: int
    p50_ms: float
    p90_ms: float | None
    p99_ms: float
    p999_ms: float | None
    max_ms: float
    is_exact: bool


def phases_of(run: Run) -> list[Span]:
    """Return the phases as they were, or as planned if the log does not say."""
    triggers = {phase.name for phase in run.experiment.phases if phase.is_trigger} if run.experiment else set()
    begun = [(event.t, event.name) for event in run.events if event.kind == "phase" and event.what == "begun"]
    if not begun and run.experiment:
        begin_s = 0.0
        for phase in run.experiment.phases:
            begun.append((begin_s, phase.name))
            begin_s += phase.duration_s
    if not begun:
        return []
    ends = [at_s for at_s, _ in begun[1:]] + [run.end_s]
    return [
        Span(name, at_s, max(end_s, at_s), is_trigger=name in triggers)
        for (at_s, name), end_s in zip(begun, ends, strict=True)
    ]


def faults_of(run: Run) -> list[Span]:
    """Return each fault from its injection until it was taken back, or, if it does not last, until it was proven."""
    open_faults: dict[tuple[str, str], Span] = {}
    done: list[Span] = []

    def label(name: str, target: str) -> str:
        return f"{name} {target}".strip()

    for event in run.events:
        key = (event.name, event.target)
        if event.kind == "fault" and event.what == "injected":
            if key in open_faults:
                done.append(open_faults.pop(key))
            open_faults[key] = Span(label(*key), event.t, run.end_s if _lasts(event.name) else event.t, event.detail)
        elif event.kind == "proof" and key in open_faults:
            fault = open_faults[key]
            end_s = fault.end_s if _lasts(event.name) else event.t
            open_faults[key] = Span(fault.name, fault.begin_s, end_s, event.detail or fault.detail)
        elif event.kind == "rollback" and key in open_faults:
            fault = open_faults.pop(key)
            done.append(Span(fault.name, fault.begin_s, event.t if _lasts(event.name) else fault.end_s, fault.detail))
    return sorted([*done, *open_faults.values()], key=lambda fault: fault.begin_s)


def _lasts(fault: str) -> bool:
    """Whether a fault goes on until it is taken back; one that nobody knows is taken to."""
    return fault not in CATALOGUE or CATALOGUE[fault].lasts


def stages_of(run: Run) -> dict[str, list[Span]]:
    """Return the stages of each shard; between its loss and its next stage it is `DOWN`."""
    changes: dict[str, list[tuple[float, str, str]]] = {}
    for event in run.events:
        if event.kind == "stage":
            changes.setdefault(event.name, []).append((event.t, event.what, event.detail))
    if not changes:
        for sample in run.samples:
            for shard, stage in sample.stages.items():
                changes.setdefault(shard, []).append((float(sample.t), stage, ""))
    for event in run.events:
        if event.kind != "component" or event.name not in changes:
            continue
        if event.what not in _ALIVE:
            changes[event.name].append((event.t, DOWN, event.detail))
        elif event.what == _UP:
            changes[event.name].append((event.t, _UP, ""))
    seen = {(shard, sample.t): stage for sample in run.samples for shard, stage in sample.stages.items()}
    for shard, found in changes.items():
        found.sort()
        # Without policies a shard that comes back tells no stage: then it is in the one that was seen a second later.
        for number, (at_s, stage, detail) in enumerate(found):
            if stage == _UP:
                before = found[number - 1][1] if number else _UP
                after = seen.get((shard, int(at_s) + 1), _UP)
                found[number] = (at_s, after if before == DOWN else before, detail)
    return {shard: _joined(sorted(found), run.end_s) for shard, found in sorted(changes.items())}


def _joined(changes: Sequence[tuple[float, str, str]], end_s: float) -> list[Span]:
    spans: list[Span] = []
    for at_s, stage, detail in changes:
        if spans and spans[-1].name == stage:
            continue
        if spans:
            last = spans[-1]
            spans[-1] = Span(last.name, last.begin_s, at_s, last.detail)
        spans.append(Span(stage, at_s, end_s, detail))
    return [Span(s.name, max(s.begin_s, 0.0), min(s.end_s, end_s), s.detail) for s in spans if s.end_s > 0.0]


def trigger_of(run: Run) -> tuple[float, float]:
    """Return when the trouble begins and when it is over; without any, the end of the run twice."""
    phases, faults = phases_of(run), faults_of(run)
    triggers = [phase for phase in phases if phase.is_trigger]
    begin_s = min([*(phase.begin_s for phase in triggers), *(fault.begin_s for fault in faults)], default=run.end_s)
    if triggers:
        return begin_s, triggers[-1].end_s
    troubled = [phase for phase in phases if any(phase.begin_s <= fault.begin_s < phase.end_s for fault in faults)]
    return begin_s, troubled[-1].end_s if troubled else begin_s


def figures_of(run: Run) -> dict[str, float]:
    """Return the figures of the verdict, and with them those that samples alone give, under the same names."""
    samples = run.samples
    figures: dict[str, float] = {}
    offered = sum(sample.offered_per_s for sample in samples)
    if offered:
        figures["goodput"] = sum(sample.goodput_per_s for sample in samples) / offered
        figures["amplification"] = sum(sample.attempts_per_s for sample in samples) / offered
        figures["refused"] = sum(sample.refused_per_s for sample in samples) / offered
        figures["unknown"] = sum(sample.unknown_per_s for sample in samples) / offered
    if samples:
        figures["memory_mb_max"] = max(sample.memory_mb for sample in samples)
        figures["late_p99_ms"] = max(sample.late_p99_ms for sample in samples)
    if run.verdict is not None:
        figures.update(run.verdict.figures)
    return figures


def latency_rows(run: Run) -> list[LatencyRow]:
    """Return latency by class and phase; a class's rows are together."""
    phases = phases_of(run) or [Span("all", 0.0, run.end_s)]
    if run.latencies:
        return list(_exact_rows(run, phases))
    kinds = dict.fromkeys(kind for sample in run.samples for kind in sample.delays)
    rows = []
    for kind in kinds:
        for phase in phases:
            delays = [s.delays[kind] for s in run.samples if kind in s.delays and phase.begin_s <= s.t < phase.end_s]
            if counted := [delay for delay in delays if delay.count]:
                rows.append(_row_of_seconds(kind, phase.name, counted))
    return rows


def _row_of_seconds(kind: str, phase: str, delays: Sequence[Delay]) -> LatencyRow:
    return LatencyRow(
        kind,
        phase,
        sum(delay.count for delay in delays),
        median(delay.p50_ms for delay in delays),
        None,
        max(delay.p99_ms for delay in delays),
        None,
        max(delay.max_ms for delay in delays),
        is_exact=False,
    )


def _exact_rows(run: Run, phases: Sequence[Span]) -> Iterable[LatencyRow]:
    for kind in dict.fromkeys(latency.kind for latency in run.latencies):
        for phase in phases:
            histogram = merged(
                one for one in run.latencies if one.kind == kind and phase.begin_s <= one.t < phase.end_s
            )
            if not histogram.get_total_count():
                continue
            p50, p90, p99, p999 = (percentile_ms(histogram, percentile) for percentile in _PERCENTILES)
            count, highest_ms = int(histogram.get_total_count()), percentile_ms(histogram, 100)
            yield LatencyRow(kind, phase.name, count, p50, p90, p99, p999, highest_ms, is_exact=True)


def series(samples: Iterable[Sample], value: Callable[[Sample], float | None]) -> list[tuple[float, float | None]]:
    """Return a curve: each second at its middle. A second that is missing is a gap."""
    points: list[tuple[float, float | None]] = []
    for sample in samples:
        if points and sample.t + 0.5 - points[-1][0] > 1.0:
            points.append((points[-1][0] + 1.0, None))
        points.append((sample.t + 0.5, value(sample)))
    return points
