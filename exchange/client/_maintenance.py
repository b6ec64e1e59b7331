"""Planned maintenance, as an operator sees it."""

from dataclasses import dataclass

from exchange.client._enums import MaintenanceAction, MaintenanceKind, MaintenanceState
from exchange.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class MaintenanceStep:
    action: MaintenanceAction
    component: str
    state: MaintenanceState
    begin_time_ns: int
    """0: not yet; so is the end."""
    end_time_ns: int
    detail: str

    @classmethod
    def from_proto(cls, message: admin_pb2.MaintenanceStep) -> "MaintenanceStep":
        return cls(
            action=MaintenanceAction(message.action),
            component=message.component,
            state=MaintenanceState(message.state),
            begin_time_ns=message.begin_time_ns,
            end_time_ns=message.end_time_ns,
            detail=message.detail,
        )


@dataclass(frozen=True, slots=True)
class Maintenance:
    """One piece of maintenance: its steps are done in order, one at a time."""

    kind: MaintenanceKind
    node: str
    shard: str
    """With neither node nor shard it is everything."""
    state: MaintenanceState
    steps: tuple[MaintenanceStep, ...]
    begin_time_ns: int
    end_time_ns: int
    detail: str

    @classmethod
    def from_proto(cls, message: admin_pb2.Maintenance) -> "Maintenance":
        return cls(
            kind=MaintenanceKind(message.kind),
            node=message.node,
            shard=message.shard,
            state=MaintenanceState(message.state),
            steps=tuple(MaintenanceStep.from_proto(step) for step in message.steps),
            begin_time_ns=message.begin_time_ns,
            end_time_ns=message.end_time_ns,
            detail=message.detail,
        )


@dataclass(frozen=True, slots=True)
class MaintenanceStatus:
    newest: Maintenance | None
    """What is under way, else what was last; None if there never was any."""
    drained_nodes: tuple[str, ...]
    """Where nothing is started."""

    @classmethod
    def from_proto(cls, message: admin_pb2.GetMaintenanceResponse) -> "MaintenanceStatus":
        newest = Maintenance.from_proto(message.maintenance) if message.HasField("maintenance") else None
        return cls(newest, tuple(message.drained_nodes))
