"""Each policy under a clock of its own: that it fires, when it does, and what always holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.overload.account_limits import CANCELS_FACTOR, AccountLimits, Tier
from exchange.overload.breaker import PROBE_S, Breaker
from exchange.overload.classes import ShedReason, WorkClass
from exchange.overload.codel import Codel
from exchange.overload.credits import CREDITS_MAX, KEPT_MIN, Credits
from exchange.overload.delays import Delays
from exchange.overload.load import INTERVAL_S, Load
from exchange.overload.pushback import LEAST_MS, NEVER_MS, pushback_ms, trailer_ms
from exchange.overload.queues import ClassQueues
from exchange.overload.service_rate import WINDOW_S, ServiceRate, capacity_of
from exchange.overload.shed_counts import ShedCounts
from exchange.overload.token_bucket import TokenBucket
from exchange.settings import RateLimit, RateLimits

CONTROL, CANCELS, PASSIVE, ORDERS, QUERIES = WorkClass


# ---------------------------------------------------------------- the rate of service


def test_a_rate_that_falls_is_followed_within_a_few_half_lives() -> None:
    rate = ServiceRate(half_life_s=5)
    rate.observe(1_000, 1.0)
    for _ in range(5):
        rate.observe(10, 1.0)
    assert rate.per_s == pytest.approx(100), "half of the way, in orders of magnitude"
    for _ in range(15):
        rate.observe(10, 1.0)
    assert rate.per_s == pytest.approx(10 * 10 ** (2 / 16))


def test_a_rate_that_rises_is_believed_sooner() -> None:
    rate = ServiceRate(half_life_s=5)
    rate.observe(10, 1.0)
    rate.observe(1_000, 1.0)
    assert rate.per_s > 300


def test_a_flood_after_light_load_shows_what_can_be_served_at_once() -> None:
    rate = ServiceRate(half_life_s=5)
    rate.observe(1, 0.003)
    rate.observe(10_000, 0.1)
    assert rate.per_s >= 50_000


def test_what_varies_by_half_is_not_overrated() -> None:
    rate = ServiceRate(half_life_s=5)
    for done in [10, 5, 10, 15] * 50:
        rate.observe(done, 0.1)
    assert 90 < rate.per_s < 140


def test_time_in_which_nothing_was_served_counts() -> None:
    rate = ServiceRate(half_life_s=5)
    rate.observe(0, 1.0)
    rate.observe(10, 1.0)
    assert rate.per_s == 5


def test_what_was_wanted_rather_than_served_only_raises_the_estimate() -> None:
    rate = ServiceRate(half_life_s=5)
    rate.observe(1, 1.0, is_saturated=False)
    assert rate.per_s == 0, "an idle shard's rate is not known"
    rate.observe(1_000, 1.0)
    rate.observe(1, 1.0, is_saturated=False)
    assert rate.per_s == 1_000
    rate.observe(3_000, 1.0, is_saturated=False)
    assert rate.per_s > 1_900
    rate.reset()
    assert rate.per_s == 0


def test_spells_of_load_that_are_shorter_than_a_window_lower_the_estimate_too() -> None:
    rate = ServiceRate(half_life_s=5)
    rate.observe(1_000, 0.001)
    for _ in range(500):
        rate.observe(20, WINDOW_S / 3)
        rate.observe(20, WINDOW_S / 3)
        rate.observe(20, WINDOW_S / 3, is_saturated=False)
    assert rate.per_s < 700
    assert rate.per_s > 20 / (WINDOW_S / 3)


def test_nobody_is_bounded_by_a_rate_that_is_not_known() -> None:
    assert capacity_of(ServiceRate(5).per_s, 0.25) is None
    assert capacity_of(250, 0.25) == 63


# ---------------------------------------------------------------- queues


def queues() -> ClassQueues[int]:
    return ClassQueues({PASSIVE: 0.5, ORDERS: 0.25, QUERIES: 0.25})


def test_a_class_is_bounded_by_the_time_that_it_would_wait() -> None:
    waiting = queues()
    waiting.put(CANCELS, 1, 5_000, 0)
    waiting.put(ORDERS, 1, 50, 0)
    waiting.put(PASSIVE, 1, 50, 0)
    assert waiting.has_room(ORDERS, 200, 1_000)
    assert not waiting.has_room(ORDERS, 201, 1_000)
    assert waiting.has_room(PASSIVE, 450, 1_000)
    assert not waiting.has_room(PASSIVE, 451, 1_000)
    assert waiting.has_room(CANCELS, 1_000_000, 1), "cancels are never shed"


def test_what_is_larger_than_the_bound_gets_in_while_nothing_waits() -> None:
    waiting = queues()
    assert waiting.has_room(ORDERS, 1_000, 100)
    waiting.put(ORDERS, 1, 1, 0)
    assert not waiting.has_room(ORDERS, 1_000, 100)


@given(
    offers=st.lists(st.tuples(st.sampled_from(WorkClass), st.integers(1, 300), st.booleans()), max_size=200),
    rate=st.floats(1, 100_000),
)
def test_a_bounded_class_never_waits_longer_than_it_may(offers: list[tuple[WorkClass, int, bool]], rate: float) -> None:
    waiting = queues()
    for number, (work_class, commands, takes) in enumerate(offers):
        if waiting.has_room(work_class, commands, rate):
            was_empty = not waiting.commands(work_class)
            waiting.put(work_class, number, commands, 0)
            wait_s = waiting.wait_s_max.get(work_class)
            assert wait_s is None or was_empty or waiting.commands(work_class) <= math.ceil(rate * wait_s)
        else:
            assert work_class.is_sheddable
        if takes and waiting.peek(work_class):
            waiting.take(work_class)
    for work_class in WorkClass:
        assert waiting.commands(work_class) == sum(item.commands for item in waiting.waiting(work_class))


def test_a_queue_gives_back_what_was_put_in_in_order_and_without_what_was_removed() -> None:
    waiting = queues()
    for number in range(4):
        waiting.put(ORDERS, number, number, 0)
    removed = waiting.remove_where(ORDERS, iter([False, True, False, True]))
    assert [item.item for item in removed] == [1, 3]
    assert [waiting.take(ORDERS).item for _ in range(2)] == [0, 2]
    assert not [*waiting.waiting(ORDERS)]
    assert waiting.commands(ORDERS) == 0


# ---------------------------------------------------------------- CoDel


def test_a_queue_that_stands_sheds_what_waited_twice_the_target() -> None:
    codel = Codel(0.05, 0.1)
    shed = [codel.sheds(0.12, now / 100) for now in range(30)]
    assert not any(shed[:10]), "not within the first interval"
    assert all(shed[10:])
    assert not codel.sheds(0.09, 0.3), "that has not waited so long"


def test_a_burst_sheds_nothing_as_its_queue_is_short_at_some_moment() -> None:
    codel = Codel(0.05, 0.1)
    assert not any(codel.sheds(0.04 if now % 10 == 9 else 0.2, now / 100) for now in range(100))


def test_a_queue_that_was_emptied_does_not_stand() -> None:
    codel = Codel(0.05, 0.1)
    for now in range(20):
        codel.sheds(0.2, now / 100)
    assert codel.is_overloaded
    codel.note_empty()
    assert not codel.sheds(0.2, 0.21)


def test_a_long_pause_leaves_no_verdict_behind() -> None:
    codel = Codel(0.05, 0.1)
    for now in range(20):
        codel.sheds(0.2, now / 100)
    assert not codel.sheds(0.2, 10.0)


# ---------------------------------------------------------------- credits


def test_credits_shrink_while_the_shard_is_slow_and_grow_when_it_is_not() -> None:
    given_credits = Credits(64, 0.025)
    for _ in range(60):
        given_credits.on_reply(given_credits.limit * 0.004, given_credits.limit)
    assert 3 <= given_credits.limit <= 8, "about what a shard of 250 orders/s does in 25 ms"
    for _ in range(100):
        given_credits.on_reply(given_credits.limit * 0.00001, given_credits.limit)
    assert 1_500 <= given_credits.limit <= 3_500, "and one of 100,000"


def test_what_a_shard_can_do_bounds_even_the_first_large_batch() -> None:
    given_credits = Credits(64, 0.025)
    given_credits.on_reply(0.008, 1, 125)
    assert given_credits.limit == 7
    given_credits.on_reply(0.008, 1, 0)
    assert given_credits.limit == 7, "one that took over a moment ago does not know yet"
    given_credits.on_reply(0.008, 1, 100_000)
    assert given_credits.limit == 64


def test_credits_that_are_not_used_do_not_grow() -> None:
    given_credits = Credits(64, 0.025)
    for _ in range(100):
        given_credits.on_reply(0.001, 10)
    assert given_credits.limit == 64


@given(
    start=st.integers(-5, CREDITS_MAX * 2),
    replies=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2)), max_size=300),
)
def test_credits_stay_within_their_bounds(start: int, replies: list[tuple[float, float]]) -> None:
    given_credits = Credits(start, 0.025)
    limits = [given_credits.limit]
    for delay_s, share in replies:
        given_credits.on_reply(delay_s, int(given_credits.limit * share))
        limits.append(given_credits.limit)
    assert all(1 <= limit <= CREDITS_MAX for limit in limits)
    assert all(later >= int(before * KEPT_MIN) for before, later in pairwise(limits))


# ---------------------------------------------------------------- rate limits


@given(
    rate=st.floats(0.5, 1_000),
    burst=st.floats(1, 1_000),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 200)), max_size=100),
)
def test_a_bucket_lets_through_no_more_than_burst_and_rate_in_any_window(
    rate: float, burst: float, steps: list[tuple[float, int]]
) -> None:
    bucket, now_s = TokenBucket(rate, burst, 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for pause_s, amount in steps:
        now_s += pause_s
        if bucket.take(amount, now_s):
            taken.append((now_s, amount))
    for first, (since_s, _) in enumerate(taken):
        total = 0
        for until_s, amount in taken[first:]:
            total += amount
            assert total <= burst + rate * (until_s - since_s) + 1e-6


@given(rate=st.floats(1, 1_000), burst=st.floats(1, 1_000), amount=st.integers(1, 1_000))
def test_a_bucket_tells_when_it_will_have_enough(rate: float, burst: float, amount: int) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    bucket.take(int(burst), 0.0)
    wait_s = bucket.wait_s(amount, 0.0)
    if wait_s is None:
        assert amount > burst
    else:
        assert bucket.take(amount, wait_s + 1e-6)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def limits(clock: Callable[[], float]) -> AccountLimits:
    rates = RateLimits(standard=RateLimit(orders_per_s=10, burst=20), maker=RateLimit(orders_per_s=100, burst=200))
    return AccountLimits(rates, clock)


def test_an_account_over_its_limit_is_told_when_to_come_back_and_others_are_not_touched() -> None:
    clock = Clock()
    accounts = limits(clock)
    assert accounts.take(1, Tier.STANDARD, 20, 0) is None
    refusal = accounts.take(1, Tier.STANDARD, 5, 3)
    assert refusal == (True, False, 0.5)
    assert accounts.limited == 5
    assert accounts.state(1, Tier.STANDARD) == (10, 0, 2.0)
    assert accounts.take(2, Tier.STANDARD, 20, 0) is None
    clock.now_s += 0.5
    assert accounts.take(1, Tier.STANDARD, 5, 0) is None


def test_cancels_have_a_limit_of_their_own_ten_times_as_high() -> None:
    accounts = limits(Clock())
    accounts.take(1, Tier.STANDARD, 20, 0)
    assert accounts.take(1, Tier.STANDARD, 0, 20 * CANCELS_FACTOR) is None
    assert accounts.take(1, Tier.STANDARD, 0, 1) == (False, True, 0.01)


def test_tiers_differ_and_one_has_no_limit() -> None:
    accounts = limits(Clock())
    assert accounts.take(1, Tier.MAKER, 200, 0) is None
    assert accounts.take(2, Tier.UNLIMITED, 1_000_000, 0) is None
    assert accounts.state(2, Tier.UNLIMITED) is None
    assert accounts.take(3, Tier.STANDARD, 21, 0) == (True, False, None), "more than may ever come at once"


def test_new_limits_hold_at_once() -> None:
    accounts = limits(Clock())
    accounts.take(1, Tier.STANDARD, 20, 0)
    accounts.set_limits(RateLimits(standard=RateLimit(orders_per_s=1_000, burst=50)))
    assert accounts.take(1, Tier.STANDARD, 50, 0) is None


# ---------------------------------------------------------------- the breaker


def refused_by(breaker: Breaker, *, since: int = 0) -> int:
    """Send a hundred requests a second for ten seconds to a shard that refuses all; return how many it got."""
    asked = 0
    for now in range(since, since + 1_000):
        if breaker.lets_through(now / 100):
            asked += 1
            breaker.on_answers(1, 0, now / 100)
    return asked


def test_a_shard_that_refuses_everything_is_asked_once_a_second() -> None:
    breaker = Breaker(2.0, 10.0, random=lambda: 0.5)
    assert refused_by(breaker) <= 3 + 10 / PROBE_S
    assert breaker.refusal_probability(10.0) > 0.9


def test_a_shard_that_takes_half_is_asked_everything() -> None:
    breaker = Breaker(2.0, 10.0, random=lambda: 0.0)
    for now in range(1_000):
        assert breaker.lets_through(now / 100)
        breaker.on_answers(2, 1, now / 100)


def test_a_shard_that_has_not_answered_yet_has_refused_nothing() -> None:
    breaker = Breaker(2.0, 10.0, random=lambda: 0.0)
    assert all(breaker.lets_through(0.0) for _ in range(1_000))


def test_a_probe_that_is_taken_closes_the_breaker() -> None:
    breaker = Breaker(2.0, 10.0, random=lambda: 0.5)
    refused_by(breaker)
    assert breaker.lets_through(12.0)
    breaker.on_answers(1, 1, 12.0)
    assert breaker.refusal_probability(12.0) == 0


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker = Breaker(2.0, 10.0, random=lambda: 0.5)
    refused_by(breaker)
    assert breaker.refusal_probability(20.1) == 0


# ---------------------------------------------------------------- pushback


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 10_000), st.floats(0, 60_000), st.floats(0, 10_000))
def test_pushback_is_spread_around_the_longest_reason(
    spread: float, backlog_ms: float, opens_ms: float, at_least_ms: float
) -> None:
    found = pushback_ms(backlog_ms, lambda: spread, stage_opens_in_ms=opens_ms, at_least_ms=at_least_ms)
    longest_ms = max(LEAST_MS, backlog_ms, opens_ms)
    assert found >= int(0.5 * longest_ms)
    assert found >= int(at_least_ms)
    assert found <= 1.5 * max(longest_ms, at_least_ms)


def test_what_would_outlive_the_deadline_is_not_waited_for() -> None:
    assert trailer_ms(300, 1_000) == 300
    assert trailer_ms(300, None) == 300
    assert trailer_ms(300, 300) == NEVER_MS
    assert trailer_ms(NEVER_MS, 1_000) == NEVER_MS


# ---------------------------------------------------------------- counts and load


def test_what_is_shed_is_counted_by_class_and_reason() -> None:
    counts = ShedCounts()
    counts.count(ORDERS, ShedReason.DELAY, 3)
    counts.count(ORDERS, ShedReason.QUEUE, 4)
    assert counts.of(ORDERS) == 7
    assert counts.of(ORDERS, ShedReason.DELAY) == 3
    assert counts.of(CANCELS) == 0
    assert counts.plain() == {3: {"delay": 3, "queue": 4}}


def test_delays_are_of_the_last_interval_and_by_class() -> None:
    delays = Delays(1.0)
    for number in range(100):
        delays.note(ORDERS, number / 1_000, 10.0)
    delays.note(CANCELS, 0.001, 10.0)
    assert delays.p99_ms(10.5) == {1: 1.0, 3: 99.0}
    assert delays.p99_ms(11.5) == {1: 1.0, 3: 99.0}
    assert delays.p99_ms(14.0) == {}


def test_load_tells_what_was_done_and_what_could_have_been() -> None:
    clock = Clock()
    load = Load(5.0, clock)
    load.plain()
    for _ in range(5):
        load.admitted += 50
        load.note_work(50, 0.1)
        load.note_delay(ORDERS, 0.02)
        clock.now_s += INTERVAL_S / 5
    found = load.plain()
    assert found["delay_ms"] == {3: 20.0}
    assert (found["admitted"], found["done"], found["late"]) == (250, 250, 0)
    assert found["orders_per_s"] == pytest.approx(250)
    assert found["capacity_per_s"] == pytest.approx(500)
    assert found["utilisation"] == pytest.approx(0.5)
