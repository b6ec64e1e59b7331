"""The settings that an operator changes while the exchange runs: how it meets overload and how it comes back.

Read from TOML, each value within a declared range; what is not named keeps its default. Units are in the names. The
research behind the defaults: CoDel (Nichols and Jacobson), Breakwater's credits (OSDI 2020), Finagle's retry budget,
Google's SRE throttle, Envoy's slow start.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class SettingsInvalid(ValueError):
    """A value is unknown or outside its range; the message says which, what was expected and what was found."""

    code = "SETTINGS_INVALID"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Deadlines(_Section, frozen=True, forbid_unknown_fields=True):
    """How long a command may be under way until the journal has it."""

    default_ms: Annotated[int, Meta(ge=50, le=5_000)] = 1_000
    max_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    # What the way back takes: a command with less left is not worth starting.
    margin_ms: Annotated[int, Meta(ge=0, le=1_000)] = 20


class Queues(_Section, frozen=True, forbid_unknown_fields=True):
    """The longest wait in a gateway's queue to a shard, by class: a queue holds what is served in that time.

    Cancels have none: they are never shed.
    """

    passive_wait_ms: Annotated[int, Meta(ge=10, le=5_000)] = 500
    orders_wait_ms: Annotated[int, Meta(ge=10, le=5_000)] = 250
    queries_wait_ms: Annotated[int, Meta(ge=10, le=5_000)] = 250
    # Of the estimate of the rate of service.
    half_life_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000


class Codel(_Section, frozen=True, forbid_unknown_fields=True):
    """When a class has been slow for a whole interval, and so sheds what waited longer than twice the target."""

    # A client that keeps 5,000 commands in flight has a queue of 50 ms, and nothing is wrong with that.
    target_ms: Annotated[int, Meta(ge=1, le=1_000)] = 50
    interval_ms: Annotated[int, Meta(ge=10, le=5_000)] = 100


class Credits(_Section, frozen=True, forbid_unknown_fields=True):
    """How many commands a gateway may have under way to a shard: more while the shard's queue is short."""

    # Of work, without the journal: a batch of 2,000 commands, as large as any, takes 20 ms.
    target_ms: Annotated[int, Meta(ge=1, le=1_000)] = 25
    start: Annotated[int, Meta(ge=1, le=100_000)] = 64


class RateLimit(_Section, frozen=True, forbid_unknown_fields=True):
    """A token bucket of an account: orders a second in the long run, and at once."""

    orders_per_s: Annotated[int, Meta(ge=1, le=10_000_000)]
    burst: Annotated[int, Meta(ge=1, le=10_000_000)]


class RateLimits(_Section, frozen=True, forbid_unknown_fields=True):
    """By tier of the account. Cancels have a bucket of their own, ten times as big."""

    standard: RateLimit = RateLimit(orders_per_s=500, burst=1_000)
    maker: RateLimit = RateLimit(orders_per_s=5_000, burst=10_000)


class Breaker(_Section, frozen=True, forbid_unknown_fields=True):
    """A gateway that has `accepts_factor` times more refused than accepted by a shard asks it less (SRE throttle)."""

    accepts_factor: Annotated[float, Meta(ge=1.1, le=10)] = 2.0
    window_ms: Annotated[int, Meta(ge=1_000, le=120_000)] = 10_000


class Recovery(_Section, frozen=True, forbid_unknown_fields=True):
    """How a shard reopens: the least stay in each stage, and the ramp of the rate of orders."""

    cancel_only_ms: Annotated[int, Meta(ge=0, le=600_000)]
    post_only_ms: Annotated[int, Meta(ge=0, le=600_000)]
    ramp_ms: Annotated[int, Meta(ge=0, le=600_000)]
    # How long all must be well before the next stage; in LIMITED, at the ramp's full rate.
    healthy_ms: Annotated[int, Meta(ge=0, le=60_000)]


class Stages(_Section, frozen=True, forbid_unknown_fields=True):
    """Staged recovery. Warm: a standby took over; cold: the shard was started and had to replay.

    A profile whose values are all 0 opens at once.
    """

    warm: Recovery = Recovery(cancel_only_ms=500, post_only_ms=500, ramp_ms=2_000, healthy_ms=500)
    cold: Recovery = Recovery(cancel_only_ms=2_000, post_only_ms=2_000, ramp_ms=7_000, healthy_ms=1_000)
    # Orders a second, of a shard whose capacity nobody has measured yet: the ramp's measure.
    capacity_per_s: Annotated[int, Meta(ge=1, le=10_000_000)] = 2_000
    delay_target_ms: Annotated[int, Meta(ge=1, le=5_000)] = 50
    goodput_min: Annotated[float, Meta(ge=0.5, le=1)] = 0.95
    # Overloaded for so long: back by one stage, at half the rate.
    overloaded_ms: Annotated[int, Meta(ge=100, le=60_000)] = 1_000
    hysteresis_ms: Annotated[int, Meta(ge=0, le=600_000)] = 10_000
    # So many steps back within the window: it stays in CANCEL_ONLY until a person decides.
    regresses_max: Annotated[int, Meta(ge=1, le=100)] = 3
    regress_window_ms: Annotated[int, Meta(ge=1_000, le=3_600_000)] = 300_000


