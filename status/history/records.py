"""Incidents and maintenance as they were written. By hand, because msgspec reads no field of one of two enums."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from status.model import (
    ComponentStatus,
    Impact,
    Incident,
    IncidentStatus,
    Maintenance,
    MaintenanceStatus,
    Update,
)

StatusT = TypeVar("StatusT", IncidentStatus, MaintenanceStatus)


def read_incident(body: bytes) -> Incident:
    """Raises ValueError, KeyError or TypeError for what is none."""
    found: dict[str, Any] = msgspec.json.decode(body)
    return Incident(
        **{
            **found,
            "status": IncidentStatus(found["status"]),
            "impact": Impact(found["impact"]),
            "components": tuple(found["components"]),
            "instruments": tuple(found["instruments"]),
            "updates": tuple(_update(update, IncidentStatus) for update in found["updates"]),
        }
    )


def read_maintenance(body: bytes) -> Maintenance:
    """Raises ValueError, KeyError or TypeError for what is none."""
    found: dict[str, Any] = msgspec.json.decode(body)
    from_ns, until_ns = found["rescheduled_from_ns"]
    return Maintenance(
        **{
            **found,
            "status": MaintenanceStatus(found["status"]),
            "components": tuple(found["components"]),
            "updates": tuple(_update(update, MaintenanceStatus) for update in found["updates"]),
            "rescheduled_from_ns": (from_ns, until_ns),
        }
    )


def _update(found: dict[str, Any], statuses: type[StatusT]) -> Update:
    components = tuple((name, ComponentStatus(status)) for name, status in found["components"])
    return Update(**{**found, "status": statuses(found["status"]), "components": components})
