"""What an operator sees: accounts, keys, and the parts of the exchange."""

from dataclasses import dataclass, field
from datetime import datetime

from exchange.client._enums import AccountTier, ComponentState, Permission, Role, RolloutState, Stage
from exchange.client._numbers import from_time_ns
from exchange.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class Account:
    account_id: int
    name: str
    create_time_ns: int
    tier: AccountTier = AccountTier.STANDARD

    @property
    def create_time(self) -> datetime:
        return from_time_ns(self.create_time_ns)

    @classmethod
    def from_proto(cls, message: admin_pb2.Account) -> "Account":
        tier = AccountTier(message.tier or AccountTier.STANDARD)
        return cls(message.account_id, message.name, message.create_time_ns, tier)


@dataclass(frozen=True, slots=True)
class ApiKey:
    key_id: str
    account_id: int
    permissions: tuple[Permission, ...]
    create_time_ns: int
    revoked: bool
    expire_time_ns: int = 0
    """0: never."""
    allowed_ips: tuple[str, ...] = ()
    """Addresses and networks that calls may come from; empty: from anywhere."""

    @property
    def create_time(self) -> datetime:
        return from_time_ns(self.create_time_ns)

    @property
    def expire_time(self) -> datetime | None:
        return from_time_ns(self.expire_time_ns) if self.expire_time_ns else None

    @classmethod
    def from_proto(cls, message: admin_pb2.ApiKey) -> "ApiKey":
        return cls(
            key_id=message.key_id,
            account_id=message.account_id,
            permissions=tuple(Permission(value) for value in message.permissions),
            create_time_ns=message.create_time_ns,
            revoked=message.revoked,
            expire_time_ns=message.expire_time_ns,
            allowed_ips=tuple(message.allowed_ips),
        )


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """The only time that the secret is seen: the exchange keeps its hash."""

    api_key: ApiKey
    secret: str = field(repr=False)
    """What a client is given as its `api_key`. Left out of `repr`, hence of logs."""


@dataclass(frozen=True, slots=True)
class InstrumentStage:
    """An instrument that is held by itself. Of its stage and its shard's the stricter one holds."""

    instrument: str
    stage: Stage
    reason: str
    time_ns: int
    orders_per_s: int

    @classmethod
    def from_proto(cls, message: admin_pb2.InstrumentStage) -> "InstrumentStage":
        return cls(message.instrument, Stage(message.stage), message.reason, message.time_ns, message.orders_per_s)


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """Of one class of work: control, cancels, passive, orders or queries."""

    work_class: str
    p99_delay_ms: float
    """Of the last second."""
    queued: int
    shed: dict[str, int]
    """By reason, since the process began."""
    served_per_s: float = 0.0
    """Of a gateway: the rate at which its queue is served; 0: not known."""

    @classmethod
    def from_proto(cls, message: admin_pb2.ClassLoad) -> "ClassLoad":
        return cls(message.work_class, message.p99_delay_ms, message.queued, dict(message.shed), message.served_per_s)


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """How a machine keeps up with its work; counts are of commands, since its process began."""

    classes: tuple[ClassLoad, ...]
    commands_per_s: float
    capacity_per_s: float
    """What it could do if it did nothing else; 0: not known yet."""
    utilisation: float
    admitted: int
    done: int
    late: int
    shed: int
    journal_lag_ms: float
    """How long the record that is being written has been under way; 0: none is."""

    @classmethod
    def from_proto(cls, message: admin_pb2.MachineLoad) -> "MachineLoad":
        return cls(
            classes=tuple(map(ClassLoad.from_proto, message.classes)),
            commands_per_s=message.commands_per_s,
            capacity_per_s=message.capacity_per_s,
            utilisation=message.utilisation,
            admitted=message.admitted,
            done=message.done,
            late=message.late,
            shed=message.shed,
            journal_lag_ms=message.journal_lag_ms,
        )


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """The queue of a gateway to a machine."""

    machine: str
    classes: tuple[ClassLoad, ...]
    limit: int
    """How many commands may be under way at once."""
    refusing: float
    """The share of requests that the breaker refuses."""

    @classmethod
    def from_proto(cls, message: admin_pb2.LinkLoad) -> "LinkLoad":
        classes = tuple(map(ClassLoad.from_proto, message.classes))
        return cls(message.machine, classes, message.limit, message.refusing)


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """What a gateway has taken and refused since its process began."""

    requests: int
    commands: int
    rate_limited: int
    links: tuple[LinkLoad, ...]

    @classmethod
    def from_proto(cls, message: admin_pb2.GatewayLoad) -> "GatewayLoad":
        links = tuple(map(LinkLoad.from_proto, message.links))
        return cls(message.requests, message.commands, message.rate_limited, links)


