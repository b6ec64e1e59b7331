"""The outage of 2023-07-05 as a story: the same restart into the same surge without the policies and with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.experiment.model import Experiment
from chaos.run.record import Event, ExitCode, Sample, Verdict

NAIVE, STAGED = "okx-2023-07-05-naive", "okx-2023-07-05"
WARM_UP_S = 2
"""Of the steady state; as in the check of it."""
LAST_S = 10
"""At the end of a run: is it well by then?"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown."""

    experiment: Experiment
    verdict: Verdict
    samples: Sequence[Sample]
    events: Sequence[Event]

    @property
    def before(self) -> str:
        return self._goodput(WARM_UP_S, self.experiment.phases[0].duration_s)

    @property
    def during(self) -> str:
        return self._goodput(self.experiment.phases[0].duration_s, self.experiment.trigger_end_s)

    @property
    def at_the_end(self) -> str:
        return self._goodput(self.experiment.duration_s - LAST_S, self.experiment.duration_s)

    @property
    def orders_at_the_end(self) -> str:
        """New orders alone: cancels go ahead of them, and questions are answered by gateways."""
        begin_s = self.experiment.duration_s - LAST_S
        seen = [sample for sample in self.samples if sample.t >= begin_s]
        done = sum(sample.delays["place"].count for sample in seen if "place" in sample.delays)
        return f"{done / len(seen):.0f}/s" if seen else "not seen"

    @property
    def recovered(self) -> str:
        """From the end of the surge until everything was done in time again."""
        after_s = self.verdict.figures.get("recover_s")
        return "never" if after_s is None else f"{after_s:.0f} s after the surge"

    @property
    def stages(self) -> str:
        """In which stages the shard opened again."""
        seen = [event.what for event in self.events if event.kind == "stage" and event.t > 0]
        return " → ".join(seen) or "none seen"

    @property
    def attempts(self) -> str:
        attempts = sum(sample.attempts_per_s for sample in self._since_trouble)
        offered = sum(sample.offered_per_s for sample in self._since_trouble)
        return f"{attempts / offered:.2f}" if offered else "nothing was offered"

    @property
    def refused(self) -> str:
        """Surely not executed, and told so at once; the rest of what was not done in time is unknown to its client."""
        refused = sum(sample.refused_per_s for sample in self._since_trouble)
        unknown = sum(sample.unknown_per_s for sample in self._since_trouble)
        return f"{refused:,.0f}; {unknown:,.0f}"

    @property
    def memory(self) -> str:
        seen = [sample.memory_mb for sample in self.samples if sample.memory_mb]
        return f"{seen[0]:,.0f} MB; {max(seen):,.0f} MB" if seen else "not seen"

    @property
    def told_public(self) -> str:
        figures = self.verdict.figures
        told = [figures.get(name) for name in ("published_s", "announced_s")]
        return "; ".join("not seen" if after_s is None else f"{after_s:.1f} s" for after_s in told)

    @property
    def told_true(self) -> str:
        """What the check of the whole history says of what clients were told of their orders."""
        found = [check for check in self.verdict.checks if check.name == "I1"]
        if not found:
            return "not checked"
        (check,) = found
        return f"yes, {check.looked_at:,} looked at" if check.held else f"no: {check.found}"

    @property
    def _since_trouble(self) -> list[Sample]:
        begin_s = self.experiment.phases[0].duration_s
        return [sample for sample in self.samples if sample.t >= begin_s]

    def _goodput(self, from_s: float, to_s: float) -> str:
        """Return what was done in time of what was offered, in the seconds from one time to another."""
        seen = [sample for sample in self.samples if from_s <= sample.t < to_s]
        if not seen:
            return "not seen"
        goodput = sum(sample.goodput_per_s for sample in seen) / len(seen)
        offered = sum(sample.offered_per_s for sample in seen) / len(seen)
        return f"{goodput:.0f} of {offered:.0f}/s"


ROWS = (
    ("done in time, before", "before"),
    ("while the load is doubled and the shard restarts", "during"),
    (f"in the last {LAST_S} s, with the load as before", "at_the_end"),
    ("of these, new orders", "orders_at_the_end"),
    ("all is well again", "recovered"),
    ("attempts for each request", "attempts"),
    ("refused at once; outcome unknown", "refused"),
    ("stages of the shard", "stages"),
    ("memory at first; at most", "memory"),
    ("on the status page after; announced after", "told_public"),
    ("nothing acknowledged is lost, nothing refused is done", "told_true"),
)


def side_by_side(naive: Outcome, staged: Outcome) -> list[tuple[str, str, str]]:
    """Return the rows of the table of both: what, without the policies, with them."""
    return [(title, getattr(naive, name), getattr(staged, name)) for title, name in ROWS]


def moral(naive: Verdict, staged: Verdict) -> str:
    """Return a sentence on what both runs together have shown."""
    stays_down = naive.exit_code == ExitCode.HELD
    comes_back = staged.exit_code == ExitCode.HELD
    if stays_down and comes_back:
        return "The same restart into the same load: without the policies it stays down, with them it comes back."
    broken = [verdict.summary for verdict in (naive, staged) if verdict.exit_code != ExitCode.HELD]
    return f"Not as it was meant to be: {'; '.join(broken)}"
