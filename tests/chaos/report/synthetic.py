"""Writes the directory of a run that never was: a restart into a surge, with the policies on and without them."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import msgspec
from hdrh.histogram import HdrHistogram

from chaos.experiment import library
from chaos.run.record import (
    EVENTS_FILE,
    EXPERIMENT_FILE,
    HISTOGRAMS_FILE,
    MANIFEST_FILE,
    SAMPLES_FILE,
    VERDICT_FILE,
    Check,
    Delay,
    Event,
    LineWriter,
    Manifest,
    Sample,
    Verdict,
)

BEGUN = "2026-11-25T20:00:00.000Z"
STEADY_S, SURGE_END_S, END_S = 10, 30, 75
PER_S, CAPACITY_PER_S = 100.0, 150.0
STAGES = ((0.0, "OPEN"), (14.2, "CANCEL_ONLY"), (16.4, "POST_ONLY"), (19.0, "LIMITED"), (29.4, "OPEN"))


def samples_of(*, is_naive: bool, seed: int) -> list[Sample]:
    """Return the seconds of a run. Naive: nothing is done in time once the shard is back, and all ask again."""
    rng = random.Random(seed)
    samples = []
    for t in range(END_S):
        offered = PER_S * (2.0 if STEADY_S <= t < SURGE_END_S else 1.0) + rng.gauss(0, 4)
        is_down = 11 <= t < 14
        done = 0.0 if is_down else min(offered, CAPACITY_PER_S * min(1.0, 0.4 + 0.1 * max(t - 14, 0)))
        if t < 11:
            done = min(offered, CAPACITY_PER_S)
        goodput = min(offered, max(rng.gauss(3, 2), 0)) if is_naive and t >= 14 else done
        refused = 0.0 if is_naive or is_down else max(offered - done, 0.0)
        attempts = offered * min(7.0, 1 + 0.5 * max(t - 10, 0)) if is_naive and t >= 11 else offered + 0.3 * refused
        slow = 900.0 if is_naive and t >= 14 else 60.0 + 5 * max(0, 30 - t) if t >= 11 else 20.0
        delays = {
            kind: Delay(
                count=int(goodput * share),
                p50_ms=slow * factor * rng.uniform(0.3, 0.4),
                p99_ms=slow * factor * rng.uniform(0.9, 1.4),
                max_ms=slow * factor * 1.6,
            )
            for kind, share, factor in (("place", 0.6, 1.0), ("cancel", 0.3, 0.5), ("query", 0.1, 0.3))
        }
        stage = next(name for at_s, name in reversed(STAGES) if at_s <= t)
        samples.append(
            Sample(
                t=t,
                offered_per_s=offered,
                attempts_per_s=attempts,
                goodput_per_s=goodput,
                refused_per_s=refused,
                unknown_per_s=offered if is_down else 0.0,
                not_sent_per_s=0.0,
                delays=delays,
                stages={"shard-0": stage},
                goodput_by_market={"BTC-USDT": goodput},
                offered_by_market={"BTC-USDT": offered},
                memory_mb=480 + t * (1.5 if is_naive else 0.2),
                late_p99_ms=4.0,
            )
        )
    return samples


def events_of(*, is_naive: bool) -> list[Event]:
    events = [
        Event(t=-2.0, kind="note", name="exchange", what="starting"),
        Event(t=0.0, kind="phase", name="steady", what="begun"),
        Event(t=10.0, kind="phase", name="restart-into-surge", what="begun"),
        Event(t=11.0, kind="fault", name="kill-process", what="injected", target="shard-0"),
        Event(t=11.1, kind="proof", name="kill-process", what="took effect", detail="4711 is gone", target="shard-0"),
        Event(t=11.2, kind="component", name="shard-0", what="DOWN", detail="no answer for 1000 ms"),
        Event(t=30.0, kind="phase", name="aftermath", what="begun"),
        Event(t=75.0, kind="rollback", name="kill-process", what="taken back", target="shard-0"),
        Event(t=75.0, kind="sometimes", name="shed", what="seen"),
    ]
    stages = (*STAGES[:1], (14.2, "OPEN")) if is_naive else STAGES
    events += [Event(t=at_s, kind="stage", name="shard-0", what=stage) for at_s, stage in stages]
    return sorted(events, key=lambda event: event.t)


def verdict_of(name: str, *, is_naive: bool) -> Verdict:
    recovered = "not by the end, 45 s after the trigger" if is_naive else "3.0 s"
    checks = (
        Check(name="steady_state", held=True, wanted="goodput ≥ 95%", found="goodput 100%", looked_at=10),
        Check(name="recover_s", held=not is_naive, wanted="≤ 30 s", found=recovered, looked_at=45),
        Check(name="cancel_p99_ms_max", held=True, wanted="≤ 250 ms", found="118 ms", looked_at=1_830),
        Check(name="I1", held=True, wanted="no acknowledged order lost", found="none of 5,120", looked_at=5_120),
        Check(name="I2", held=True, wanted="each order once", found="none twice", looked_at=5_120),
        Check(
            name="I11",
            held=not is_naive,
            wanted="goodput ≥ 95% within 30 s, ≤ 1.5 attempts a request",
            found="goodput 3%, 6.9 attempts" if is_naive else "goodput 100%, 1.1 attempts",
            looked_at=75,
            evidence=("second 44: goodput 2 of 101", "second 45: goodput 4 of 98") if is_naive else (),
        ),
        Check(name="sometimes:shed", held=True, wanted="at least once", found="412 times", looked_at=412),
    )
    figures = {"goodput": 0.22 if is_naive else 0.93, "cancel_p99_ms": 118.0, "p99_ms": 1_220.0 if is_naive else 310.0}
    return Verdict(
        name=name,
        expect="deviate" if is_naive else "hold",
        exit_code=0,
        summary="deviated, as expected: recover_s, I11" if is_naive else f"held: all of {len(checks)} checks",
        checks=checks,
        figures=figures if is_naive else {**figures, "recover_s": 3.0},
    )


def write_run(
    directory: Path,
    *,
    is_naive: bool = False,
    seed: int = 1,
    begun_utc: str = BEGUN,
    verdict: Verdict | None = None,
    events: list[Event] | None = None,
    with_histograms: bool = True,
) -> Path:
    """Write a run's directory and return it."""
    name = "okx-2023-07-05-naive" if is_naive else "okx-2023-07-05"
    source = library.load(name)
    directory.mkdir(parents=True)
    (directory / EXPERIMENT_FILE).write_text(source.text, encoding="utf-8")
    manifest = Manifest(
        name=name,
        seed=seed,
        begun_utc=begun_utc,
        begun_monotonic_ns=0,
        versions={"evenkeel": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "kernel": "6.1"},
        schedule_sha256=hashlib.sha256(str(seed).encode()).hexdigest(),
        configuration_sha256="c" * 64,
        command=("chaos", "run", name, "--seed", str(seed)),
        cores=2,
    )
    (directory / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
    samples = samples_of(is_naive=is_naive, seed=seed)
    for file, lines in ((EVENTS_FILE, events or events_of(is_naive=is_naive)), (SAMPLES_FILE, samples)):
        with LineWriter(directory / file) as writer:
            for line in lines:
                writer.write(line)
    (directory / VERDICT_FILE).write_bytes(msgspec.json.encode(verdict or verdict_of(name, is_naive=is_naive)))
    if with_histograms:
        _write_histograms(directory / HISTOGRAMS_FILE, samples)
    return directory


def _write_histograms(path: Path, samples: list[Sample]) -> None:
    """Write an interval for each class and second: half of the requests at p50, then in even steps up to the most."""
    with path.open("w", encoding="utf-8") as file:
        file.write("#[Histogram log format version 1.3]\n")
        for sample in samples:
            for kind, delay in sample.delays.items():
                histogram = HdrHistogram(1, 24 * 3600 * 1_000_000, 3)
                for number in range(delay.count):
                    above = max(2 * number / delay.count - 1, 0.0)
                    spread_ms = delay.p50_ms + (delay.p99_ms - delay.p50_ms) * above**3
                    histogram.record_value(int(spread_ms * 1_000))
                most_ms = histogram.get_max_value() / 1_000
                # By hand: the library's own writer knows no tags.
                file.write(f"Tag={kind},{sample.t:.3f},1.000,{most_ms:.3f},{histogram.encode().decode()}\n")
