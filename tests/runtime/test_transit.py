"""How long batches were on their way, whatever the clocks of both ends show."""

from __future__ import annotations

import pytest

from exchange.runtime.transit import WINDOW_S, Transit


class Way:
    """A link to a host whose clock is `offset_s` ahead; `now_s` is the link's clock."""

    def __init__(self, offset_s: float) -> None:
        self.transit = Transit()
        self.offset_s = offset_s
        self.now_s = 1_000.0
        self.incarnation = 1

    def send(self, way_s: float) -> float:
        """Send a batch that takes so long; return what the host makes of it, in ms."""
        sent_s = self.now_s
        self.now_s += way_s
        return 1_000 * self.transit.waited_s("gateway-0", self.incarnation, sent_s, self.now_s + self.offset_s)


@pytest.mark.parametrize("offset_s", [-86_400.0, 0.0, 1e6])
def test_a_batch_that_lay_before_a_paused_host_has_waited_so_long(offset_s: float) -> None:
    way = Way(offset_s)
    assert [way.send(0.002) for _ in range(5)] == [pytest.approx(0, abs=0.01)] * 5
    assert way.send(3.002) == pytest.approx(3_000, abs=0.01)
    assert way.send(0.003) == pytest.approx(1, abs=0.01)


def test_of_a_first_batch_nothing_is_known() -> None:
    way = Way(50.0)
    assert way.send(3.0) == 0.0
    way.incarnation = 2
    way.offset_s = -7_000.0
    assert way.send(0.5) == 0.0
    assert way.send(1.5) == pytest.approx(1_000, abs=0.01)


def test_a_link_that_was_idle_for_an_hour_is_still_known() -> None:
    way = Way(50.0)
    way.send(0.002)
    way.now_s += 3_600
    assert way.send(2.002) == pytest.approx(2_000, abs=0.01)


def test_a_clock_that_jumps_makes_batches_late_for_two_windows_at_most() -> None:
    way = Way(50.0)
    for _ in range(10):
        way.send(0.1)
    way.offset_s += 5.0
    jumped_s = way.now_s
    while way.send(0.1) > 1:
        assert way.now_s - jumped_s < 2 * WINDOW_S + 0.3
    assert way.send(0.1) < 1


def test_clocks_that_drift_apart_make_nothing_late() -> None:
    way = Way(50.0)
    late_ms = []
    for _ in range(1_000):
        way.offset_s += 0.1 * 1e-3
        late_ms.append(way.send(0.1))
    assert max(late_ms) < 2.5