class Governor(_Section, frozen=True, forbid_unknown_fields=True):
    """What keeps restarts from becoming the next outage."""

    # A planned restart is refused above this share of the measured capacity.
    utilisation_max: Annotated[float, Meta(ge=0.1, le=1)] = 0.6
    # More restarts a minute than this: the component is parked until a person lets it go.
    restarts_per_min_max: Annotated[int, Meta(ge=1, le=1_000)] = 5
    # The longest wait before a start, after losses in a row.
    backoff_max_ms: Annotated[int, Meta(ge=0, le=600_000)] = 30_000


class Detection(_Section, frozen=True, forbid_unknown_fields=True):
    """How long a process may leave a ping unanswered; one that died is noticed at once.

    A machine with a standby is taken over: the fence makes that safe also if it was only slow. Others are killed and
    started again, which takes longer than a slow disk or a busy machine do, the likelier causes.
    """

    suspect_after_ms: Annotated[int, Meta(ge=50, le=60_000)] = 500
    dead_after_ms: Annotated[int, Meta(ge=100, le=600_000)] = 1_000
    dead_alone_after_ms: Annotated[int, Meta(ge=100, le=600_000)] = 10_000


class Rollout(_Section, frozen=True, forbid_unknown_fields=True):
    """How new settings are rolled out: to one process first, then to more, each step watched."""

    watch_ms: Annotated[int, Meta(ge=500, le=3_600_000)] = 5_000
    # A breach while it is watched takes the settings back.
    p99_max_ms: Annotated[int, Meta(ge=1, le=60_000)] = 500
    refused_max: Annotated[float, Meta(ge=0, le=1)] = 0.05


class Settings(_Section, frozen=True, forbid_unknown_fields=True):
    """All of it. `profile = "naive"` turns every policy off, for experiments: nobody should trade on that."""

    profile: Literal["staged", "naive"] = "staged"
    # A shard that takes at least so long for an order has a known capacity: for experiments, on machines whose load
    # generator would be the limit otherwise. 0: as fast as it can.
    service_time_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    deadlines: Deadlines = Deadlines()
    queues: Queues = Queues()
    codel: Codel = Codel()
    credits: Credits = Credits()
    rate_limits: RateLimits = RateLimits()
    breaker: Breaker = Breaker()
    stages: Stages = Stages()
    governor: Governor = Governor()
    detection: Detection = Detection()
    rollout: Rollout = Rollout()

    @property
    def is_naive(self) -> bool:
        return self.profile == "naive"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("deadlines.default_ms", self.deadlines.default_ms, self.deadlines.max_ms),
            ("codel.target_ms", self.codel.target_ms, self.codel.interval_ms),
            ("detection.suspect_after_ms", self.detection.suspect_after_ms, self.detection.dead_after_ms),
            ("detection.dead_after_ms", self.detection.dead_after_ms, self.detection.dead_alone_after_ms),
        ):
            if low > high:
                raise ValueError(f"{name}: expected at most {high}, as another setting says, was {low}")


def opening_at_once(settings: Settings | None = None) -> Settings:
    """Return settings in which shards that come back open at once: for tools that measure or test something else."""
    settings = settings or Settings()
    at_once = Recovery(cancel_only_ms=0, post_only_ms=0, ramp_ms=0, healthy_ms=0)
    stages = msgspec.structs.replace(settings.stages, warm=at_once, cold=at_once)
    return msgspec.structs.replace(settings, stages=stages)


def restarting_freely(settings: Settings | None = None) -> Settings:
    """Return settings in which nothing is parked or waits for its restart: for tools that make the failures."""
    settings = settings or Settings()
    governor = msgspec.structs.replace(settings.governor, restarts_per_min_max=1_000, backoff_max_ms=0)
    return msgspec.structs.replace(settings, governor=governor)


def parse_settings(toml: str) -> Settings:
    """Read settings. Raises `SettingsInvalid`."""
    try:
        return msgspec.toml.decode(toml, type=Settings)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SettingsInvalid(str(error)) from error


def format_settings(settings: Settings) -> str:
    """Return settings as TOML, every value of them."""
    return msgspec.toml.encode(settings).decode()
