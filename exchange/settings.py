"""The settings that an operator changes while the exchange runs: how it meets overload and how it comes back.

Each value has a declared range, and a reason for it; `settings_text` reads and writes them. Units are in the names.
The research behind the defaults: CoDel (Nichols and Jacobson), Breakwater's credits (OSDI 2020), Finagle's retry
budget, Google's SRE throttle, Envoy's slow start.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class SettingsInvalid(ValueError):
    """Settings that cannot be taken; the message says for each value what was expected, what was found, and why.

    `names` are those of the values, as `queues.orders_wait_ms`; none if the text is no TOML.
    """

    code = "SETTINGS_INVALID"

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


# The first of each pair may not be more than the second.
_ORDERED = (
    ("deadlines.default_ms", "deadlines.max_ms"),
    ("codel.target_ms", "codel.interval_ms"),
    ("detection.suspect_after_ms", "detection.dead_after_ms"),
    ("detection.dead_after_ms", "detection.dead_alone_after_ms"),
)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Deadlines(_Section, frozen=True, forbid_unknown_fields=True):
    """How long a command may be under way until the journal has it."""

    default_ms: Annotated[
        int,
        Meta(
            ge=50,
            le=5_000,
            description="less has clients retry what is being served, more holds what nobody waits for",
        ),
    ] = 1_000
    max_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=60_000,
            description="every request has its outcome within 10 s, so nothing may wait much longer than clients do",
        ),
    ] = 5_000
    # What the way back takes: a command with less left is not worth starting.
    margin_ms: Annotated[
        int,
        Meta(ge=0, le=1_000, description="more than the way back takes refuses what would have been in time"),
    ] = 20


class Queues(_Section, frozen=True, forbid_unknown_fields=True):
    """The longest wait in a gateway's queue to a shard, by class: a queue holds what is served in that time.

    Cancels have none: they are never shed.
    """

    passive_wait_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=5_000,
            description="less sheds what a short pause would have served, more than clients wait is in vain",
        ),
    ] = 500
    orders_wait_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=5_000,
            description="less sheds what a short pause would have served, more than clients wait is in vain",
        ),
    ] = 250
    queries_wait_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=5_000,
            description="less sheds what a short pause would have served, more than clients wait is in vain",
        ),
    ] = 250
    # Of the estimate of the rate of service.
    half_life_ms: Annotated[
        int,
        Meta(ge=100, le=60_000, description="less follows every hiccup, more is late when a shard gets slow"),
    ] = 5_000


class Codel(_Section, frozen=True, forbid_unknown_fields=True):
    """When a class has been slow for a whole interval, and so sheds what waited longer than twice the target."""

    # A client that keeps 5,000 commands in flight has a queue of 50 ms, and nothing is wrong with that.
    target_ms: Annotated[
        int,
        Meta(ge=1, le=1_000, description="less than a batch takes sheds without need, more lets a queue stand"),
    ] = 50
    interval_ms: Annotated[
        int,
        Meta(ge=10, le=5_000, description="less than a few batches take sheds on a hiccup, more is late"),
    ] = 100


class Credits(_Section, frozen=True, forbid_unknown_fields=True):
    """How many commands a gateway may have under way to a shard: more while the shard's queue is short."""

    # Of work, without the journal: a batch of 2,000 commands, as large as any, takes 20 ms.
    target_ms: Annotated[
        int,
        Meta(ge=1, le=1_000, description="less than a batch takes starves the shard, more lets a queue stand in it"),
    ] = 25
    start: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="without any a gateway could not begin, with too many the first ones flood a shard",
        ),
    ] = 64


class RateLimit(_Section, frozen=True, forbid_unknown_fields=True):
    """A token bucket of an account: orders a second in the long run, and at once."""

    orders_per_s: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="0 would stop an account: revoke its keys instead"),
    ]
    burst: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="0 would let nothing through"),
    ]


class RateLimits(_Section, frozen=True, forbid_unknown_fields=True):
    """By tier of the account. Cancels have a bucket of their own, ten times as big."""

    standard: RateLimit = RateLimit(orders_per_s=500, burst=1_000)
    maker: RateLimit = RateLimit(orders_per_s=5_000, burst=10_000)


class Breaker(_Section, frozen=True, forbid_unknown_fields=True):
    """A gateway that has `accepts_factor` times more refused than accepted by a shard asks it less (SRE throttle)."""

    accepts_factor: Annotated[
        float,
        Meta(ge=1.1, le=10, description="1 or less refuses while all is well, more than 10 never helps"),
    ] = 2.0
    window_ms: Annotated[
        int,
        Meta(
            ge=1_000, le=120_000, description="less follows every hiccup, more stays closed long after a shard is back"
        ),
    ] = 10_000


class Recovery(_Section, frozen=True, forbid_unknown_fields=True):
    """How a shard reopens: the least stay in each stage, and the ramp of the rate of orders."""

    cancel_only_ms: Annotated[
        int,
        Meta(ge=0, le=600_000, description="a market that stays closed for longer is for a person to hold"),
    ]
    post_only_ms: Annotated[
        int,
        Meta(ge=0, le=600_000, description="a market that stays closed for longer is for a person to hold"),
    ]
    ramp_ms: Annotated[
        int,
        Meta(ge=0, le=600_000, description="a market that is held back for longer is for a person to hold"),
    ]
    # How long all must be well before the next stage; in LIMITED, at the ramp's full rate.
    healthy_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="more keeps a market closed without need",
        ),
    ]


