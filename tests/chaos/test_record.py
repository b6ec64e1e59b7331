"""What a load adds up to: by the intended times, and the latency of the acknowledged alone."""

import pytest

from chaos.load.record import Ending, Kind, Record, Request


def test_a_summary_counts_what_was_due_and_measures_what_was_acknowledged() -> None:
    record = Record(deadline_s=1.0)
    record.requests = [
        Request(Kind.PLACE, 0.5, 0.6, Ending.ACKNOWLEDGED),
        Request(Kind.PLACE, 0.9, 3.9, Ending.ACKNOWLEDGED),
        Request(Kind.CANCEL, 1.0, 1.1, Ending.REFUSED),
        Request(Kind.PLACE, 1.5, 2.5, Ending.UNKNOWN),
        Request(Kind.PLACE, 1.9, late_s=0.3),
        Request(Kind.PLACE, 2.0, 2.1, Ending.ACKNOWLEDGED),
    ]
    record.attempts = [(0.0, 0), (1.0, 3), (2.0, 9), (3.0, 10)]
    summary = record.between(0.0, 2.0)
    assert summary.offered_per_s == 2.5
    assert summary.attempts_per_s == 4.5
    assert summary.amplification == pytest.approx(1.8)
    assert summary.goodput_per_s == 0.5, "what came after its deadline is no good"
    assert summary.p50_ms == pytest.approx(100, rel=0.01)
    assert summary.p99_ms == pytest.approx(3_000, rel=0.01)
    assert (summary.refused, summary.unknown, summary.not_sent) == (1, 1, 1)
    assert summary.late_p99_ms == pytest.approx(300, rel=0.01)
    assert record.between(0.0, 2.0, Kind.CANCEL).offered_per_s == 0.5


def test_nothing_adds_up_to_nothing() -> None:
    summary = Record(1.0).between(0.0, 1.0)
    assert (summary.offered_per_s, summary.amplification, summary.p99_ms) == (0, 0, 0)
