"""What is told, as values: components, incidents, maintenance. Times are UTC, in ns since the epoch; 0: not yet.

The words of states and impacts are those of the Statuspage API, so that its clients can read ours.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ComponentStatus(StrEnum):
    OPERATIONAL = "operational"
    DEGRADED = "degraded_performance"
    PARTIAL_OUTAGE = "partial_outage"
    MAJOR_OUTAGE = "major_outage"
    MAINTENANCE = "under_maintenance"


class IncidentStatus(StrEnum):
    INVESTIGATING = "investigating"
    IDENTIFIED = "identified"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    POSTMORTEM = "postmortem"


class MaintenanceStatus(StrEnum):
    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    CANCELED = "canceled"


class Impact(StrEnum):
    NONE = "none"
    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"


class TradingMode(StrEnum):
    """What a market lets through; `exchange/engine/words.py` has the stages behind it."""

    ONLINE = "online"
    LIMITED = "limited"
    POST_ONLY = "post_only"
    CANCEL_ONLY = "cancel_only"
    RECOVERING = "recovering"
    HALTED = "halted"
    UNKNOWN = "unknown"


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Component(_Value, frozen=True, kw_only=True):
    """A thing that users know: trading or market data of a market, the API of a gateway, accounts and funds."""

    id: str
    """Stable: `trading-btc-usdt`, `market-data-btc-usdt`, `api-gateway-0`, `funds`."""
    name: str
    group: str
    """`Trading`, `Market data`, `API`, `Accounts`."""
    position: int
    status: ComponentStatus
    since_ns: int
    description: str = ""
    reason: str = ""
    """Why it is not operational, in words for the public."""
    instrument: str = ""
    trading_mode: TradingMode | None = None
    """Of trading components."""
    next_mode_ns: int = 0
    """When the next trading mode is expected."""
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0
    """Of the probes of the last minute."""
    checked_ns: int = 0
    created_ns: int = 0


class Update(_Value, frozen=True, kw_only=True):
    """A line in the time line of an incident or of a maintenance."""

    id: str
    at_ns: int
    status: IncidentStatus | MaintenanceStatus
    body: str
    by: str = "automatic"
    """Or "operator"."""
    components: tuple[tuple[str, ComponentStatus], ...] = ()
    """As they were then."""
    corrected_ns: int = 0
    """When an operator corrected the body; what it was first stays visible."""
    body_before: str = ""


class Incident(_Value, frozen=True, kw_only=True):
    id: str
    name: str
    status: IncidentStatus
    impact: Impact
    """The worst that it came to."""
    components: tuple[str, ...]
    instruments: tuple[str, ...]
    started_ns: int
    created_ns: int
    updated_ns: int
    identified_ns: int = 0
    monitoring_ns: int = 0
    resolved_ns: int = 0
    updates: tuple[Update, ...] = ()
    """Newest first."""
    cause: str = ""
    postmortem: str = ""
    """Drafted from the event log, Markdown; only an operator publishes it."""


class Maintenance(_Value, frozen=True, kw_only=True):
    id: str
    name: str
    status: MaintenanceStatus
    components: tuple[str, ...]
    scheduled_for_ns: int
    scheduled_until_ns: int
    created_ns: int
    updated_ns: int
    begun_ns: int = 0
    completed_ns: int = 0
    updates: tuple[Update, ...] = ()
    rescheduled_from_ns: tuple[int, int] = (0, 0)


class Day(_Value, frozen=True, kw_only=True):
    """A component's day (UTC): how much of the measured time it was in each state."""

    date: str
    measured_s: float
    down_s: float
    """In a major outage."""
    degraded_s: float
    """Degraded or in a partial outage."""
    maintenance_s: float
    incidents: tuple[str, ...] = ()


class Latency(_Value, frozen=True, kw_only=True):
    """How long the probes of a component took, over a span of time that ends at `at_ns`."""

    at_ns: int
    p50_ms: float
    p99_ms: float


class Notice(_Value, frozen=True, kw_only=True):
    """A banner that an operator put up."""

    id: str
    body: str
    at_ns: int


class Board(_Value, frozen=True, kw_only=True):
    """All that the page, the API and the snapshot tell, of one moment."""

    version: int
    """Rises with every change."""
    page_name: str
    page_url: str
    updated_ns: int
    checked_ns: int
    """When the exchange was last looked at: older than some seconds means that this service itself is not well."""
    components: tuple[Component, ...]
    incidents: tuple[Incident, ...]
    """Unresolved, and those of the last 90 days, newest first."""
    maintenances: tuple[Maintenance, ...]
    notices: tuple[Notice, ...] = ()
    days: dict[str, tuple[Day, ...]] = {}
    """By component, the last 90, oldest first; days before it was measured are not there."""
    latency: dict[str, tuple[Latency, ...]] = {}
    """By component, the last 24 hours in equal steps (at most 288), oldest first; steps without a probe are missing."""

    @property
    def indicator(self) -> Impact:
        """The worst of what is now: none, minor, major or critical."""
        impacts = [incident.impact for incident in self.incidents if not incident.resolved_ns]
        order = (Impact.CRITICAL, Impact.MAJOR, Impact.MINOR)
        return next((impact for impact in order if impact in impacts), Impact.NONE)
