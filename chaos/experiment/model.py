"""An experiment as data. `chaos schema` publishes it as JSON Schema; `read` (in `library`) checks what no schema can.

Times are in s of the experiment: phases come one after the other, and `at_s` counts from the begin of its phase.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
RuleName = Literal["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13"]
ALL_RULES: tuple[RuleName, ...] = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13")


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Market(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An instrument that is traded, the number of its shard, and the price that its load is laid around."""

    symbol: Annotated[str, Meta(pattern=r"^[A-Z0-9]{2,10}-[A-Z0-9]{2,10}$")]
    shard: Annotated[int, Meta(ge=0)] = 0
    price: Positive = 60_000.0


class Environment(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The private exchange of an experiment. An attached one is as it is; it must have what is named here."""

    nodes: Annotated[int, Meta(ge=1, le=5)] = 1
    """More than one need `journal: nats`."""
    shards: Annotated[int, Meta(ge=1, le=16)] = 1
    gateways: Annotated[int, Meta(ge=1, le=16)] = 1
    standbys: bool = True
    journal: Literal["file", "nats"] = "file"
    links: Literal["direct", "proxied", "apart"] = "direct"
    """`proxied`: clients and NATS are reached through TCP proxies that the lab holds; `apart`: each node has a network
    namespace of its own (root)."""
    capacity_per_s: Annotated[int, Meta(ge=1)] | None = None
    """Declared: each command takes 1/capacity in its shard. None: as fast as the machine is."""
    profile: Literal["staged", "naive"] = "staged"
    """`naive`: every policy of the exchange is off."""
    status_page: bool = False
    """A status service beside it, as a process of its own (`status` for faults): what it tells the public is checked
    and kept."""
    settings: dict[str, Any] = {}
    """Of the exchange, as in its TOML file: section to name to value."""
    markets: tuple[Market, ...] = (Market(symbol="BTC-USDT"),)


class Population(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clients that behave alike. `per_s` is what all of them together send at a load of 1."""

    name: Name
    behaviour: Literal["makers", "takers", "arbitrageurs", "crowd", "flow", "replay"]
    """`makers` requote, `takers` cross, `arbitrageurs` answer trades of one market in another, `crowd` polls (queries),
    `flow` mixes every kind of order, `replay` sends a recorded flow."""
    clients: Annotated[int, Meta(ge=1, le=10_000)] = 1
    per_s: Positive
    process: Literal["constant", "poisson", "hawkes"] = "poisson"
    retry: Literal["none", "backoff", "budget", "naive", "ignores-pushback"] = "budget"
    """`budget`: as the SDK does by default; `naive`: again at once, whatever it is told."""
    transport: Literal["unary", "session"] = "unary"
    deadline_ms: Annotated[int, Meta(ge=10, le=60_000)] = 1_000
    markets: tuple[str, ...] = ()
    """None named: all."""
    recording: str = ""
    """Of `replay`: a file, relative to the experiment's."""


class FaultStep(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault that is done in a phase, `for_s` seconds if it is one that is taken back."""

    fault: Name
    """As `chaos list --faults` names it."""
    at_s: Seconds = 0.0
    for_s: Seconds = 0.0
    target: str = ""
    """What it is done to: a component, node or server by name (`shard-0`, `node-1`, `nats-2`), a role (`shard`,
    `standby`, `gateway`, …: one of them, by the seed), a market, a link (`gateway-0:shard-0`), or a population."""
    arguments: dict[str, Any] = {}


class Phase(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    duration_s: Annotated[float, Meta(gt=0.0, le=86_400.0)]
    load: float | dict[str, float] = 1.0
    """How many times `per_s` is offered: of all populations, or of each by its name (those not named: 1)."""
    load_to: float | dict[str, float] | None = None
    """If given, the load goes there in a straight line until the end of the phase."""
    faults: tuple[FaultStep, ...] = ()
    is_trigger: bool = False
    """The trouble is over with the end of the last such phase: recovery counts from there."""


class SteadyState(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold in the first phase, before anything is done."""

    goodput_min: Share = 0.95
    p99_ms_max: Positive = 1_000.0


class ServiceLevels(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is promised. None: not looked at. Of the time from the first fault on, unless they say otherwise."""

    recover_s: Seconds | None = None
    """From the end of the trigger until goodput is `recovered_goodput` of what is offered, and stays so (I11)."""
    recovered_goodput: Share = 0.95
    goodput_min: Share | None = None
    """Of what is offered, in each window of 3 s, over the whole experiment."""
    p99_ms_max: Positive | None = None
    cancel_p99_ms_max: Positive | None = None
    """Outside `REPLAYING` (I8)."""
    amplification_max: Positive | None = 1.5
    """Attempts for each request that was meant to be sent (I11)."""
    pause_s_max: Seconds | None = None
    """The longest time in which a market takes no new order."""
    memory_growth_mb_max: Positive | None = None
    """Of the exchange's processes together (I13)."""


class BlastRadius(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may suffer. In every other market goodput stays at `goodput_min` throughout."""

    markets: tuple[str, ...] = ()
    """None named: all may."""
    goodput_min: Share = 0.9
    p99_ms_max: Positive | None = None


class AbortWhen(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the experiment ends early and everything is taken back."""

    memory_mb_above: Positive = 8_000.0
    """Of the exchange's processes together."""
    disk_mb_below: Positive = 500.0
    """Free where the data is."""
    generator_late_ms_above: Positive | None = None
    """The load generator's own schedule error at p99 of 5 s: beyond, the figures would be its own."""


class SourceEvent(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of a published time line."""

    utc: str
    what: str
    mark: Literal["", "trigger", "trigger-end", "recovered"] = ""
    """What it is in the experiment's own time line, so that the two can be laid beside each other."""


class Incident(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The published outage that an experiment acts out."""

    exchange: str
    date: str
    minutes: Positive
    source: str
    timeline: tuple[SourceEvent, ...]
    promised: tuple[str, ...] = ()


class Experiment(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    title: str
    description: str = ""
    tags: tuple[Name, ...] = ()
    """`ci`: in the suite of the pipeline."""
    expect: Literal["hold", "deviate"] = "hold"
    deviates_in: tuple[RuleName, ...] = ()
    """Of `expect: deviate`: rules that it may break, besides service levels and those of overload, I11 and I13."""
    seed: int = 1
    environment: Environment
    load: Annotated[tuple[Population, ...], Meta(min_length=1)]
    phases: Annotated[tuple[Phase, ...], Meta(min_length=2)]
    """The first one is the steady state: it has no fault and a load of 1."""
    steady_state: SteadyState = SteadyState()
    invariants: tuple[RuleName, ...] = ALL_RULES
    sometimes: tuple[Name, ...] = ()
    """What must really have happened at least once, such as `shed`, `fenced`, `regressed`, `retried`."""
    service_levels: ServiceLevels = ServiceLevels()
    blast_radius: BlastRadius = BlastRadius()
    abort_when: AbortWhen = AbortWhen()
    incident: Incident | None = None

    @property
    def duration_s(self) -> float:
        return sum(phase.duration_s for phase in self.phases)

    @property
    def trigger_end_s(self) -> float:
        """When the trouble is over: the end of the last trigger phase, else of the last phase with a fault."""
        end_s = trigger_s = fault_s = 0.0
        for phase in self.phases:
            end_s += phase.duration_s
            trigger_s = end_s if phase.is_trigger else trigger_s
            fault_s = end_s if phase.faults else fault_s
        return trigger_s or fault_s
