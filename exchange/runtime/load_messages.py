"""The load in the vitals of a process, plain values there, as the protocol's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exchange.overload.classes import WorkClass
from exchange.v1 import admin_pb2


def machine_load(plain: Mapping[str, Any], journal_lag_ms: float) -> admin_pb2.MachineLoad:
    """Return the load of a host as `exchange.overload.load` tells it."""
    return admin_pb2.MachineLoad(
        classes=_classes(plain),
        commands_per_s=plain.get("orders_per_s", 0.0),
        capacity_per_s=plain.get("capacity_per_s", 0.0),
        utilisation=plain.get("utilisation", 0.0),
        admitted=plain.get("admitted", 0),
        done=plain.get("done", 0),
        late=plain.get("late", 0),
        shed=plain.get("shed", 0),
        journal_lag_ms=journal_lag_ms,
    )


def gateway_load(plain: Mapping[str, Any]) -> admin_pb2.GatewayLoad:
    """Return the load of a gateway as it tells it itself."""
    return admin_pb2.GatewayLoad(
        requests=plain.get("requests", 0),
        commands=plain.get("commands", 0),
        rate_limited=plain.get("rate_limited", 0),
        links=[
            admin_pb2.LinkLoad(
                machine=machine,
                classes=_classes(link),
                limit=link.get("limit", 0),
                refusing=link.get("refusing", 0.0),
            )
            for machine, link in plain.get("links", {}).items()
        ],
    )


def _classes(plain: Mapping[str, Any]) -> list[admin_pb2.ClassLoad]:
    delays, queued, shed = plain.get("delay_ms", {}), plain.get("queued", {}), plain.get("shed", {})
    rates = plain.get("rate", {})
    if not isinstance(shed, Mapping):
        # A host counts them as a whole.
        shed = {}
    return [
        admin_pb2.ClassLoad(
            work_class=work_class.name.lower(),
            p99_delay_ms=delays.get(int(work_class), 0.0),
            queued=queued.get(int(work_class), 0),
            shed=shed.get(int(work_class), {}),
            served_per_s=rates.get(int(work_class), 0.0),
        )
        for work_class in WorkClass
        if int(work_class) in {*delays, *queued, *shed, *rates}
    ]
