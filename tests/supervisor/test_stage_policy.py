"""P12: a shard reopens stage by stage, by what is measured of it, and never faster than its ramp."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.words import Stage
from exchange.settings import Recovery, Stages
from exchange.supervisor.stages import NOTICE_S, RAMP_STEP_S, Health, Move, Profile, StagePolicy, ramp_rate

SAMPLE_S = 0.05
UPWARDS = [Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.OPEN]
SETTINGS = Stages(capacity_per_s=1_000)
WELL, SLOW, SO_SO = Health({1: 5.0, 2: 5.0, 3: 5.0}), Health({1: 500.0, 2: 500.0, 3: 500.0}), Health({1: 70.0, 3: 70.0})


@dataclass
class Run:
    """A policy that is fed a sample every 50 ms, and what it said."""

    policy: StagePolicy
    now_s: float = 1_000.0
    moves: list[tuple[float, Move]] = field(default_factory=list)

    def begin(self, profile: Profile = Profile.WARM) -> None:
        self.moves.append((self.now_s, self.policy.begin(self.now_s, profile)))

    def feed(self, health: Health, seconds: float) -> None:
        for _ in range(round(seconds / SAMPLE_S)):
            self.now_s += SAMPLE_S
            move = self.policy.see(self.now_s, health)
            if move is not None:
                self.moves.append((self.now_s, move))

    @property
    def changes(self) -> list[tuple[float, Move]]:
        """The moves to another stage than before, the first one among them."""
        pairs = zip([None, *self.moves], self.moves, strict=False)
        return [now for before, now in pairs if before is None or before[1].stage != now[1].stage]

    @property
    def stages(self) -> list[Stage]:
        return [move.stage for _, move in self.changes]

    def entered_s(self, stage: Stage) -> float:
        """When it was last entered, since the beginning."""
        return max(at_s for at_s, move in self.changes if move.stage == stage) - self.moves[0][0]


def began(profile: Profile = Profile.WARM, **changed: object) -> Run:
    run = Run(StagePolicy(Stages(**{"capacity_per_s": 1_000, **changed})))  # type: ignore[arg-type]
    run.begin(profile)
    return run


def test_a_shard_that_is_well_goes_up_after_its_stays_and_says_when() -> None:
    for profile, post_only_s, limited_s, open_s in (
        (Profile.WARM, 0.5, 1.0, 3.5),
        (Profile.COLD, 2.0, 4.0, 12.0),
    ):
        run = began(profile)
        run.feed(WELL, 20)
        assert run.stages == UPWARDS
        for stage, expected_s in zip(UPWARDS[1:], (post_only_s, limited_s, open_s), strict=True):
            assert expected_s <= run.entered_s(stage) <= expected_s + 0.3
        told = {move.stage: move.next_in_s for _, move in reversed(run.moves)}
        assert round(told[Stage.CANCEL_ONLY], 3) == post_only_s
        assert (
            round(told[Stage.LIMITED], 3)
            == run.policy.recovery.ramp_ms / 1_000 + run.policy.recovery.healthy_ms / 1_000
        )
        assert told[Stage.OPEN] == 0


def test_without_load_there_is_nothing_that_could_be_wrong() -> None:
    run = began()
    run.feed(Health.of(None), 5)
    assert run.stages == UPWARDS
    assert run.changes[1][1].reason == "well after 0.6 s, no load"


def test_the_rate_in_limited_goes_up_along_the_ramp() -> None:
    run = began(Profile.COLD)
    run.feed(WELL, 11.7)
    began_s = next(at_s for at_s, move in run.moves if move.stage == Stage.LIMITED)
    rates = [(at_s - began_s, move.orders_per_s) for at_s, move in run.moves if move.stage == Stage.LIMITED]
    assert (rates[0][1], rates[-1][1]) == (90, 900)
    assert [rate for _, rate in rates] == sorted(rate for _, rate in rates)
    assert all(rate <= ramp_rate(1_000, into_s, 7) for into_s, rate in rates)
    # A step is a command in the shard's journal: not at every sample.
    assert len(rates) <= 7 / RAMP_STEP_S + 1


def test_a_measured_capacity_takes_the_place_of_the_declared_one() -> None:
    run = began()
    run.feed(Health({1: 1.0}, capacity_per_s=200.0), 3.5)
    assert run.moves[-1][1].orders_per_s == 180
    run.begin()
    assert run.policy.capacity_per_s == 200


def test_a_stage_waits_for_the_delays_of_what_it_lets_through_alone() -> None:
    run = began()
    run.feed(Health({1: 5.0, 2: 500.0, 3: 500.0}), 0.9)
    assert run.stages == [Stage.CANCEL_ONLY, Stage.POST_ONLY]
    run = began()
    run.feed(Health({0: 900.0, 1: 500.0}), 10)
    assert run.stages == [Stage.CANCEL_ONLY]
    assert run.moves[-1][1].reason == "not well yet, delay by class 1: 500 ms"
    assert run.moves[-1][1].next_in_s > 0
    # Put off once a second, not at every sample.
    assert len(run.moves) <= 10 / NOTICE_S + 2


def test_between_the_target_and_overload_it_stays_where_it_is() -> None:
    run = began()
    run.feed(WELL, 3.2)
    run.feed(SO_SO, 60)
    assert run.stages == UPWARDS[:3]


def test_of_a_slow_shard_no_shorter_delays_are_expected_than_a_batch_takes() -> None:
    run = Run(StagePolicy(Stages(capacity_per_s=200)))
    run.begin(Profile.WARM)
    run.feed(Health({1: 99.0, 2: 99.0, 3: 99.0}), 5)
    assert run.stages == UPWARDS
    run.feed(Health({3: 199.0}), 5)
    assert run.stages == UPWARDS


def test_orders_that_are_admitted_and_not_done_are_an_overload() -> None:
    run = began()
    admitted = 0
    for _ in range(100):
        admitted += 20
        run.feed(Health({3: 1.0}, admitted, admitted * 9 // 10), SAMPLE_S)
    assert run.stages[:4] == [*UPWARDS[:3], Stage.POST_ONLY]


def test_an_overload_of_a_second_takes_it_back_by_one_stage_and_half_the_rate() -> None:
    run = began()
    run.feed(WELL, 4)
    assert run.stages == UPWARDS
    # A moment that was slow looks slow for almost two seconds.
    run.feed(SLOW, 1.9)
    assert run.stages == UPWARDS
    run.feed(SLOW, 0.2)
    assert run.stages == [*UPWARDS, Stage.LIMITED]
    assert run.moves[-1][1].orders_per_s == 450
    assert run.moves[-1][1].reason.startswith("overloaded for 2.0 s, delay by class 1: 500 ms")
    assert run.moves[-1][1].next_in_s == 10
    # Not up again before the hysteresis is over, however well it is.
    run.feed(WELL, 9.8)
    assert run.stages == [*UPWARDS, Stage.LIMITED]
    run.feed(WELL, 0.5)
    assert run.stages == [*UPWARDS, Stage.LIMITED, Stage.OPEN]


def test_three_steps_back_leave_it_with_a_person() -> None:
    run = began()
    run.feed(WELL, 3.2)
    run.feed(SLOW, 2.2)
    run.feed(WELL, 13)
    run.feed(SLOW, 2.2)
    assert not run.policy.gave_up
    run.feed(WELL, 14)
    run.feed(SLOW, 2.2)
    last = run.moves[-1][1]
    assert (last.stage, last.gives_up, last.next_in_s) == (Stage.CANCEL_ONLY, True, 0)
    assert last.reason.startswith("3 steps back within 300 s, a person must look: overloaded for 2.0 s")
    run.feed(WELL, 1_000)
    assert run.moves[-1][1] is last
    # The person has looked.
    run.begin()
    run.feed(WELL, 4)
    assert run.policy.stage == Stage.OPEN


def test_once_it_has_reopened_overload_is_for_those_who_shed_load() -> None:
    run = began()
    run.feed(WELL, 14)
    assert run.policy.is_over(run.now_s)
    run.feed(SLOW, 60)
    assert run.stages == UPWARDS


def test_a_shard_that_was_not_heard_of_has_not_been_well_meanwhile() -> None:
    run = began()
    run.feed(WELL, 0.3)
    run.now_s += 5
    run.feed(WELL, 0.3)
    assert run.stages == [Stage.CANCEL_ONLY]
    run.feed(WELL, 0.4)
    assert run.stages == [Stage.CANCEL_ONLY, Stage.POST_ONLY]


def test_another_supervisor_goes_on_where_the_first_one_was() -> None:
    run = began(Profile.COLD)
    run.feed(WELL, 9)
    assert run.policy.stage == Stage.LIMITED
    in_stage_s = run.now_s - run.moves[0][0] - run.entered_s(Stage.LIMITED)
    other = Run(StagePolicy(SETTINGS))
    other.policy.resume(other.now_s, Profile.COLD, Stage.LIMITED, in_stage_s, run.moves[-1][1].orders_per_s)
    other.feed(WELL, 0.3)
    assert run.moves[-1][1].orders_per_s <= other.moves[0][1].orders_per_s <= 0.9 * 1_000 * (in_stage_s + 0.3) / 7
    other.feed(WELL, 7 - in_stage_s + 1)
    assert other.stages == [Stage.LIMITED, Stage.OPEN]


def test_a_profile_without_stays_opens_at_once() -> None:
    nothing = Recovery(cancel_only_ms=0, post_only_ms=0, ramp_ms=0, healthy_ms=0)
    run = began(warm=nothing)
    assert run.stages == [Stage.OPEN]
    assert run.policy.is_over(run.now_s)


def test_a_person_may_skip_a_stage() -> None:
    run = began(Profile.COLD)
    assert run.policy.skip(run.now_s, "by hand").stage == Stage.POST_ONLY
    assert run.policy.skip(run.now_s, "by hand").orders_per_s == 90
    assert run.policy.skip(run.now_s, "by hand").stage == Stage.OPEN
    assert run.policy.skip(run.now_s, "by hand").stage == Stage.OPEN


delays = st.sampled_from((0.0, 5.0, 49.0, 60.0, 99.0, 101.0, 1_000.0))
healths = st.builds(
    lambda cancels, passive, orders, capacity: Health({1: cancels, 2: passive, 3: orders}, capacity_per_s=capacity),
    delays,
    delays,
    delays,
    st.sampled_from((0.0, 0.0, 500.0, 1_000.0, 5_000.0)),
)
recoveries = st.builds(
    Recovery,
    cancel_only_ms=st.sampled_from((0, 500, 2_000)),
    post_only_ms=st.sampled_from((0, 500, 3_000)),
    ramp_ms=st.sampled_from((0, 300, 2_000)),
    healthy_ms=st.sampled_from((100, 500, 2_000)),
)
spells = st.lists(st.tuples(healths, st.floats(0.05, 6), st.floats(0, 3)), max_size=25)


@settings(max_examples=200, deadline=None)
@given(recoveries, spells, st.sampled_from((0, 1_000, 10_000)), st.integers(1, 4))
def test_whatever_is_measured_the_rules_hold(
    recovery: Recovery, plan: list[tuple[Health, float, float]], hysteresis_ms: int, regresses_max: int
) -> None:
    policy = StagePolicy(
        Stages(
            warm=recovery,
            cold=recovery,
            capacity_per_s=1_000,
            hysteresis_ms=hysteresis_ms,
            regresses_max=regresses_max,
            regress_window_ms=3_600_000,
        )
    )
    run = Run(policy)
    run.begin()
    capacities = [1_000.0]
    for health, seconds, silent_s in plan:
        capacities.append(health.capacity_per_s or capacities[-1])
        told = len(run.moves)
        run.feed(health, seconds)
        run.now_s += silent_s
        for at_s, move in run.moves[told:]:
            assert move.stage == Stage.LIMITED or not move.orders_per_s
            limit = _rate_max(run, at_s, capacities[-1], recovery.ramp_ms / 1_000) if move.orders_per_s else 0
            assert move.orders_per_s <= limit

    changes = list(zip(run.changes, run.changes[1:], strict=False))
    downs = 0
    for (before_s, before), (after_s, after) in changes:
        step = UPWARDS.index(after.stage) - UPWARDS.index(before.stage)
        assert step in (1, -1) or after.gives_up, "a stage was skipped"
        stay_s = after_s - before_s + 1e-6
        if step == 1:
            assert stay_s >= _stay_s(before.stage, recovery)
            assert not downs or after_s + 1e-6 >= _last_down_s(run, before_s) + hysteresis_ms / 1_000
        else:
            downs += 1
            # An overload is one that lasts.
            assert stay_s >= 2.0
    assert downs <= regresses_max
    assert len(run.changes) <= 1 + 3 + 2 * downs, "back and forth"
    if policy.gave_up:
        assert run.stages[-1] == Stage.CANCEL_ONLY
        return
    lasting_s = hysteresis_ms / 1_000 + (recovery.cancel_only_ms + recovery.post_only_ms + recovery.ramp_ms) / 1_000
    run.feed(WELL, lasting_s + 3 * recovery.healthy_ms / 1_000 + 3)
    assert policy.stage == Stage.OPEN


def _stay_s(stage: Stage, recovery: Recovery) -> float:
    stays_ms = {
        Stage.CANCEL_ONLY: max(recovery.cancel_only_ms, recovery.healthy_ms),
        Stage.POST_ONLY: max(recovery.post_only_ms, recovery.healthy_ms),
        Stage.LIMITED: recovery.healthy_ms,
    }
    return stays_ms[stage] / 1_000 - SAMPLE_S


def _last_down_s(run: Run, until_s: float) -> float:
    pairs = zip(run.changes, run.changes[1:], strict=False)
    downs = [s for (_, a), (s, b) in pairs if UPWARDS.index(b.stage) < UPWARDS.index(a.stage) and s <= until_s]
    return max(downs, default=0.0)


def _rate_max(run: Run, at_s: float, capacity_per_s: float, ramp_s: float) -> float:
    """What the ramp allows in LIMITED at a time; half of all of it if that was entered from OPEN."""
    so_far = [(s, move.stage) for s, move in run.changes if s <= at_s]
    if [stage for _, stage in so_far[-2:]] == [Stage.OPEN, Stage.LIMITED]:
        return max(ramp_rate(capacity_per_s, ramp_s, ramp_s) / 2, 1)
    return max(ramp_rate(capacity_per_s, at_s - so_far[-1][0], ramp_s), 1)
