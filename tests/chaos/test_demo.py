"""The story's table says what each run has shown, and its moral only what both have."""

from __future__ import annotations

from dataclasses import replace

from chaos.demo import NAIVE, STAGED, Outcome, moral, side_by_side
from chaos.experiment import library
from chaos.run.record import Check, Delay, Event, ExitCode, Sample, Verdict

EXPERIMENT = library.load(STAGED).experiment
BEGIN_S = int(EXPERIMENT.phases[0].duration_s)
END_S = int(EXPERIMENT.duration_s)


def sample(t: int, goodput_per_s: float) -> Sample:
    offered_per_s = 100.0 if t < BEGIN_S or t >= EXPERIMENT.trigger_end_s else 200.0
    return Sample(
        t=t,
        offered_per_s=offered_per_s,
        attempts_per_s=offered_per_s * (1.0 if t < BEGIN_S else 1.5),
        goodput_per_s=goodput_per_s,
        refused_per_s=1.0,
        unknown_per_s=2.0,
        not_sent_per_s=0.0,
        delays={"place": Delay(count=60, p50_ms=5, p99_ms=9, max_ms=20)} if goodput_per_s else {},
        stages={},
        goodput_by_market={},
        offered_by_market={},
        memory_mb=200.0 + t,
        late_p99_ms=1.0,
    )


def outcome(goodput_after_per_s: float, exit_code: ExitCode, figures: dict[str, float]) -> Outcome:
    samples = [sample(t, 100.0 if t < BEGIN_S else goodput_after_per_s) for t in range(END_S)]
    lost = Check(name="I1", held=True, wanted="none", found="none", looked_at=4_321)
    verdict = Verdict(
        name="it", expect="hold", exit_code=exit_code, summary="I1 (7 lost)", checks=(lost,), figures=figures
    )
    events = [Event(t=-1, kind="stage", name="shard-0", what="OPEN")]
    events += [Event(t=20 + n, kind="stage", name="shard-0", what=stage) for n, stage in enumerate(("LIMITED", "OPEN"))]
    return Outcome(EXPERIMENT, verdict, samples, events)


def test_the_table_sets_both_runs_side_by_side() -> None:
    figures = {"recover_s": 4.2, "published_s": 0.44, "announced_s": 4.5}
    rows = side_by_side(outcome(0, ExitCode.HELD, {}), outcome(100, ExitCode.HELD, figures))
    told = {title: (naive, staged) for title, naive, staged in rows}
    assert told["done in time, before"] == ("100 of 100/s", "100 of 100/s")
    assert told["while the load is doubled and the shard restarts"] == ("0 of 200/s", "100 of 200/s")
    assert told["in the last 10 s, with the load as before"] == ("0 of 100/s", "100 of 100/s")
    assert told["of these, new orders"] == ("0/s", "60/s")
    assert told["all is well again"] == ("never", "4 s after the surge")
    assert told["attempts for each request"] == ("1.50", "1.50")
    assert told["stages of the shard"][1] == "LIMITED → OPEN", "what was before the load began is no part of the story"
    assert told["memory at first; at most"][0] == f"200 MB; {199 + END_S} MB"
    assert told["on the status page after; announced after"] == ("not seen; not seen", "0.4 s; 4.5 s")
    assert told["nothing acknowledged is lost, nothing refused is done"][0] == "yes, 4,321 looked at"


def test_a_run_that_was_cut_short_says_what_it_has_not_seen() -> None:
    verdict = Verdict(name=STAGED, expect="hold", exit_code=ExitCode.ABORTED, summary="interrupted")
    nothing = Outcome(EXPERIMENT, verdict, (), ())
    assert (nothing.at_the_end, nothing.memory, nothing.told_true) == ("not seen", "not seen", "not checked")
    assert nothing.attempts == "nothing was offered"


def test_the_moral_is_drawn_only_if_one_stayed_down_and_the_other_came_back() -> None:
    naive, staged = outcome(0, ExitCode.HELD, {}), outcome(100, ExitCode.HELD, {})
    assert moral(naive.verdict, staged.verdict).endswith("without the policies it stays down, with them it comes back.")
    broken = replace(staged, verdict=outcome(0, ExitCode.BROKEN, {}).verdict)
    assert moral(naive.verdict, broken.verdict) == "Not as it was meant to be: I1 (7 lost)"


def test_both_parts_of_the_story_are_shipped() -> None:
    assert {NAIVE, STAGED} <= set(library.shipped())
