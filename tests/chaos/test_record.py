"""Histograms keep durations to three digits."""

import pytest

from chaos.load.record import histogram_of


def test_percentiles_are_those_of_the_durations() -> None:
    histogram = histogram_of([0.1] * 90 + [3.0] * 10)
    assert histogram.get_value_at_percentile(50) / 1e6 == pytest.approx(0.1, rel=0.001)
    assert histogram.get_value_at_percentile(99) / 1e6 == pytest.approx(3.0, rel=0.001)


def test_no_durations_have_no_percentile() -> None:
    assert histogram_of([]).get_value_at_percentile(99) == 0