class Stages(_Section, frozen=True, forbid_unknown_fields=True):
    """Staged recovery. Warm: a standby took over; cold: the shard was started and had to replay.

    A profile whose values are all 0 opens at once.
    """

    warm: Recovery = Recovery(cancel_only_ms=500, post_only_ms=500, ramp_ms=2_000, healthy_ms=500)
    cold: Recovery = Recovery(cancel_only_ms=2_000, post_only_ms=2_000, ramp_ms=7_000, healthy_ms=1_000)
    # Orders a second, of a shard whose capacity nobody has measured yet: the ramp's measure.
    capacity_per_s: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="0 would let nothing in, and so never be measured"),
    ] = 2_000
    delay_target_ms: Annotated[
        int,
        Meta(ge=1, le=5_000, description="less than a batch takes is never met, more opens into an overload"),
    ] = 50
    goodput_min: Annotated[
        float,
        Meta(ge=0.5, le=1, description="less than half is no recovery"),
    ] = 0.95
    # Overloaded for so long: back by one stage, at half the rate.
    overloaded_ms: Annotated[
        int,
        Meta(ge=100, le=60_000, description="less steps back on a hiccup, more is late"),
    ] = 1_000
    hysteresis_ms: Annotated[
        int,
        Meta(ge=0, le=600_000, description="less swings between two stages, more keeps a market closed without need"),
    ] = 10_000
    # So many steps back within the window: it stays in CANCEL_ONLY until a person decides.
    regresses_max: Annotated[
        int,
        Meta(ge=1, le=100, description="0 would never reopen, many hide what a person should see"),
    ] = 3
    regress_window_ms: Annotated[
        int,
        Meta(ge=1_000, le=3_600_000, description="less forgets before a second recovery has run"),
    ] = 300_000


class Governor(_Section, frozen=True, forbid_unknown_fields=True):
    """What keeps restarts from becoming the next outage."""

    # A planned restart is refused above this share of the measured capacity.
    utilisation_max: Annotated[
        float,
        Meta(ge=0.1, le=1, description="1 lets a restart meet a full load, close to 0 never lets one"),
    ] = 0.6
    # More restarts a minute than this: the component is parked until a person lets it go.
    restarts_per_min_max: Annotated[
        int,
        Meta(ge=1, le=1_000, description="0 would leave down what died once, many restart what cannot run"),
    ] = 5
    # The longest wait before a start, after losses in a row.
    backoff_max_ms: Annotated[
        int,
        Meta(ge=0, le=600_000, description="0 starts what cannot run again and again, more leaves it down for long"),
    ] = 30_000


class Detection(_Section, frozen=True, forbid_unknown_fields=True):
    """How long a process may leave a ping unanswered; one that died is noticed at once.

    A machine with a standby is taken over: the fence makes that safe also if it was only slow. Others are killed and
    started again, which takes longer than a slow disk or a busy machine do, the likelier causes.
    """

    suspect_after_ms: Annotated[
        int,
        Meta(ge=50, le=60_000, description="a process that is only busy answers within this"),
    ] = 500
    dead_after_ms: Annotated[
        int,
        Meta(
            ge=100, le=600_000, description="less takes over from a process that is only busy, more prolongs an outage"
        ),
    ] = 1_000
    dead_alone_after_ms: Annotated[
        int,
        Meta(ge=100, le=600_000, description="less ends a process for a slow disk, more prolongs an outage"),
    ] = 10_000


class Rollout(_Section, frozen=True, forbid_unknown_fields=True):
    """How new settings are rolled out: to one process first, then to more, each step watched."""

    watch_ms: Annotated[
        int,
        Meta(
            ge=500,
            le=3_600_000,
            description="less sees no more than a few pings, and an hour is long to be half rolled out",
        ),
    ] = 5_000
    # A breach while it is watched takes the settings back.
    p99_max_ms: Annotated[
        int,
        Meta(ge=1, le=60_000, description="it is what clients are promised, which no client waits a minute for"),
    ] = 500
    refused_max: Annotated[
        float,
        Meta(ge=0, le=1, description="a share of what was asked, at most all of it"),
    ] = 0.01


class Settings(_Section, frozen=True, forbid_unknown_fields=True):
    """All of it. `profile = "naive"` turns every policy off, for experiments: nobody should trade on that."""

    profile: Literal["staged", "naive"] = "staged"
    # A shard that takes at least so long for an order has a known capacity: for experiments, on machines whose load
    # generator would be the limit otherwise. 0: as fast as it can.
    service_time_us: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="a second an order is as good as halted"),
    ] = 0
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
        for lower, higher in _ORDERED:
            low, high = (attrgetter(name)(self) for name in (lower, higher))
            if low > high:
                message = f"{lower}: expected at most {higher}, which is {high:,}, was {low:,}"
                raise SettingsInvalid(message, (lower, higher))


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


def pack_settings(settings: Settings) -> bytes:
    """Return settings as they go to a process."""
    return msgspec.msgpack.encode(settings)


def unpack_settings(packed: bytes) -> Settings:
    """Return settings from their packed form."""
    return msgspec.msgpack.decode(packed, type=Settings)
