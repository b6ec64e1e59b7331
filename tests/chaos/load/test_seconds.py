"""Seconds of a load: what is counted where, told when, merged how."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chaos.load.histograms import HistogramLog, decoded, encoded, new_histogram, percentile_ms, record
from chaos.load.seconds import OPEN_S_MAX, Seconds, merged
from chaos.load.total import total_of
from chaos.report.latencies import read_latencies

durations = st.lists(st.floats(0.0, 10.0), max_size=50)


def histogram_text(durations_s: list[float]) -> str:
    histogram = new_histogram()
    for duration_s in durations_s:
        record(histogram, duration_s)
    return encoded(histogram)


@given(durations, durations)
def test_merged_histograms_are_that_of_all_values(some: list[float], others: list[float]) -> None:
    parts = decoded([histogram_text(some), histogram_text(others)])
    assert parts.total_count == len(some) + len(others)
    assert percentile_ms(parts, 99.0) == percentile_ms(decoded([histogram_text(some + others)]), 99.0)


def one_request(seconds: Seconds, at_s: float) -> None:
    seconds.due(at_s, "place", "BTC-USDT")
    seconds.sent(at_s, 0.0005)


def test_a_request_counts_in_the_second_in_which_it_was_due_whenever_it_ends() -> None:
    seconds = Seconds({"g": 1.0})
    one_request(seconds, 0.9)
    one_request(seconds, 1.1)
    assert seconds.complete(2.5, 10.0) == [], "the first one has no answer yet"
    seconds.answered(0.9, "place", "BTC-USDT", "g", 2.0, rejected=False)
    (first,) = seconds.complete(2.5, 10.0)
    assert (first.t, first.requests, first.good) == (0, 1, 0), "answered, but after its deadline"
    seconds.answered(1.1, "place", "BTC-USDT", "g", 0.5, rejected=False)
    (second,) = seconds.complete(2.5, 10.0)
    assert (second.t, second.good, second.good_by_market) == (1, 1, {"BTC-USDT": 1})


def test_a_second_is_told_in_the_end_and_what_is_open_then_is_unknown() -> None:
    seconds = Seconds({"g": 1.0})
    one_request(seconds, 0.5)
    (second,) = seconds.complete(1.0 + OPEN_S_MAX, 1.0)
    assert second.unknown == 1
    seconds.unknown(0.5)
    assert seconds.complete(100.0, 1.0) == []


def test_a_total_says_that_the_generator_could_not_keep_its_schedule() -> None:
    seconds = Seconds({"g": 1.0})
    one_request(seconds, 0.5)
    seconds.sent(0.5, 0.05)
    seconds.refused(0.5, "QUEUE_FULL")
    (second,) = seconds.complete(3.0, 1.0)
    assert not total_of([second]).kept_schedule
    assert "did NOT keep its schedule" in total_of([second]).statement
    assert total_of([second], late_p99_ms_max=100.0).kept_schedule
    twice = total_of([merged([second, second])], late_p99_ms_max=100.0)
    assert twice.refused == {"QUEUE_FULL": 2}


def test_what_was_not_sent_is_counted_and_breaks_the_schedule() -> None:
    seconds = Seconds({"g": 1.0})
    one_request(seconds, 0.5)
    seconds.not_sent(0.5)
    total = total_of(seconds.complete(3.0, 1.0))
    assert (total.not_sent, total.kept_schedule) == (1, False)


def test_histograms_are_written_as_reports_and_other_tools_read_them(tmp_path: Path) -> None:
    path = tmp_path / "load.hlog"
    log = HistogramLog(path)
    log.write(2.0, {"place": histogram_text([0.001, 0.002]), "query": histogram_text([0.003])})
    log.write(3.0, {"place": histogram_text([0.004])})
    log.close()
    found = [(latency.kind, latency.t, latency.histogram.get_total_count()) for latency in read_latencies(path)]
    assert found == [("place", 2.0, 2), ("query", 2.0, 1), ("place", 3.0, 1)]
