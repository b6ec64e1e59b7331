"""The Board as messages of the gRPC API."""

from __future__ import annotations

from exchange.v1 import status_pb2
from status.model import Board, Component, Incident, Maintenance, Notice, Update


def board_message(board: Board) -> status_pb2.Board:
    return status_pb2.Board(
        version=board.version,
        page_name=board.page_name,
        page_url=board.page_url,
        update_time_ns=board.updated_ns,
        check_time_ns=board.checked_ns,
        indicator=board.indicator.value,
        components=map(_component, board.components),
        incidents=map(incident_message, board.incidents),
        maintenances=map(maintenance_message, board.maintenances),
        notices=map(notice_message, board.notices),
    )


def _component(component: Component) -> status_pb2.BoardComponent:
    return status_pb2.BoardComponent(
        id=component.id,
        name=component.name,
        group=component.group,
        status=component.status.value,
        since_time_ns=component.since_ns,
        description=component.description,
        reason=component.reason,
        instrument=component.instrument,
        trading_mode="" if component.trading_mode is None else component.trading_mode.value,
        next_mode_time_ns=component.next_mode_ns,
        latency_p50_ms=component.latency_p50_ms,
        latency_p99_ms=component.latency_p99_ms,
        check_time_ns=component.checked_ns,
    )


def incident_message(incident: Incident) -> status_pb2.BoardIncident:
    return status_pb2.BoardIncident(
        id=incident.id,
        name=incident.name,
        status=incident.status.value,
        impact=incident.impact.value,
        components=incident.components,
        instruments=incident.instruments,
        start_time_ns=incident.started_ns,
        identify_time_ns=incident.identified_ns,
        monitor_time_ns=incident.monitoring_ns,
        resolve_time_ns=incident.resolved_ns,
        cause=incident.cause,
        postmortem=incident.postmortem,
        updates=map(_update, incident.updates),
    )


def maintenance_message(maintenance: Maintenance) -> status_pb2.BoardMaintenance:
    return status_pb2.BoardMaintenance(
        id=maintenance.id,
        name=maintenance.name,
        status=maintenance.status.value,
        components=maintenance.components,
        scheduled_for_time_ns=maintenance.scheduled_for_ns,
        scheduled_until_time_ns=maintenance.scheduled_until_ns,
        begin_time_ns=maintenance.begun_ns,
        complete_time_ns=maintenance.completed_ns,
        updates=map(_update, maintenance.updates),
    )


def notice_message(notice: Notice) -> status_pb2.Notice:
    return status_pb2.Notice(id=notice.id, body=notice.body, time_ns=notice.at_ns)


def _update(update: Update) -> status_pb2.StatusUpdate:
    return status_pb2.StatusUpdate(
        id=update.id,
        time_ns=update.at_ns,
        status=update.status.value,
        body=update.body,
        by=update.by,
        correct_time_ns=update.corrected_ns,
        body_before=update.body_before,
        components={name: status.value for name, status in update.components},
    )