@dataclass(frozen=True, slots=True)
class Component:
    """A shard, the ledger, a gateway or the supervisor."""

    name: str
    state: ComponentState
    incarnation: int
    pid: int
    epoch: int
    sequence: int
    state_hash: str
    """Of a machine: in hexadecimal, right after the command `state_hash_sequence`; empty before the first snapshot."""
    state_hash_sequence: int
    stage: Stage
    """This and the next two: of a shard."""
    instruments: tuple[str, ...]
    open_orders: int
    address: str
    """Of a gateway."""
    detail: str
    restarts: int
    start_duration_ms: int
    role: Role
    """Of a machine: whether it writes the journal or follows it."""
    node: str
    record: int
    """Of a machine: the last record of its journal that it has applied."""
    stage_reason: str = ""
    """This and the next four: of a shard; why it is in its stage."""
    stage_time_ns: int = 0
    """Since when."""
    next_stage_time_ns: int = 0
    """When the next stage is expected; 0: nobody knows."""
    stage_orders_per_s: int = 0
    """With LIMITED: what it lets in."""
    instrument_stages: tuple["InstrumentStage", ...] = ()
    """Instruments that are held by themselves."""
    settings_version: int = 0
    """Of the settings that it has; 0: not known yet, or it has no use for any."""
    machine_load: MachineLoad | None = None
    """Of a machine that serves."""
    gateway_load: GatewayLoad | None = None
    metrics_url: str = ""
    """Of a gateway."""

    @property
    def next_stage_time(self) -> datetime | None:
        return from_time_ns(self.next_stage_time_ns) if self.next_stage_time_ns else None

    @classmethod
    def from_proto(cls, message: admin_pb2.Component) -> "Component":
        return cls(
            name=message.name,
            state=ComponentState(message.state),
            incarnation=message.incarnation,
            pid=message.pid,
            epoch=message.epoch,
            sequence=message.sequence,
            state_hash=message.state_hash,
            state_hash_sequence=message.state_hash_sequence,
            stage=Stage(message.stage),
            instruments=tuple(message.instruments),
            open_orders=message.open_orders,
            address=message.address,
            detail=message.detail,
            restarts=message.restarts,
            start_duration_ms=message.start_duration_ms,
            role=Role(message.role),
            node=message.node,
            record=message.record,
            stage_reason=message.stage_reason,
            stage_time_ns=message.stage_time_ns,
            next_stage_time_ns=message.next_stage_time_ns,
            stage_orders_per_s=message.stage_orders_per_s,
            instrument_stages=tuple(InstrumentStage.from_proto(stage) for stage in message.instrument_stages),
            settings_version=message.settings_version,
            machine_load=MachineLoad.from_proto(message.machine_load) if message.HasField("machine_load") else None,
            gateway_load=GatewayLoad.from_proto(message.gateway_load) if message.HasField("gateway_load") else None,
            metrics_url=message.metrics_url,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a component, as the supervisor saw it."""

    sequence: int
    time_ns: int
    kind: str
    component: str
    incarnation: int
    epoch: int
    node: str
    detail: str

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: admin_pb2.Event) -> "Event":
        return cls(
            message.sequence,
            message.time_ns,
            message.kind,
            message.component,
            message.incarnation,
            message.epoch,
            message.node,
            message.detail,
        )


@dataclass(frozen=True, slots=True)
class ExchangeStatus:
    components: tuple[Component, ...]
    version: str
    time_ns: int
    audit_breaks: int = 0
    """Rules of the books that the auditor found broken."""
    settings_version: int = 0
    rolling_version: int = 0
    """Of the settings that are being rolled out; 0: none are."""
    rollout_state: RolloutState = RolloutState.UNSPECIFIED
    """What became of the newest settings."""
    supervisors: tuple[Component, ...] = ()
    """Name, state, role, node and pid of each: the active one is the PRIMARY, the other one its STANDBY."""

    @property
    def time(self) -> datetime:
        return from_time_ns(self.time_ns)

    @classmethod
    def from_proto(cls, message: admin_pb2.GetStatusResponse) -> "ExchangeStatus":
        components = tuple(Component.from_proto(component) for component in message.components)
        return cls(
            components=components,
            version=message.version,
            time_ns=message.time_ns,
            audit_breaks=message.audit_breaks,
            settings_version=message.settings_version,
            rolling_version=message.rolling_version,
            rollout_state=RolloutState(message.rollout_state),
            supervisors=tuple(Component.from_proto(supervisor) for supervisor in message.supervisors),
        )
