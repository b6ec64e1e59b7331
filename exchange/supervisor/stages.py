"""How a shard reopens: stage by stage, by what is measured of it, and never faster than its ramp.

`StagePolicy` decides for one shard. It reads no clock and sends nothing: whoever feeds it carries its moves out. A
shard whose load nobody measures, or that has none, is well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from exchange.engine.words import Stage
from exchange.settings import Recovery, Stages

RAMP_SHARE = 0.9
"""Of the capacity, at the end of the ramp: what is left over works off what waits."""
RAMP_START = 0.1
"""Of that, at its beginning. With less, the delays of the few that get through say nothing."""
RAMP_STEP_S = 0.25
OVERLOAD_FACTOR = 2.0
"""Between the target and so many times the target a shard is neither well nor overloaded: it stays where it is."""
TARGET_ORDERS = 20
"""The target is never less than what so many orders take: that they come together is no overload, though a slow shard,
one with a declared service time say, takes longer for them than the target.
"""
DELAY_MEMORY_S = 1.0
"""A host tells the delays of its last whole second. So what was slow for a moment looks slow for up to two seconds, and
what was slow for a second for at least two.
"""
GOODPUT_WINDOW_S = 1.0
GOODPUT_ORDERS_MIN = 20
"""Of fewer orders in a window, those that are just under way are too large a part."""
SILENCE_S_MAX = 1.0
"""Whoever was not heard of for so long was neither well nor overloaded meanwhile."""
NOTICE_S = 1.0
"""Between notices that the next stage is put off."""

_UPWARDS = (Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.OPEN)
# The last class of work that a stage lets through: 1 cancels, 2 what only adds to a book, 3 all orders.
_CLASS_MAX = {Stage.CANCEL_ONLY: 1, Stage.POST_ONLY: 2, Stage.LIMITED: 3, Stage.OPEN: 3}


class Profile(Enum):
    WARM = "a standby took over"
    COLD = "started and replayed"


@dataclass(frozen=True, slots=True)
class Health:
    """What a shard's host tells of its load.

    `delay_ms` of the last second by class of work; `admitted` and `done` count orders since the process began; a
    capacity of 0 is not known.
    """

    delay_ms: Mapping[int, float] = field(default_factory=dict)
    admitted: int = 0
    done: int = 0
    capacity_per_s: float = 0.0

    @classmethod
    def of(cls, load: Mapping[str, Any] | None) -> Health:
        """Read the `load` of a host's vitals; None: nobody measures it."""
        if load is None:
            return cls()
        delays = {int(work): float(delay) for work, delay in load.get("delay_ms", {}).items()}
        return cls(delays, load.get("admitted", 0), load.get("done", 0), load.get("capacity_per_s", 0.0))


@dataclass(frozen=True, slots=True)
class Move:
    """What the shard is to be told: a stage, or a rate or a notice within it.

    `next_in_s`: until the next stage is expected, 0 if nobody knows. `gives_up`: it stays there until a person decides.
    """

    stage: Stage
    orders_per_s: int
    reason: str
    next_in_s: float = 0.0
    gives_up: bool = False


def ramp_rate(capacity_per_s: float, into_s: float, ramp_s: float) -> float:
    """Return r(t) = 0.9 · capacity · max(0.1, t/T) in orders a second, t at most T (Envoy's slow start, linear)."""
    share = min(into_s / ramp_s, 1.0) if ramp_s > 0 else 1.0
    return RAMP_SHARE * capacity_per_s * max(share, RAMP_START)


