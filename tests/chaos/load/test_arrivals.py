"""Arrivals keep to their rates, are the same for the same seed, and bursty where they should be."""

from itertools import pairwise
from random import Random
from statistics import mean, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.load.arrivals import PROCESSES, Phase, arrivals

phases_of_any_kind = st.lists(
    st.builds(Phase, st.floats(0.1, 20), st.floats(0, 200)),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(sorted(PROCESSES)), phases_of_any_kind, st.integers(0, 9))
def test_times_rise_within_the_phases_and_depend_on_the_seed_alone(
    process: str, phases: list[Phase], seed: int
) -> None:
    times = list(arrivals(PROCESSES[process], phases, Random(seed)))
    assert times == list(arrivals(PROCESSES[process], phases, Random(seed)))
    assert all(a <= b for a, b in pairwise(times))
    end_s = sum(phase.duration_s for phase in phases)
    assert all(0 <= time_s <= end_s + 1e-9 for time_s in times)


@given(phases_of_any_kind)
def test_constant_sends_as_many_as_the_rates_make(phases: list[Phase]) -> None:
    expected = sum(phase.duration_s * phase.per_s for phase in phases)
    assert abs(len(list(arrivals(PROCESSES["constant"], phases, Random(0)))) - expected) <= 1


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_the_rate_is_the_phases(process: str) -> None:
    phases = [Phase(100, 50), Phase(50, 0), Phase(100, 200)]
    times = list(arrivals(PROCESSES[process], phases, Random(3)))
    slow = sum(time_s < 100 for time_s in times)
    fast = sum(time_s >= 150 for time_s in times)
    assert slow + fast == len(times)
    assert slow == pytest.approx(5_000, rel=0.1)
    assert fast == pytest.approx(20_000, rel=0.1)


def test_hawkes_comes_in_bursts_and_poisson_does_not() -> None:
    def dispersion(process: str) -> float:
        counts = [0] * 2_000
        for time_s in arrivals(PROCESSES[process], [Phase(2_000, 10)], Random(5)):
            counts[int(time_s)] += 1
        return variance(counts) / mean(counts)

    assert dispersion("poisson") == pytest.approx(1, abs=0.15)
    assert dispersion("hawkes") > 1.5


@pytest.mark.parametrize(("duration_s", "per_s"), [(0, 1), (-1, 1), (1, -1), (1, float("inf")), (float("nan"), 1)])
def test_a_phase_that_makes_no_sense_is_refused(duration_s: float, per_s: float) -> None:
    with pytest.raises(ValueError, match="expected a duration above 0"):
        Phase(duration_s, per_s)
