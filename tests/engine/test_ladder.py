"""The ladder is a sorted set of integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.engine import ladder
from exchange.engine.ladder import Ladder


@given(st.lists(st.integers(-30, 30), max_size=200), st.sampled_from([2, 3, 8]))
def test_it_holds_what_a_set_holds_in_order(toggles: list[int], chunk_max: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "_CHUNK_MAX", chunk_max)
        values, model = Ladder(), set[int]()
        for value in toggles:
            if value in model:
                if value == max(model):
                    values.remove_highest()
                else:
                    values.remove(value)
                model.remove(value)
            else:
                values.add(value)
                model.add(value)
            assert list(values) == sorted(model, reverse=True)
            assert len(values) == len(model)
            assert bool(values) == bool(model)
            if model:
                assert values.highest() == max(model)


@given(st.sets(st.integers(0, 20)), st.integers(0, 20))
def test_removing_what_is_not_there_is_an_error(present: set[int], absent: int) -> None:
    values = Ladder()
    for value in sorted(present - {absent}):
        values.add(value)
    with pytest.raises(KeyError):
        values.remove(absent)


def test_it_stays_sorted_when_it_is_large() -> None:
    values = Ladder()
    for n in range(20_000):
        values.add(n * 7_919 % 20_011)
    for n in range(0, 20_000, 2):
        values.remove(n * 7_919 % 20_011)
    expected = sorted((n * 7_919 % 20_011 for n in range(1, 20_000, 2)), reverse=True)
    assert list(values) == expected
