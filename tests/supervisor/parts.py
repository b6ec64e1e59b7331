"""Components as the supervisor sees them, for what decides from their vitals."""

from __future__ import annotations

from typing import Any

from exchange.supervisor.component import Component


def gateway(vitals: dict[str, Any], name: str = "gateway-0") -> Component:
    return Component(name, vitals=vitals)


def primary(name: str, vitals: dict[str, Any]) -> Component:
    return Component(name, name, vitals=vitals)
