"""Each level is held by what was promised, broken by less, and never held by a run in which nothing was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.experiment.model import BlastRadius, Experiment, ServiceLevels
from chaos.load.client_log import ACKNOWLEDGED, REJECTED, UNKNOWN
from chaos.run.answers import Answer, percentile_ms
from chaos.run.levels import (
    Seen,
    cancels_outside_replay,
    check_levels,
    check_rules,
    figures_of,
    longest_pause_s,
    recovered_after_s,
    times_away,
    times_cut_off,
)
from chaos.run.record import Check, Event, Sample
from tests.chaos.run.fakes import EXPERIMENT, sample_of

TRIGGER_END_S = 30
END_S = 40
MARKET, OTHER = "BTC-USDT", "ETH-USDT"
MARKETS = {MARKET: "shard-0", OTHER: "shard-1"}


def experiment(**changes: Any) -> Experiment:
    return msgspec.structs.replace(EXPERIMENT, **changes)


def samples(goodput: Sequence[float]) -> list[Sample]:
    """One for each second; the rest of the run is good."""
    return [sample_of(t, goodput[t] if t < len(goodput) else 1.0) for t in range(END_S)]


def answer(
    due_s: float, latency_s: float = 0.01, kind: str = "place", outcome: int = ACKNOWLEDGED, **other: Any
) -> Answer:
    fields: dict[str, Any] = {"market": MARKET, "reason": 0, "is_duplicate": False, "line": "client.log:1", **other}
    return Answer(kind=kind, due_s=due_s, done_s=due_s + latency_s, outcome=outcome, **fields)


def event(t: float, kind: Any, name: str, what: str, target: str = "", detail: str = "") -> Event:
    return Event(t=t, kind=kind, name=name, what=what, detail=detail, target=target)


KILLED = event(11.0, "fault", "kill-process", "injected", "shard-0")
BACK = [
    event(11.2, "component", "shard-0", "STARTING"),
    event(13.0, "stage", "shard-0", "CANCEL_ONLY"),
    event(13.1, "component", "shard-0", "UP"),
    event(20.0, "stage", "shard-0", "OPEN"),
]


def seen(of: Sequence[Sample] = (), events: Sequence[Event] = (KILLED, *BACK), answers: Sequence[Answer] = ()) -> Seen:
    return Seen(of or samples([]), events, answers, dict(MARKETS))


def only(checks: Sequence[Check], name: str) -> Check:
    (check,) = [check for check in checks if check.name == name]
    return check


# ---------------------------------------------------------------- recovery


@pytest.mark.parametrize(
    ("bad_until_s", "after_s"), [(0, 0.0), (TRIGGER_END_S, 0.0), (TRIGGER_END_S + 4, 4.0), (END_S, None)]
)
def test_recovery_counts_from_the_end_of_the_trigger_to_the_first_good_window(
    bad_until_s: int, after_s: float | None
) -> None:
    assert recovered_after_s(EXPERIMENT, samples([0.5] * bad_until_s)) == after_s


def test_a_relapse_is_no_recovery() -> None:
    goodput = [1.0] * (END_S - 4) + [0.2] * 4
    assert recovered_after_s(EXPERIMENT, samples(goodput)) is None


def test_what_is_offered_in_one_second_comes_by_chance() -> None:
    goodput = [1.0] * 33 + [0.9] + [1.0] * 6
    assert recovered_after_s(EXPERIMENT, samples(goodput)) == 0.0


@pytest.mark.parametrize(("bad_s", "held"), [(2, True), (6, False)])
def test_recovery_is_held_within_the_time_that_was_promised(bad_s: int, held: bool) -> None:
    levels = ServiceLevels(recover_s=5.0, amplification_max=None)
    run = seen(samples([0.5] * (TRIGGER_END_S + bad_s)))
    check = only(check_levels(experiment(service_levels=levels), run), "recover_s")
    assert check.held is held
    assert f"after {bad_s} s" in check.found


@given(st.lists(st.floats(0.0, 1.0), min_size=END_S, max_size=END_S))
def test_a_recovery_is_followed_by_good_windows_alone(goodput: list[float]) -> None:
    after_s = recovered_after_s(EXPERIMENT, samples(goodput))
    if after_s is None:
        return
    since = int(TRIGGER_END_S + after_s)
    for at in range(since, END_S - 2):
        assert sum(goodput[at : at + 3]) >= 3 * 0.95 - 1e-9


# ---------------------------------------------------------------- delays and pauses


def test_delays_count_from_the_first_fault_and_by_what_was_answered() -> None:
    answers = [answer(1.0, 9.0), answer(12.0, 0.2), answer(12.5, 0.4), answer(13.0, 5.0, outcome=UNKNOWN)]
    figures = figures_of(EXPERIMENT, seen(answers=answers))
    assert figures["p99_ms"] == pytest.approx(400.0)
    levels = ServiceLevels(p99_ms_max=300.0, amplification_max=None)
    check = only(check_levels(experiment(service_levels=levels), seen(answers=answers)), "p99_ms_max")
    assert not check.held
    assert check.looked_at == 2


@pytest.mark.parametrize(
    "levels",
    [
        ServiceLevels(p99_ms_max=300.0, amplification_max=None),
        ServiceLevels(cancel_p99_ms_max=250.0, amplification_max=None),
        ServiceLevels(pause_s_max=2.0, amplification_max=None),
        ServiceLevels(memory_growth_mb_max=10.0, amplification_max=None),
    ],
)
def test_a_level_of_which_nothing_was_seen_has_not_held(levels: ServiceLevels) -> None:
    (check,) = check_levels(experiment(service_levels=levels), seen())
    assert not check.held
    assert check.looked_at == 0


def test_a_pause_is_between_new_orders_of_a_market_and_to_the_end() -> None:
    answers = [answer(10.0), answer(11.0), answer(19.0), answer(12.0, market=OTHER), answer(19.5, market=OTHER)]
    assert longest_pause_s(answers, 10.0, 20.0) == pytest.approx(8.0)
    assert longest_pause_s(answers, 10.0, 30.0) == pytest.approx(11.0, abs=0.1)
    assert longest_pause_s([], 0.0, 10.0) == 0.0
    duplicates = [answer(10.0), answer(15.0, is_duplicate=True), answer(20.0)]
    assert longest_pause_s(duplicates, 10.0, 20.0) == pytest.approx(10.0, abs=0.1)


def test_a_market_that_takes_no_new_order_any_more_pauses_to_the_end() -> None:
    answers = [answer(9.0), answer(12.0, outcome=UNKNOWN), answer(13.0, outcome=REJECTED, reason=504)]
    assert longest_pause_s(answers, 10.0, 20.0) == pytest.approx(10.0)


def test_the_percentile_of_one_is_it_and_of_none_is_nothing() -> None:
    assert percentile_ms([answer(1.0, 0.5)], 99.0) == pytest.approx(500.0)
    assert percentile_ms([], 99.0) == 0.0


# ---------------------------------------------------------------- cancels (I8)


def test_a_shard_is_away_from_the_fault_until_it_lets_cancels_through() -> None:
    assert times_away([KILLED, *BACK], "shard-0", 40.0) == [(11.0, 13.0)]
    assert times_away([KILLED], "shard-0", 40.0) == [(11.0, 40.0)]
    assert times_away([KILLED, *BACK], "shard-1", 40.0) == []


def test_a_shard_is_away_whose_node_is_cut_off_until_its_standby_has_taken_over() -> None:
    cut = event(11.0, "fault", "cut-peers", "injected", "node-1", "of shard-0")
    taken_over = event(12.5, "stage", "shard-0", "CANCEL_ONLY")
    healed = event(15.0, "rollback", "cut-peers", "taken back", "node-1", "of shard-0")
    assert times_away([cut, taken_over, healed], "shard-0", 40.0) == [(11.0, 12.5)]
    assert times_away([cut, healed], "shard-0", 40.0) == [(11.0, 16.0)], "where none takes over, until it is healed"
    assert times_away([cut, healed], "shard-1", 40.0) == []


def test_a_shard_that_is_halted_stays_away_when_another_fault_is_taken_back() -> None:
    slowed = event(5.0, "fault", "slow-machine", "injected", "shard-0")
    halted = event(15.0, "stage", "shard-0", "HALTED")
    healed = event(20.0, "rollback", "slow-machine", "taken back", "shard-0")
    opened = event(22.0, "stage", "shard-0", "CANCEL_ONLY")
    assert times_away([slowed, halted, healed, opened], "shard-0", 40.0) == [(5.0, 22.0)]


def cancels(count: int, **of: Any) -> list[Answer]:
    return [answer(20.0 + n / 100, kind="cancel", **of) for n in range(count)]


def i8(answers: Sequence[Answer]) -> Check:
    return only(check_rules(EXPERIMENT, seen(answers=answers)), "I8")


def test_a_cancel_that_is_refused_where_cancels_are_let_through_breaks_i8() -> None:
    assert i8(cancels(30)).held
    shed = i8([*cancels(30), answer(25.0, kind="cancel", outcome=REJECTED, line="maker.log:7")])
    assert not shed.held
    assert shed.evidence == ("maker.log:7: refused after 10 ms",)


def test_a_cancel_of_an_order_that_is_gone_is_an_answer() -> None:
    assert i8([*cancels(30), answer(25.0, kind="cancel", outcome=REJECTED, reason=7)]).held


def test_while_its_shard_is_away_a_cancel_may_be_refused() -> None:
    assert i8([*cancels(30), answer(12.0, kind="cancel", outcome=REJECTED)]).held


def test_clients_that_are_cut_off_are_not_answered_in_time_and_that_is_not_the_exchanges() -> None:
    cut = [
        event(11.0, "fault", "blackhole", "injected", "gateway-0"),
        event(13.0, "rollback", "blackhole", "taken back", "gateway-0"),
        event(20.0, "fault", "kill-process", "injected", "gateway-1"),
        event(39.0, "rollback", "kill-process", "taken back", "gateway-1"),
        event(30.0, "fault", "slow-disk", "injected", "ledger"),
    ]
    assert times_cut_off(cut, END_S) == [(11.0, 15.0), (20.0, 22.0)], "a process that is killed is not taken back"
    slow = [answer(due_s, 1.5, "cancel") for due_s in (11.5, 12.0, 20.5)] * 10
    prompt = [answer(25.0 + n / 10, 0.1, "cancel") for n in range(30)]
    assert figures_of(experiment(), Seen(samples([]), cut, slow + prompt, MARKETS))["cancel_p99_ms"] == pytest.approx(
        100
    )


def test_clients_of_a_node_that_is_cut_off_are_left_out_and_no_others() -> None:
    cut = [
        event(11.0, "fault", "cut-peers", "injected", "node-1"),
        event(19.0, "rollback", "cut-peers", "taken back", "node-1"),
    ]
    at_node_1, elsewhere = (
        [answer(due_s, 0.9, "cancel", gateway=gateway) for due_s in (12.0, 15.0)] for gateway in ("a:1", "b:1")
    )
    nodes = {"a:1": "node-1", "b:1": "node-2"}
    run = Seen(samples([]), cut, [*at_node_1, *elsewhere], MARKETS, nodes)
    assert cancels_outside_replay(run) == elsewhere


def test_slow_cancels_break_i8() -> None:
    assert not i8(cancels(30, latency_s=0.4)).held


# ---------------------------------------------------------------- I11, I13, what is to be spared


def test_a_retry_storm_breaks_i11() -> None:
    storm = [msgspec.structs.replace(sample, attempts_per_s=700.0) for sample in samples([])]
    assert only(check_rules(EXPERIMENT, seen(samples([]))), "I11").held
    check = only(check_rules(EXPERIMENT, seen(storm)), "I11")
    assert not check.held
    assert "7.00 attempts a request" in check.found


def test_memory_that_grows_breaks_i13_and_memory_that_nobody_saw_too() -> None:
    grown = [msgspec.structs.replace(s, memory_mb=500.0 + 100.0 * s.t) for s in samples([])]
    steady = [msgspec.structs.replace(s, memory_mb=500.0) for s in samples([])]
    assert only(check_rules(EXPERIMENT, seen(steady)), "I13").held
    assert not only(check_rules(EXPERIMENT, seen(grown)), "I13").held
    assert not only(check_rules(EXPERIMENT, seen(samples([]))), "I13").held


def test_a_restart_that_no_fault_explains_breaks_i13() -> None:
    steady = [msgspec.structs.replace(s, memory_mb=500.0) for s in samples([])]
    before = event(5.0, "component", "gateway-0", "STARTING", detail="gone")
    check = only(check_rules(EXPERIMENT, seen(steady, [before, KILLED, *BACK])), "I13")
    assert not check.held
    assert check.evidence == ("5.0 s: gateway-0 STARTING gone",)


def test_rules_that_the_experiment_does_not_name_are_not_looked_at() -> None:
    assert check_rules(experiment(invariants=("I1",)), seen()) == []


def test_the_markets_outside_the_blast_radius_stay_as_they_were() -> None:
    def both(sample: Sample, other: float) -> Sample:
        offered = {MARKET: 50.0, OTHER: 50.0}
        return msgspec.structs.replace(
            sample, offered_by_market=offered, goodput_by_market={MARKET: 0.0, OTHER: 50.0 * other}
        )

    radius = BlastRadius(markets=(MARKET,), goodput_min=0.9)
    spared = experiment(blast_radius=radius, service_levels=ServiceLevels(amplification_max=None))
    (good,) = check_levels(spared, seen([both(sample, 1.0) for sample in samples([])]))
    (bad,) = check_levels(spared, seen([both(sample, 0.5) for sample in samples([])]))
    assert good.name == bad.name == f"blast_radius:{OTHER}"
    assert good.held
    assert not bad.held
    assert bad.evidence
