"""The JSON of the Statuspage API, version 2, in the shape that its clients read.

Source of the shape: https://metastatuspage.com/api and the pages of Statuspage themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from status.model import (
    Board,
    Component,
    ComponentStatus,
    Impact,
    Incident,
    IncidentStatus,
    Maintenance,
    MaintenanceStatus,
    Update,
)
from status.web.times import date, iso, iso_or_none

Json = dict[str, Any]

DESCRIPTIONS = {
    Impact.NONE: "All Systems Operational",
    Impact.MINOR: "Minor Service Outage",
    Impact.MAJOR: "Partial System Outage",
    Impact.CRITICAL: "Major Service Outage",
    Impact.MAINTENANCE: "Service Under Maintenance",
}
"""Statuspage's own words for its indicators: clients compare them."""

UNDERWAY = (MaintenanceStatus.IN_PROGRESS, MaintenanceStatus.VERIFYING)
_IMPACT_OF_STATUS = {
    ComponentStatus.DEGRADED: Impact.MINOR,
    ComponentStatus.PARTIAL_OUTAGE: Impact.MAJOR,
    ComponentStatus.MAJOR_OUTAGE: Impact.CRITICAL,
}
_SEVERITY = (Impact.NONE, Impact.MAINTENANCE, Impact.MINOR, Impact.MAJOR, Impact.CRITICAL)


def indicator(board: Board) -> Impact:
    """The worst of the unresolved incidents and of the components as they are now; maintenance if that is all."""
    impacts = [board.indicator, *(_IMPACT_OF_STATUS.get(c.status, Impact.NONE) for c in board.components)]
    if any(c.status is ComponentStatus.MAINTENANCE for c in board.components) or active(board):
        impacts.append(Impact.MAINTENANCE)
    return max(impacts, key=_SEVERITY.index)


def unresolved(board: Board) -> list[Incident]:
    return [incident for incident in board.incidents if not incident.resolved_ns]


def upcoming(board: Board) -> list[Maintenance]:
    return [m for m in board.maintenances if m.status is MaintenanceStatus.SCHEDULED]


def active(board: Board) -> list[Maintenance]:
    return [m for m in board.maintenances if m.status in UNDERWAY]


