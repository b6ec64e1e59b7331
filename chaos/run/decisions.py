"""What the figures say while a run goes on: whether there is a steady state, and whether to end it early."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.experiment.model import AbortWhen, SteadyState
from chaos.run.record import Check, Sample

WARM_UP_S = 2
"""Of a steady state; connections are made, caches filled."""
LATE_WINDOW_S = 5


def steady_state(wanted: SteadyState, samples: Sequence[Sample]) -> Check:
    """Look at the samples of the first phase. The p99 is that of its median second: one second's is one request's."""
    looked_at = [s for s in samples if s.t >= WARM_UP_S and s.offered_per_s] or [s for s in samples if s.offered_per_s]
    promised = f"goodput ≥ {wanted.goodput_min:.0%}, p99 ≤ {wanted.p99_ms_max:g} ms"
    if not looked_at:
        return Check(name="steady_state", held=False, wanted=promised, found="nothing was offered")
    goodput = sum(s.goodput_per_s for s in looked_at) / sum(s.offered_per_s for s in looked_at)
    p99s = sorted(max((delay.p99_ms for delay in s.delays.values()), default=0.0) for s in looked_at)
    p99_ms = p99s[len(p99s) // 2]
    return Check(
        name="steady_state",
        held=goodput >= wanted.goodput_min and p99_ms <= wanted.p99_ms_max,
        wanted=promised,
        found=f"goodput {goodput:.1%}, p99 {p99_ms:.0f} ms",
        looked_at=len(looked_at),
    )


def reason_to_abort(when: AbortWhen, memory_mb: float, disk_free_mb: float, late_p99s_ms: Sequence[float]) -> str:
    """Return why the run is to end now; empty: it goes on. `late_p99s_ms`: of the load generator, second by second."""
    if disk_free_mb < when.disk_mb_below:
        return f"expected at least {when.disk_mb_below:g} MB free where the data is, found {disk_free_mb:.0f}"
    if memory_mb > when.memory_mb_above:
        return f"expected at most {when.memory_mb_above:g} MB in the exchange's processes, found {memory_mb:.0f}"
    late_ms_max = when.generator_late_ms_above
    recent = late_p99s_ms[-LATE_WINDOW_S:]
    if late_ms_max is not None and len(recent) == LATE_WINDOW_S and min(recent) > late_ms_max:
        found = f"found at least {min(recent):.0f} ms in each of the last {LATE_WINDOW_S} s"
        return f"expected a load generator that is at most {late_ms_max:g} ms late (p99), {found}"
    return ""