class StagePolicy:
    """Moves one shard up while it is well, and back while it is overloaded.

    Once it has been open for as long as the hysteresis, it has reopened: an overload after that is for those who shed
    load, who refuse what is too much rather than half of what could be done. `settings` may be replaced at any time.
    """

    def __init__(self, settings: Stages) -> None:
        self.settings = settings
        self.capacity_per_s = float(settings.capacity_per_s)
        """As it was measured last, of this process or of the one before; until then as declared."""
        self.stage = Stage.CANCEL_ONLY
        self.profile = Profile.COLD
        self.gave_up = False
        self._orders_per_s = 0
        self._top = 1.0
        self._entered_s = self._ramp_s = self._step_s = self._seen_s = self._notice_s = 0.0
        self._held_until_s = 0.0
        self._well_since_s: float | None = None
        self._overloaded_since_s: float | None = None
        self._steps_back_s: deque[float] = deque()
        self._counts: deque[tuple[float, int, int]] = deque()

    @property
    def recovery(self) -> Recovery:
        """The profile's values."""
        return self.settings.warm if self.profile == Profile.WARM else self.settings.cold

    def is_over(self, now_s: float) -> bool:
        """Whether it has reopened."""
        return self.stage == Stage.OPEN and now_s >= self._entered_s + self.settings.hysteresis_ms / 1_000

    # ---------------------------------------------------------------- beginning

    def begin(self, now_s: float, profile: Profile) -> Move:
        """Begin to reopen; a profile without any stay opens at once."""
        self.profile = profile
        self._top, self.gave_up, self._held_until_s = 1.0, False, now_s
        self._counts.clear()
        recovery = self.recovery
        at_once = not (recovery.cancel_only_ms or recovery.post_only_ms or recovery.ramp_ms or recovery.healthy_ms)
        self._enter(Stage.OPEN if at_once else Stage.CANCEL_ONLY, now_s)
        if at_once:
            # Nobody asked for it to be watched.
            self._entered_s = now_s - self.settings.hysteresis_ms / 1_000
        return self._move(now_s, f"{profile.name.lower()}: {profile.value}")

    def open_at_once(self, now_s: float, reason: str) -> Move:
        """Open what has nothing to protect, or what a person wants open."""
        self._enter(Stage.OPEN, now_s)
        self._entered_s = now_s - self.settings.hysteresis_ms / 1_000
        return self._move(now_s, reason)

    def resume(self, now_s: float, profile: Profile, stage: Stage, in_stage_s: float, orders_per_s: int) -> None:
        """Go on where another supervisor has left a shard, which has been in its stage for so long."""
        self.profile = profile
        self._held_until_s = now_s
        self._enter(stage, now_s)
        self._entered_s = self._ramp_s = now_s - in_stage_s
        self._orders_per_s = orders_per_s

    def current(self, now_s: float, reason: str) -> Move:
        """Return the stage at hand as a move."""
        return self._move(now_s, reason)

    def skip(self, now_s: float, reason: str) -> Move:
        """Go one stage up now: a person wants it."""
        self._enter(_above(self.stage), now_s)
        return self._move(now_s, reason)

    def put_off(self, by_s: float) -> None:
        """Count the stage at hand from so much later: the shard could not be told sooner."""
        self._entered_s += by_s
        self._ramp_s += by_s
        self._notice_s += by_s

    # ---------------------------------------------------------------- going on

    def see(self, now_s: float, health: Health) -> Move | None:
        """Take what was measured; return what the shard is to be told, if anything."""
        if self.gave_up or self.is_over(now_s):
            return None
        self._measure(now_s, health)
        if self._overloaded_since_s is not None and self.stage != Stage.CANCEL_ONLY:
            for_s = now_s - self._overloaded_since_s
            if for_s >= self.settings.overloaded_ms / 1_000 + DELAY_MEMORY_S:
                return self._step_back(now_s, f"overloaded for {for_s:.1f} s, {self._told(health)}")
        if self.stage == Stage.OPEN:
            return None
        if self._is_well_long_enough(now_s) and now_s >= self._earliest_s():
            stay_s = now_s - self._entered_s
            self._enter(_above(self.stage), now_s)
            return self._move(now_s, f"well after {stay_s:.1f} s, {self._told(health)}")
        is_step_due = self.stage == Stage.LIMITED and now_s - self._step_s >= RAMP_STEP_S
        if is_step_due and self._rate(now_s) != self._orders_per_s:
            return self._move(now_s, "ramp")
        if now_s >= self._notice_s:
            return self._move(now_s, f"not well yet, {self._told(health)}")
        return None

    def _step_back(self, now_s: float, reason: str) -> Move:
        window_s = self.settings.regress_window_ms / 1_000
        self._steps_back_s.append(now_s)
        while self._steps_back_s[0] < now_s - window_s:
            self._steps_back_s.popleft()
        count = len(self._steps_back_s)
        if count >= self.settings.regresses_max:
            self.gave_up = True
            self._steps_back_s.clear()
            self._enter(Stage.CANCEL_ONLY, now_s)
            return self._move(now_s, f"{count} steps back within {window_s:.0f} s, a person must look: {reason}")
        self._top /= 2
        self._held_until_s = now_s + self.settings.hysteresis_ms / 1_000
        self._enter(_UPWARDS[_UPWARDS.index(self.stage) - 1], now_s)
        # One that was open has its ramp behind it: half the rate is the whole step.
        self._ramp_s = now_s - self.recovery.ramp_ms / 1_000
        return self._move(now_s, reason)

    # ---------------------------------------------------------------- what is measured

    def _measure(self, now_s: float, health: Health) -> None:
        settings = self.settings
        if health.capacity_per_s > 0:
            self.capacity_per_s = health.capacity_per_s
        if now_s - self._seen_s > SILENCE_S_MAX:
            self._well_since_s = self._overloaded_since_s = None
            self._counts.clear()
        self._seen_s = now_s
        delay_ms, goodput = self._delay_ms(health), self._goodput(now_s, health)
        target_ms = max(settings.delay_target_ms, TARGET_ORDERS * 1_000 / self.capacity_per_s)
        is_well = delay_ms <= target_ms and goodput >= settings.goodput_min
        is_overloaded = delay_ms > OVERLOAD_FACTOR * target_ms or goodput < settings.goodput_min
        if not is_well or self._is_ramping(now_s):
            # How it is before the ramp has reached its end says nothing of how it will be then.
            self._well_since_s = None
        elif self._well_since_s is None:
            self._well_since_s = now_s
        if not is_overloaded:
            self._overloaded_since_s = None
        elif self._overloaded_since_s is None:
            self._overloaded_since_s = now_s

    def _delay_ms(self, health: Health) -> float:
        """Return the longest delay of what the stage lets through; control, class 0, is nobody's load."""
        class_max = _CLASS_MAX[self.stage]
        return max((delay for work, delay in health.delay_ms.items() if 1 <= work <= class_max), default=0.0)

    def _goodput(self, now_s: float, health: Health) -> float:
        """Return which part of the orders admitted in the last second was done."""
        counts = self._counts
        if counts and health.admitted < counts[-1][1]:
            counts.clear()
        counts.append((now_s, health.admitted, health.done))
        while counts[0][0] < now_s - GOODPUT_WINDOW_S:
            counts.popleft()
        _, admitted, done = counts[0]
        if self.stage not in (Stage.LIMITED, Stage.OPEN) or health.admitted - admitted < GOODPUT_ORDERS_MIN:
            return 1.0
        return min((health.done - done) / (health.admitted - admitted), 1.0)

    def _told(self, health: Health) -> str:
        delays = ", ".join(f"{work}: {delay:.0f} ms" for work, delay in sorted(health.delay_ms.items()) if work)
        return f"delay by class {delays}" if delays else "no load"

    def _is_well_long_enough(self, now_s: float) -> bool:
        since_s = self._well_since_s
        return since_s is not None and now_s - since_s >= self.recovery.healthy_ms / 1_000

    # ---------------------------------------------------------------- stages and rates

    def _enter(self, stage: Stage, now_s: float) -> None:
        self.stage = stage
        self._entered_s = self._ramp_s = now_s
        self._orders_per_s = 0
        self._well_since_s = self._overloaded_since_s = None

    def _is_ramping(self, now_s: float) -> bool:
        return self.stage == Stage.LIMITED and now_s < self._ramp_s + self.recovery.ramp_ms / 1_000

    def _earliest_s(self) -> float:
        """Return when the stage may be left at the earliest."""
        recovery = self.recovery
        stays_ms = {Stage.CANCEL_ONLY: recovery.cancel_only_ms, Stage.POST_ONLY: recovery.post_only_ms}
        ends_s = self._entered_s + stays_ms.get(self.stage, 0) / 1_000
        return max(ends_s, self._held_until_s)

    def _rate(self, now_s: float) -> int:
        into_s = now_s - self._ramp_s
        return max(int(self._top * ramp_rate(self.capacity_per_s, into_s, self.recovery.ramp_ms / 1_000)), 1)

    def _next_in_s(self, now_s: float) -> float:
        """Return when the next stage is due if all is well from now on."""
        well_s = self._well_since_s if self._well_since_s is not None else now_s
        if self._is_ramping(now_s):
            well_s = self._ramp_s + self.recovery.ramp_ms / 1_000
        return max(self._earliest_s(), well_s + self.recovery.healthy_ms / 1_000) - now_s

    def _move(self, now_s: float, reason: str) -> Move:
        if self.stage == Stage.LIMITED:
            self._step_s, self._orders_per_s = now_s, self._rate(now_s)
        next_in_s = 0.0 if self.stage == Stage.OPEN or self.gave_up else max(self._next_in_s(now_s), 0.0)
        # The next stage may be late by a sample or two before that is worth a word.
        self._notice_s = now_s + next_in_s + NOTICE_S
        return Move(self.stage, self._orders_per_s, reason, next_in_s, self.gave_up)


def _above(stage: Stage) -> Stage:
    return _UPWARDS[min(_UPWARDS.index(stage) + 1, len(_UPWARDS) - 1)]
