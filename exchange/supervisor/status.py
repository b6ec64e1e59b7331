"""What `GetStatus` and `ListEvents` answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from exchange.engine.control import Control
from exchange.engine.stages import StageRow
from exchange.runtime.load_messages import gateway_load, machine_load
from exchange.supervisor.component import AUDITOR, Component, ComponentState
from exchange.supervisor.event_log import Event
from exchange.v1 import admin_pb2


class SupervisorSeen(NamedTuple):
    """A supervisor's process. `role` is a `runtime.host.Role`, `node` an id, `pid` 0 while it does not answer."""

    name: str
    role: int
    node: str
    pid: int


def encode_status(
    version: str,
    time_ns: int,
    components: Iterable[Component],
    machine: Control,
    node_names: Mapping[str, str],
    supervisors: Iterable[SupervisorSeen] = (),
) -> bytes:
    """Return a GetStatusResponse, serialised."""
    history = machine.settings
    newest = history.versions.get(history.newest)
    response = admin_pb2.GetStatusResponse(
        version=version,
        time_ns=time_ns,
        audit_breaks=len(machine.breaks),
        settings_version=history.applied,
        rolling_version=history.rolling,
        rollout_state=newest.state if newest is not None else 0,  # type: ignore[arg-type]  # numbers as in the protocol
    )
    placed = {symbol: shard for symbol, (_, shard) in machine.instruments.items()}
    for name, role, node, pid in supervisors:
        response.supervisors.add(
            name=name,
            state=int(ComponentState.UP if pid else ComponentState.DOWN),
            role=role,
            node=node_names.get(node, node),
            pid=pid,
            detail="" if pid else "does not answer",
        )
    for c in components:
        stages = [] if c.is_standby or c.state == ComponentState.DOWN else c.vitals.get("stages", ())
        whole = next((StageRow(*row) for row in stages if not row[0]), StageRow("", 0, 0, "", 0, 0))
        load = (c.vitals.get("load") or {}) if c.is_up else {}
        added = response.components.add(
            name=c.name,
            state=int(ComponentState.PARKED if c.parked and c.state == ComponentState.DOWN else c.state),
            incarnation=c.incarnation,
            pid=c.vitals.get("pid", 0),
            epoch=c.vitals.get("epoch", 0),
            sequence=c.vitals.get("sequence", 0),
            state_hash=c.vitals.get("state_hash", ""),
            state_hash_sequence=c.vitals.get("state_hash_sequence", 0),
            stage=whole.stage,
            stage_reason=whole.reason,
            stage_time_ns=whole.since_ns,
            next_stage_time_ns=whole.next_stage_time_ns,
            stage_orders_per_s=whole.orders_per_s,
            instrument_stages=[_instrument_stage(StageRow(*row)) for row in stages if row[0]],
            instruments=[symbol for symbol, shard in placed.items() if shard == c.name],
            open_orders=c.vitals.get("open_orders", 0),
            address=c.vitals.get("address", ""),
            detail=c.detail,
            restarts=max(c.restarts, 0),
            start_duration_ms=c.start_duration_ms,
            role=c.vitals.get("role", 0) if c.machine and c.is_up else 0,
            node=node_names.get(c.node, c.node),
            record=c.vitals.get("record", 0),
            settings_version=c.settings_version if c.name != AUDITOR else 0,
            metrics_url=c.vitals.get("metrics_url", ""),
        )
        if c.is_gateway:
            added.gateway_load.CopyFrom(gateway_load(load))
        elif c.machine and not c.is_standby:
            added.machine_load.CopyFrom(machine_load(load, c.vitals.get("journal_lag_ms", 0.0)))
    return response.SerializeToString()


def _instrument_stage(row: StageRow) -> admin_pb2.InstrumentStage:
    return admin_pb2.InstrumentStage(
        instrument=row.instrument,
        stage=row.stage,  # type: ignore[arg-type]
        reason=row.reason,
        time_ns=row.since_ns,
        orders_per_s=row.orders_per_s,
    )


def encode_events(supervisor: int, events: Iterable[Event], node_names: Mapping[str, str]) -> bytes:
    """Return a ListEventsResponse, serialised."""
    response = admin_pb2.ListEventsResponse(supervisor=supervisor)
    for event in events:
        response.events.add(**event._replace(node=node_names.get(event.node, event.node))._asdict())
    return response.SerializeToString()
