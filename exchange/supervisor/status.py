"""What `GetStatus` and `ListEvents` answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exchange.engine.control import Control
from exchange.supervisor.component import Component, ComponentState
from exchange.supervisor.event_log import Event
from exchange.v1 import admin_pb2


def encode_status(
    version: str, time_ns: int, components: Iterable[Component], machine: Control, node_names: Mapping[str, str]
) -> bytes:
    """Return a GetStatusResponse, serialised."""
    response = admin_pb2.GetStatusResponse(version=version, time_ns=time_ns)
    placed = {symbol: shard for symbol, (_, shard) in machine.instruments.items()}
    for c in components:
        response.components.add(
            name=c.name,
            state=int(c.state),
            incarnation=c.incarnation,
            pid=c.vitals.get("pid", 0),
            epoch=c.vitals.get("epoch", 0),
            sequence=c.vitals.get("sequence", 0),
            state_hash=c.vitals.get("state_hash", ""),
            state_hash_sequence=c.vitals.get("state_hash_sequence", 0),
            stage=c.vitals.get("stage", 0) if c.state != ComponentState.DOWN and not c.is_standby else 0,
            instruments=[symbol for symbol, shard in placed.items() if shard == c.name],
            open_orders=c.vitals.get("open_orders", 0),
            address=c.vitals.get("address", ""),
            detail=c.detail,
            restarts=max(c.restarts, 0),
            start_duration_ms=c.start_duration_ms,
            role=c.vitals.get("role", 0) if c.machine and c.is_up else 0,
            node=node_names.get(c.node, c.node),
            record=c.vitals.get("record", 0),
            settings_version=c.settings_version,
        )
    return response.SerializeToString()


def encode_events(supervisor: int, events: Iterable[Event], node_names: Mapping[str, str]) -> bytes:
    """Return a ListEventsResponse, serialised."""
    response = admin_pb2.ListEventsResponse(supervisor=supervisor)
    for event in events:
        response.events.add(**event._replace(node=node_names.get(event.node, event.node))._asdict())
    return response.SerializeToString()
