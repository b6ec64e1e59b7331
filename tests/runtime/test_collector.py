"""What the collector is kept off, and what it still collects."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from exchange.runtime.collector import collector_off, collector_spared


class Cycle:
    """Holds itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_made_meanwhile_is_never_looked_at() -> None:
    before = gc.get_freeze_count()
    with collector_spared():
        collections = gc.get_stats()[0]["collections"]
        kept = [[n] for n in range(10 * gc.get_threshold()[0])]
        assert gc.get_stats()[0]["collections"] == collections
    assert gc.get_freeze_count() - before >= len(kept)
    assert not any(thing is kept[0] for thing in gc.get_objects())


def test_cycles_of_before_are_collected() -> None:
    garbage = weakref.ref(Cycle())
    assert garbage() is not None
    with collector_spared():
        assert garbage() is None


def test_what_is_no_longer_referred_to_goes_at_once() -> None:
    with collector_spared():
        kept = {Cycle()}
    gone = weakref.ref(next(iter(kept)))
    kept.pop().__dict__.clear()
    assert gone() is None


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_as_it_was_whatever_happens(was_on: bool) -> None:
    def fail() -> None:
        with collector_spared(), collector_off():
            assert not gc.isenabled()
            raise ZeroDivisionError

    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
