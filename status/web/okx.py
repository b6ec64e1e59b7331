"""`GET /api/v5/system/status` in the shape of OKX's: an envelope of strings, times in ms.

Source of the shape: https://www.okx.com/docs-v5/en/#status-get-status
"""

from __future__ import annotations

from typing import Any

from status.model import Board, Component, Incident, Maintenance, MaintenanceStatus, TradingMode
from status.web.times import ms, words

STATES = ("scheduled", "ongoing", "pre_open", "completed", "canceled")
BY_DEFAULT = frozenset(STATES[:3])
"""What is given when no state is asked for."""

# `serviceType`: 0 WebSocket (here: market data), 5 trading, 99 others. `maintType`: 1 scheduled, 3 disruption.
_SERVICE_TYPES = {"Trading": "5", "Market data": "0"}
_REOPENING = (TradingMode.CANCEL_ONLY, TradingMode.POST_ONLY, TradingMode.LIMITED)

Row = dict[str, Any]


def envelope(rows: list[Row], trading_modes: list[Row]) -> Row:
    return {"code": "0", "msg": "", "data": rows, "tradingMode": trading_modes}


def error(code: str, message: str) -> Row:
    return {"code": code, "msg": message, "data": []}


def system_status(board: Board, state: str = "") -> Row:
    """The envelope with what is in `state`, or in the states `BY_DEFAULT`; newest first."""
    parts = {component.id: component for component in board.components}
    rows = [_maintenance(m, board, parts) for m in board.maintenances] + [
        _incident(i, board, parts) for i in board.incidents
    ]
    wanted = {state} if state else BY_DEFAULT
    rows = sorted((row for row in rows if row["state"] in wanted), key=lambda row: int(row["begin"] or 0), reverse=True)
    return envelope(rows, trading_modes(board))


def trading_modes(board: Board) -> list[Row]:
    return [
        {
            "instId": c.instrument,
            "mode": c.trading_mode.value,
            "since": ms(c.since_ns),
            "nextModeAt": ms(c.next_mode_ns),
        }
        for c in board.components
        if c.trading_mode is not None and c.instrument
    ]


def _maintenance(maintenance: Maintenance, board: Board, parts: dict[str, Component]) -> Row:
    affected = [parts[id_] for id_ in maintenance.components if id_ in parts]
    match maintenance.status:
        case MaintenanceStatus.IN_PROGRESS | MaintenanceStatus.VERIFYING:
            state = _running(affected)
        case status:
            state = status.value
    was_for, was_until = maintenance.rescheduled_from_ns
    moved = (
        f"Rescheduled from {words(was_for)} to {words(was_until)} to {words(maintenance.scheduled_for_ns)} to "
        f"{words(maintenance.scheduled_until_ns)}"
        if was_for
        else ""
    )
    return _row(
        title=maintenance.name,
        state=state,
        begin_ns=maintenance.begun_ns or maintenance.scheduled_for_ns,
        end_ns=maintenance.completed_ns or maintenance.scheduled_until_ns,
        href=f"{board.page_url.rstrip('/')}/maintenance/{maintenance.id}",
        affected=affected,
        schedule=moved,
        kind="1",
    )


def _incident(incident: Incident, board: Board, parts: dict[str, Component]) -> Row:
    affected = [parts[id_] for id_ in incident.components if id_ in parts]
    return _row(
        title=incident.name,
        state="completed" if incident.resolved_ns else _running(affected),
        begin_ns=incident.started_ns,
        end_ns=incident.resolved_ns,
        href=f"{board.page_url.rstrip('/')}/incidents/{incident.id}",
        affected=affected,
        schedule="",
        kind="3",
    )


def _running(affected: list[Component]) -> str:
    """`pre_open` when each market that is not open yet lets cancels or post-only orders through again."""
    modes = [c.trading_mode for c in affected if c.trading_mode not in {None, TradingMode.ONLINE}]
    return "pre_open" if modes and all(mode in _REOPENING for mode in modes) else "ongoing"


def _row(
    *,
    title: str,
    state: str,
    begin_ns: int,
    end_ns: int,
    href: str,
    affected: list[Component],
    schedule: str,
    kind: str,
) -> Row:
    pre_open_ns = max((c.since_ns for c in affected if c.trading_mode in _REOPENING), default=0)
    return {
        "title": title,
        "state": state,
        "begin": ms(begin_ns),
        "end": ms(end_ns),
        "preOpenBegin": ms(pre_open_ns) if state == "pre_open" else "",
        "href": href,
        "serviceType": _SERVICE_TYPES.get(affected[0].group, "99") if affected else "99",
        "system": "unified",
        "scheDesc": schedule,
        "maintType": kind,
        "env": "1",
    }
