"""The decisions of a rollout: whom new settings reach next, and when they are taken back. Pure; time is passed in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from exchange.settings import Rollout as Rules
from exchange.settings import Settings
from exchange.supervisor.service_levels import Levels, Part, Reading, Samples

SLOWER_MAX = 1.5
"""A p99 above the promise is no breach as long as it is no more than so many times what it was, or is with the others:
settings that end an overload must be able to come."""
ASKED_MIN = 20
"""A share of fewer says nothing."""
WINDOW_SHARE = 0.25
"""A step is judged from its first quarter on: by all of what was refused, and by the last quarter."""
PATIENCE = 10
"""A step that for so many times its watch cannot be judged, as something is away or does not answer, is a breach."""

# Whom a table concerns; the others concern both.
_GATEWAYS = {"codel", "breaker", "rate_limits"}
_SHARDS = {"stages", "service_time_us"}
_NOBODY = {"rollout", "governor"}


class Action(Enum):
    WAIT = "wait"
    NEXT = "next"
    APPLY = "apply"
    TAKE_BACK = "take back"


class Verdict(NamedTuple):
    action: Action
    detail: str = ""


class View(NamedTuple):
    """What is seen now. `away`: names with a process that is not up; `untold`: that have not got the new settings;
    `closed`: shards that do not take every order, although nobody holds them.
    """

    readings: Mapping[Part, Reading]
    losses: Mapping[str, int]
    away: Collection[str]
    untold: Collection[str]
    closed: Collection[str]


def steps_of(
    before: Settings, after: Settings, gateways: Sequence[str], machines: Sequence[str], *, at_once: bool = False
) -> tuple[tuple[str, ...], ...]:
    """Return who has the new settings after each step: one process, half of those that it concerns, all.

    A machine stands for its primary and its standby. Gateways and machines take turns, so that each kind is among the
    first half. What concerns the supervisor alone has no steps.
    """
    fields = [name for name in Settings.__struct_fields__ if getattr(before, name) != getattr(after, name)]
    if _NOBODY.issuperset(fields):
        return ()
    is_gateways = not _SHARDS.issuperset(fields)
    is_machines = not _GATEWAYS.issuperset(set(fields) - _NOBODY)
    shards = [name for name in machines if name.startswith("shard")]
    rest = [name for name in machines if name not in shards] if not (_SHARDS | _NOBODY).issuperset(fields) else []
    firsts, seconds = (list(gateways) if is_gateways else []), ([*shards, *rest] if is_machines else [])
    names: list[str] = []
    for place in range(max(len(firsts), len(seconds))):
        names += firsts[place : place + 1] + seconds[place : place + 1]
    if at_once:
        return (tuple(names),)
    return tuple(tuple(names[:count]) for count in sorted({1, (len(names) + 1) // 2, len(names)}))


class Rollout:
    """One rollout, from its first step. `samples` reach back to before it: that is what it is compared with.

    `losses` count how often each was lost so far, as in `View`.
    """

    def __init__(
        self,
        now_s: float,
        steps: Sequence[Sequence[str]],
        rules: Rules,
        samples: Samples,
        losses: Mapping[str, int],
    ) -> None:
        self.step = 0
        self._steps = steps
        self._rules = rules
        self._watch_s = rules.watch_ms / 1_000
        self._samples = samples
        self._before = samples.copy()
        self._losses = dict(losses)
        self._were_open: set[str] = set()
        self._begun_s = self._watched_s = now_s

    def begin(self, step: int, now_s: float, losses: Mapping[str, int]) -> None:
        """Watch the next step."""
        self._losses.update(
            (name, losses.get(name, 0)) for name in self._steps[step] if name not in self._steps[self.step]
        )
        self.step = step
        self._were_open.clear()
        self._begun_s = self._watched_s = now_s

    def see(self, now_s: float, view: View) -> Verdict:
        """Return what to do now."""
        self._samples.add(now_s, view.readings)
        new = self._steps[self.step]
        lost = [name for name in new if view.losses.get(name, 0) > self._losses.get(name, 0)]
        if lost:
            return Verdict(Action.TAKE_BACK, f"{', '.join(lost)} lost while the new settings were watched there")
        stepped_back = [name for name in new if name in view.closed and name in self._were_open]
        if stepped_back:
            return Verdict(Action.TAKE_BACK, f"{', '.join(stepped_back)} no longer open with the new settings")
        self._were_open.update(name for name in new if name not in view.closed)
        concerned = self._steps[-1]
        hindered = [name for name in concerned if name in view.away or name in view.closed]
        hindered += [name for name in new if name in view.untold and name not in hindered]
        if hindered:
            if now_s - self._begun_s > PATIENCE * self._watch_s:
                names = ", ".join(hindered)
                return Verdict(Action.TAKE_BACK, f"cannot be judged: {names} away, closed or not answering")
            # Who was away says nothing yet, and the others had its load.
            self._watched_s = now_s
            return Verdict(Action.WAIT)
        watched_s = now_s - self._watched_s
        if watched_s < WINDOW_SHARE * self._watch_s:
            return Verdict(Action.WAIT)
        breach = self._breach(now_s)
        if breach:
            return Verdict(Action.TAKE_BACK, breach)
        if watched_s < self._watch_s:
            return Verdict(Action.WAIT)
        return Verdict(Action.APPLY if self.step == len(self._steps) - 1 else Action.NEXT)

    def _breach(self, now_s: float) -> str:
        """Return what is worse than promised, than before, and than with those that have the old settings; or ""."""
        recently_s = now_s - WINDOW_SHARE * self._watch_s
        new, old, before = self._levels(recently_s)
        p99_max_ms = max(self._rules.p99_max_ms, SLOWER_MAX * max(before.p99_ms, old.p99_ms))
        if new.p99_ms > p99_max_ms:
            return f"p99 delay: expected at most {p99_max_ms:.0f} ms; {_seen(new, old, before)}"
        # A few in a hundred show only in many, and what has just begun only in the latest.
        for since_s in (self._watched_s, recently_s):
            new, old, before = self._levels(since_s)
            refused_max = self._rules.refused_max + max(before.refused_share, old.refused_share)
            if new.asked >= ASKED_MIN and new.refused_share_min > refused_max:
                return f"refused: expected at most {refused_max:.1%}; {_seen(new, old, before)}"
        return ""

    def _levels(self, since_s: float) -> tuple[Levels, Levels, Levels]:
        """Return those with the new settings and with the old ones, since then, and the former before the rollout."""
        # A link has the new settings if one end has: either may be why it is slow, or refuses.
        has_new = set(self._steps[self.step])
        return (
            self._samples.levels(lambda part: not has_new.isdisjoint(part), since_s),
            self._samples.levels(has_new.isdisjoint, since_s),
            self._before.levels(lambda part: not has_new.isdisjoint(part), 0.0),
        )


def _seen(new: Levels, old: Levels, before: Levels) -> str:
    return f"with the new settings {_told(new)}; with the old ones {_told(old)}; before {_told(before)}"


def _told(levels: Levels) -> str:
    return f"p99 {levels.p99_ms:.0f} ms, {levels.refused_share:.1%} of {levels.asked:,} refused"
