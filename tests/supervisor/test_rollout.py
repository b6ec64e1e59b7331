"""What a rollout decides, step by step, from what it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.settings import Rollout as Rules
from exchange.settings_text import parse_settings
from exchange.supervisor.rollout import PATIENCE, Action, Rollout, Verdict, View, steps_of
from exchange.supervisor.service_levels import CONFIDENCE, Levels, Part, Reading, Samples, read
from tests.supervisor.parts import gateway, primary

GATEWAYS = ["gateway-0", "gateway-1"]
MACHINES = ["ledger", "shard-0", "shard-1"]
STEPS = (("gateway-0",), ("gateway-0", "gateway-1"))
RULES = Rules(watch_ms=4_000, p99_max_ms=100, refused_max=0.05)
TICK_S = 0.05


class World:
    """Ticks a rollout; `p99_ms` and `refused` say how each part does, of 100 requests a second."""

    def __init__(self, steps: tuple[tuple[str, ...], ...] = STEPS, rules: Rules = RULES) -> None:
        self.now_s = 0.0
        self.p99_ms: dict[Part, float] = {(name,): 10.0 for name in steps[-1]}
        self.refused: dict[Part, float] = {}
        self.losses = dict.fromkeys(steps[-1], 0)
        self.away: set[str] = set()
        self.untold: set[str] = set()
        self.closed: set[str] = set()
        self._steps = steps
        self._rules = rules
        self._asked: dict[Part, float] = {}
        self._counts: dict[Part, float] = {}
        self._samples = Samples(rules.watch_ms / 1_000)
        self.rollout: Rollout | None = None

    def readings(self) -> Mapping[Part, Reading]:
        return {
            part: Reading(p99_ms, round(self._asked.get(part, 0)), round(self._counts.get(part, 0)))
            for part, p99_ms in self.p99_ms.items()
        }

    def pass_time(self, seconds: float) -> list[Verdict]:
        """Return what was decided, follow it, and go on until the end of that time or of the rollout."""
        verdicts = []
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += TICK_S
            for part in self.p99_ms:
                self._asked[part] = self._asked.get(part, 0) + 100 * TICK_S
                self._counts[part] = self._counts.get(part, 0) + 100 * TICK_S * self.refused.get(part, 0.0)
            if self.rollout is None:
                self._samples.add(self.now_s, self.readings())
                continue
            view = View(self.readings(), dict(self.losses), self.away, self.untold, self.closed)
            verdict = self.rollout.see(self.now_s, view)
            if verdict.action != Action.WAIT:
                verdicts.append(verdict)
            if verdict.action == Action.NEXT:
                self.rollout.begin(self.rollout.step + 1, self.now_s, self.losses)
            elif verdict.action != Action.WAIT:
                break
        return verdicts

    def begin(self) -> None:
        self.pass_time(self._rules.watch_ms / 1_000)
        self.rollout = Rollout(self.now_s, self._steps, self._rules, self._samples, self.losses)

    def run(self) -> list[Verdict]:
        return self.pass_time(1_000)


def actions(verdicts: list[Verdict]) -> list[Action]:
    return [verdict.action for verdict in verdicts]


@pytest.mark.parametrize(
    ("toml", "steps"),
    [
        ("[codel]\ntarget_ms = 20", (("gateway-0",), ("gateway-0", "gateway-1"))),
        ("[stages]\nhysteresis_ms = 20", (("shard-0",), ("shard-0", "shard-1"))),
        (
            "[detection]\ndead_after_ms = 900",
            (
                ("gateway-0",),
                ("gateway-0", "shard-0", "gateway-1"),
                ("gateway-0", "shard-0", "gateway-1", "shard-1", "ledger"),
            ),
        ),
        ("[rollout]\nwatch_ms = 700", ()),
        ("[governor]\nrestarts_per_min_max = 7", ()),
        ("[rollout]\nwatch_ms = 700\n[codel]\ntarget_ms = 20", (("gateway-0",), ("gateway-0", "gateway-1"))),
    ],
)
def test_one_process_comes_first_then_half_of_those_concerned_then_all(toml: str, steps: tuple[object, ...]) -> None:
    assert steps_of(parse_settings(""), parse_settings(toml), GATEWAYS, MACHINES) == steps


def test_each_step_is_watched_and_then_comes_the_next() -> None:
    world = World()
    world.begin()
    began_s = world.now_s
    assert actions(world.run()) == [Action.NEXT, Action.APPLY]
    assert world.now_s - began_s == pytest.approx(2 * RULES.watch_ms / 1_000, abs=4 * TICK_S)


def slow(world: World) -> None:
    world.p99_ms["gateway-0",] = 150.0


def refusing(world: World) -> None:
    world.refused["gateway-0",] = 0.2


def lost(world: World) -> None:
    world.losses["gateway-0"] += 1


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("harm", "evidence"),
    [
        (slow, "p99 delay: expected at most 100 ms; with the new settings p99 150 ms"),
        (refusing, "refused: expected at most 5.0%; with the new settings p99 10 ms, "),
        (lost, "gateway-0 lost while the new settings were watched there"),
    ],
)
def test_a_breach_takes_it_back_at_any_step_with_the_evidence(
    harm: Callable[[World], None], evidence: str, step: int
) -> None:
    world = World()
    world.begin()
    world.pass_time(step * RULES.watch_ms / 1_000 + 1.5)
    harm(world)
    began_s = world.now_s
    (verdict,) = world.run()
    assert verdict.action == Action.TAKE_BACK
    assert verdict.detail.startswith(evidence)
    assert world.now_s - began_s <= RULES.watch_ms / 1_000


def test_what_was_as_bad_before_is_no_breach() -> None:
    world = World()
    slow(world)
    refusing(world)
    world.begin()
    assert actions(world.run()) == [Action.NEXT, Action.APPLY]


def test_what_is_as_bad_with_the_old_settings_is_no_breach() -> None:
    world = World()
    world.begin()
    world.p99_ms = dict.fromkeys(world.p99_ms, 500.0)
    assert world.pass_time(RULES.watch_ms / 1_000 + 1)[0].action == Action.NEXT


def test_a_hiccup_is_no_breach() -> None:
    world = World()
    world.begin()
    world.pass_time(1.5)
    slow(world)
    world.pass_time(0.3)
    world.p99_ms["gateway-0",] = 10.0
    assert actions(world.run()) == [Action.NEXT, Action.APPLY]


def test_a_link_with_a_new_end_counts_as_new() -> None:
    world = World((("shard-0",), ("shard-0", "shard-1")))
    world.begin()
    world.p99_ms["gateway-0", "shard-0"] = 150.0
    assert actions(world.run()) == [Action.TAKE_BACK]


def test_it_waits_for_who_is_away_and_who_was_not_told_and_watches_anew() -> None:
    for names in ("away", "untold", "closed"):
        world = World()
        world.begin()
        if names != "closed":
            world.pass_time(2.0)
        getattr(world, names).add("gateway-0")
        assert world.pass_time(RULES.watch_ms / 1_000) == []
        getattr(world, names).clear()
        assert world.pass_time(RULES.watch_ms / 1_000 - 2 * TICK_S) == []
        assert actions(world.run()) == [Action.NEXT, Action.APPLY]


def test_what_cannot_be_judged_for_long_is_taken_back() -> None:
    world = World()
    world.begin()
    world.away.add("gateway-1")
    (verdict,) = world.run()
    assert verdict == (Action.TAKE_BACK, "cannot be judged: gateway-1 away, closed or not answering")
    assert world.now_s <= (PATIENCE + 2) * RULES.watch_ms / 1_000


def test_a_shard_that_was_open_and_steps_back_is_a_breach_and_one_that_recovers_is_waited_for() -> None:
    world = World((("shard-0",), ("shard-0", "shard-1")))
    world.begin()
    world.closed.add("shard-1")
    world.pass_time(2.0)
    world.closed = {"shard-0"}
    assert world.run() == [(Action.TAKE_BACK, "shard-0 no longer open with the new settings")]


def test_a_few_in_a_hundred_show_although_a_moment_has_too_few_to_tell() -> None:
    world = World(rules=Rules(watch_ms=4_000))
    world.begin()
    world.refused["gateway-0",] = 0.04
    (verdict,) = world.run()
    assert verdict.action == Action.TAKE_BACK
    assert verdict.detail.startswith("refused: expected at most 1.0%; with the new settings p99 10 ms, ")


def test_one_that_is_refused_now_and_then_is_no_breach() -> None:
    world = World(rules=Rules(watch_ms=4_000))
    world.begin()
    world.refused["gateway-0",] = world.refused["gateway-1",] = 0.008
    assert actions(world.run()) == [Action.NEXT, Action.APPLY]


def test_refusals_that_begin_late_are_not_hidden_by_what_went_well_before() -> None:
    world = World()
    world.begin()
    world.pass_time(RULES.watch_ms / 1_000 * 0.75)
    refusing(world)
    (verdict,) = world.pass_time(RULES.watch_ms / 1_000 * 0.25)
    assert verdict.action == Action.TAKE_BACK


def test_overload_that_goes_on_alike_is_no_breach() -> None:
    world = World(rules=Rules(watch_ms=4_000))
    world.refused = {("gateway-0",): 0.3, ("gateway-1",): 0.3}
    world.begin()
    assert actions(world.run()) == [Action.NEXT, Action.APPLY]


def test_a_share_of_few_says_nothing() -> None:
    world = World()
    world.begin()
    world.p99_ms = {}
    assert actions(world.run()) == [Action.NEXT, Action.APPLY]


HARMS = st.sampled_from([None, slow, refusing, lost])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(HARMS, st.floats(0.1, 6)), max_size=6))
def test_whatever_happens_it_ends_and_a_loss_is_never_applied(happenings: list[tuple[object, float]]) -> None:
    world = World()
    world.begin()
    was_lost = False
    for harm, seconds in happenings:
        if callable(harm):
            harm(world)
            was_lost |= harm is lost
        verdicts = world.pass_time(seconds)
        if verdicts and verdicts[-1].action in (Action.APPLY, Action.TAKE_BACK):
            break
    else:
        verdicts = world.run()
    assert verdicts[-1].action == (Action.TAKE_BACK if was_lost else verdicts[-1].action)
    assert verdicts[-1].action in (Action.APPLY, Action.TAKE_BACK)


@given(st.integers(1, 100_000).flatmap(lambda asked: st.tuples(st.integers(1, asked), st.just(asked))))
def test_if_as_much_as_at_least_is_refused_one_in_a_hundred_would_see_so_much(counts: tuple[int, int]) -> None:
    refused, asked = counts
    levels = Levels(0.0, asked, refused)
    share = levels.refused_share_min
    deviations = (levels.refused_share - share) / sqrt(share * (1 - share) / asked)
    assert NormalDist().cdf(deviations) == pytest.approx(CONFIDENCE, abs=1e-6)


def test_of_none_refused_none_are_at_least() -> None:
    assert Levels(0.0, 0, 0).refused_share_min == 0.0
    assert Levels(0.0, 50, 0).refused_share_min == 0.0


def test_the_counts_begin_again_with_a_new_process() -> None:
    samples = Samples(10.0)
    for time_s, asked, refused in ((0.0, 100, 10), (1.0, 150, 12), (2.0, 20, 1), (3.0, 40, 1)):
        samples.add(time_s, {("gateway-0",): Reading(5.0, asked, refused)})
    levels = samples.levels(lambda _: True, 0.0)
    assert (levels.asked, levels.refused) == (50 + 20 + 20, 2 + 1 + 0)


def test_readings_are_of_machines_gateways_and_the_links_between_them() -> None:
    link = {"delay_ms": {1: 3.0, 3: 40.0, 4: 900.0}, "shed": {3: {"queue": 4}, 4: {"queue": 2}}}
    parts = [
        gateway({"load": {"commands": 70, "rate_limited": 5, "links": {"shard-0": link}}}),
        primary("shard-0", {"load": {"delay_ms": {3: 7.0}, "admitted": 60, "late": 2, "shed": 3}}),
    ]
    assert read(parts) == {
        ("gateway-0",): Reading(0.0, 70, 5),
        ("gateway-0", "shard-0"): Reading(40.0, 6, 6),
        ("shard-0",): Reading(7.0, 63, 5),
    }