class Statuspage:
    """The documents of one board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._groups = {
            name: (f"group-{'-'.join(name.lower().split())}", position)
            for position, name in enumerate(dict.fromkeys(c.group for c in board.components if c.group), 1)
        }
        self._components = {component.id: component for component in board.components}

    def page(self) -> Json:
        board = self._board
        return {
            "id": "evenkeel",
            "name": board.page_name,
            "url": board.page_url,
            "time_zone": "Etc/UTC",
            "updated_at": iso(board.updated_ns),
        }

    def status(self) -> Json:
        """The overall state. `checked_at` is ours: when the exchange was last looked at."""
        impact = indicator(self._board)
        words = DESCRIPTIONS[impact] if self._board.checked_ns else "Not Measured Yet"
        return {"indicator": impact.value, "description": words, "checked_at": iso_or_none(self._board.checked_ns)}

    def component(self, component: Component) -> Json:
        return {
            "id": component.id,
            "name": component.name,
            "status": component.status.value,
            "created_at": iso(component.created_ns or component.since_ns),
            "updated_at": iso(component.since_ns),
            "position": component.position,
            "description": component.description or None,
            "showcase": True,
            "start_date": date(component.created_ns or component.since_ns),
            "group_id": self._groups[component.group][0] if component.group else None,
            "page_id": "evenkeel",
            "group": False,
            "only_show_if_degraded": False,
            # Ours, beside theirs: clients of Statuspage pass over what they do not know.
            "reason": component.reason or None,
            "instrument": component.instrument or None,
            "trading_mode": component.trading_mode.value if component.trading_mode else None,
            "next_mode_at": iso_or_none(component.next_mode_ns),
            "latency_p50_ms": component.latency_p50_ms,
            "latency_p99_ms": component.latency_p99_ms,
        }

    def components(self) -> list[Json]:
        """The groups, which Statuspage counts as components, and after each its members."""
        rows: list[Json] = [self.component(c) for c in self._board.components if not c.group]
        for name, (group_id, position) in self._groups.items():
            members = [c for c in self._board.components if c.group == name]
            created = min((c.created_ns or c.since_ns for c in members), default=0)
            rows.append(
                {
                    "id": group_id,
                    "name": name,
                    "status": _worst(c.status for c in members).value,
                    "created_at": iso(created),
                    "updated_at": iso(max((c.since_ns for c in members), default=0)),
                    "position": position,
                    "description": None,
                    "showcase": False,
                    "start_date": date(created),
                    "group_id": None,
                    "page_id": "evenkeel",
                    "group": True,
                    "only_show_if_degraded": False,
                    "components": [c.id for c in members],
                }
            )
            rows.extend(self.component(c) for c in members)
        return rows

    def incident(self, incident: Incident) -> Json:
        return {
            "id": incident.id,
            "name": incident.name,
            "status": incident.status.value,
            "created_at": iso(incident.created_ns),
            "updated_at": iso(incident.updated_ns),
            "monitoring_at": iso_or_none(incident.monitoring_ns),
            "resolved_at": iso_or_none(incident.resolved_ns),
            "impact": incident.impact.value,
            "shortlink": self._link(f"incidents/{incident.id}"),
            "started_at": iso(incident.started_ns),
            "page_id": "evenkeel",
            "incident_updates": self._updates(incident.id, incident.updates),
            "components": self._named(incident.components),
            "identified_at": iso_or_none(incident.identified_ns),
            "instruments": list(incident.instruments),
            "cause": incident.cause or None,
            "postmortem_body": (incident.postmortem or None) if incident.status is IncidentStatus.POSTMORTEM else None,
        }

    def maintenance(self, maintenance: Maintenance) -> Json:
        return {
            "id": maintenance.id,
            "name": maintenance.name,
            "status": maintenance.status.value,
            "created_at": iso(maintenance.created_ns),
            "updated_at": iso(maintenance.updated_ns),
            "monitoring_at": None,
            "resolved_at": iso_or_none(maintenance.completed_ns),
            "impact": Impact.MAINTENANCE.value,
            "shortlink": self._link(f"maintenance/{maintenance.id}"),
            "started_at": iso(maintenance.begun_ns or maintenance.scheduled_for_ns),
            "page_id": "evenkeel",
            "incident_updates": self._updates(maintenance.id, maintenance.updates),
            "components": self._named(maintenance.components),
            "scheduled_for": iso(maintenance.scheduled_for_ns),
            "scheduled_until": iso(maintenance.scheduled_until_ns),
        }

    def summary(self) -> Json:
        board = self._board
        return {
            "page": self.page(),
            "components": self.components(),
            "incidents": [self.incident(i) for i in unresolved(board)],
            "scheduled_maintenances": [self.maintenance(m) for m in (*upcoming(board), *active(board))],
            "status": self.status(),
            "notices": [{"id": n.id, "body": n.body, "created_at": iso(n.at_ns)} for n in board.notices],
        }

    def _link(self, path: str) -> str:
        return f"{self._board.page_url.rstrip('/')}/{path}"

    def _named(self, ids: Iterable[str]) -> list[Json]:
        return [self.component(self._components[id_]) for id_ in ids if id_ in self._components]

    def _updates(self, incident_id: str, updates: Iterable[Update]) -> list[Json]:
        """Newest first. `old_status` of Statuspage's affected components is that of the update before."""
        rows: list[Json] = []
        last: dict[str, ComponentStatus] = {}
        for update in sorted(updates, key=lambda update: update.at_ns):
            affected = [
                {
                    "code": id_,
                    "name": self._components[id_].name if id_ in self._components else id_,
                    "old_status": last.get(id_, ComponentStatus.OPERATIONAL).value,
                    "new_status": status.value,
                }
                for id_, status in update.components
            ]
            last.update(update.components)
            rows.append(
                {
                    "id": update.id,
                    "status": update.status.value,
                    "body": update.body,
                    "incident_id": incident_id,
                    "created_at": iso(update.at_ns),
                    "updated_at": iso(update.corrected_ns or update.at_ns),
                    "display_at": iso(update.at_ns),
                    "affected_components": affected or None,
                    "deliver_notifications": True,
                    "custom_tweet": None,
                    "tweet_id": None,
                    "by": update.by,
                    "corrected_at": iso_or_none(update.corrected_ns),
                    "body_before": update.body_before or None,
                }
            )
        return rows[::-1]


def _worst(statuses: Iterable[ComponentStatus]) -> ComponentStatus:
    order = (
        ComponentStatus.OPERATIONAL,
        ComponentStatus.MAINTENANCE,
        ComponentStatus.DEGRADED,
        ComponentStatus.PARTIAL_OUTAGE,
        ComponentStatus.MAJOR_OUTAGE,
    )
    return max(statuses, key=order.index, default=ComponentStatus.OPERATIONAL)
