"""The OpenAPI 3.1 document of the public API: one operation per route, with the shapes of what comes back."""

from __future__ import annotations

from typing import Any

import exchange
from status.model import Board, ComponentStatus, Impact, IncidentStatus, MaintenanceStatus, TradingMode
from status.web.history import PERIODS
from status.web.okx import STATES

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_OPTIONAL: Json = {"type": ["string", "null"]}
_TIME: Json = {"type": "string", "description": "ISO 8601, UTC; empty where it is not known"}
_NUMBER: Json = {"type": "number"}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _words(kind: type[Any]) -> Json:
    return {"type": "string", "enum": [word.value for word in kind]}


_UPDATES = _list(_ref("Update"))
_TOLD: Json = {
    "id": _STRING,
    "name": _STRING,
    "impact": _words(Impact),
    "created_at": _TIME,
    "updated_at": _TIME,
    "started_at": _TIME,
    "monitoring_at": _OPTIONAL,
    "resolved_at": _OPTIONAL,
    "shortlink": _STRING,
    "page_id": _STRING,
    "components": _list(_ref("Component")),
    "incident_updates": _UPDATES,
}
SCHEMAS: Json = {
    "Page": _object(id=_STRING, name=_STRING, url=_STRING, time_zone=_STRING, updated_at=_TIME),
    "Status": _object(indicator=_words(Impact), description=_STRING, checked_at=_OPTIONAL),
    "Component": _object(
        id=_STRING,
        name=_STRING,
        status=_words(ComponentStatus),
        created_at=_TIME,
        updated_at=_TIME,
        position={"type": "integer"},
        description=_OPTIONAL,
        group_id=_OPTIONAL,
        page_id=_STRING,
        group={"type": "boolean"},
        showcase={"type": "boolean"},
        only_show_if_degraded={"type": "boolean"},
    ),
    "Update": _object(
        id=_STRING,
        incident_id=_STRING,
        status={"type": "string", "enum": [*(s.value for s in IncidentStatus), *(s.value for s in MaintenanceStatus)]},
        body=_STRING,
        created_at=_TIME,
        updated_at=_TIME,
        display_at=_TIME,
        corrected_at=_OPTIONAL,
        body_before=_OPTIONAL,
    ),
    "Incident": _object(**_TOLD, status=_words(IncidentStatus)),
    "Maintenance": _object(**_TOLD, status=_words(MaintenanceStatus), scheduled_for=_TIME, scheduled_until=_TIME),
    "SystemStatus": _object(
        code=_STRING,
        msg=_STRING,
        data=_list(_object(title=_STRING, state={"type": "string", "enum": list(STATES)}, begin=_STRING, end=_STRING)),
        tradingMode=_list(
            _object(instId=_STRING, mode=_words(TradingMode), since=_STRING, nextModeAt=_STRING),
        ),
    ),
    "SystemStatusError": _object(code=_STRING, msg=_STRING, data=_list({})),
    "History": _object(
        id=_STRING,
        name=_STRING,
        updated_at=_TIME,
        today=_STRING,
        uptime_percent=_object(**{period: {"type": ["number", "null"]} for period in PERIODS}),
        days=_list(
            _object(date=_STRING, measured_s=_NUMBER, down_s=_NUMBER, degraded_s=_NUMBER, maintenance_s=_NUMBER)
        ),
        response_times=_list(_object(at=_TIME, p50_ms=_NUMBER, p99_ms=_NUMBER)),
    ),
    "Shield": _object(schemaVersion={"const": 1}, label=_STRING, message=_STRING, color=_STRING),
    "Error": _object(code=_STRING, message=_STRING),
}


def _answer(schema: Json, media: str = "application/json") -> Json:
    return {"description": "As of the last change.", "content": {media: {"schema": schema}}}


def _get(summary: str, answer: Json, *, path: str, cached: bool = True) -> Json:
    names = [part[1:-1] for part in path.replace(".", "/").replace("-{", "/{").split("/") if part.startswith("{")]
    parameters: list[Json] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": list(PERIODS)} if name == "period" else _STRING,
        }
        for name in names
    ]
    responses: Json = {"200": answer, "414": {"$ref": "#/components/responses/Error"}}
    if cached:
        responses["304"] = {"description": "What `If-None-Match` names is still right."}
    if names:
        responses["404"] = {"$ref": "#/components/responses/Error"}
    operation: Json = {
        "operationId": "get"
        + "".join(
            w.capitalize()
            for w in path.replace("{", "")
            .replace("}", "")
            .replace("-", "/")
            .replace(".", "/")
            .replace("_", "/")
            .split("/")
        ),
        "summary": summary,
        "responses": responses,
    }
    if parameters:
        operation["parameters"] = parameters
    return {"get": operation}


def paths() -> Json:
    page: Json = _ref("Page")
    incidents = _answer(_object(page=page, incidents=_list(_ref("Incident"))))
    maintenances = _answer(_object(page=page, scheduled_maintenances=_list(_ref("Maintenance"))))
    svg = _answer(_STRING, "image/svg+xml")
    html = _answer(_STRING, "text/html")
    shield = _answer(_ref("Shield"))
    summary = _object(
        page=page,
        status=_ref("Status"),
        components=_list(_ref("Component")),
        incidents=_list(_ref("Incident")),
        scheduled_maintenances=_list(_ref("Maintenance")),
    )
    badge = "/api/components/{id}/badge"
    rows: list[tuple[str, str, Json]] = [
        ("/api/v2/summary.json", "All that is now", _answer(summary)),
        ("/api/v2/status.json", "The overall state", _answer(_object(page=page, status=_ref("Status")))),
        ("/api/v2/components.json", "Components", _answer(_object(page=page, components=_list(_ref("Component"))))),
        ("/api/v2/components/{id}.json", "A component", _answer(_object(page=page, component=_ref("Component")))),
        ("/api/v2/incidents.json", "Incidents of the last 90 days", incidents),
        ("/api/v2/incidents/unresolved.json", "Open incidents", incidents),
        ("/api/v2/incidents/{id}.json", "An incident", _answer(_object(page=page, incident=_ref("Incident")))),
        ("/api/v2/scheduled-maintenances.json", "Maintenance of the last 90 days and to come", maintenances),
        ("/api/v2/scheduled-maintenances/upcoming.json", "Maintenance to come", maintenances),
        ("/api/v2/scheduled-maintenances/active.json", "Maintenance under way", maintenances),
        ("/api/components/{id}/history.json", "Days, uptime and response times", _answer(_ref("History"))),
        ("/badge.svg", "Badge of the overall state", svg),
        ("/badge.json", "The same, for shields.io", shield),
        (f"{badge}.svg", "Badge of a component", svg),
        (f"{badge}.json", "The same, for shields.io", shield),
        (f"{badge}/uptime-{{period}}.svg", "Badge of a component's uptime", svg),
        (f"{badge}/uptime-{{period}}.json", "The same, for shields.io", shield),
        ("/api/openapi.json", "This document", _answer({"type": "object"})),
        ("/feed.atom", "Atom feed of incidents and maintenance", _answer(_STRING, "application/atom+xml")),
        ("/", "The page", html),
        ("/history", "Incidents and maintenance by month", html),
        ("/history/{month}", "Those of a month, as `2026-07`", html),
        ("/components/{id}", "The page of a component", html),
        ("/incidents/{id}", "The page of an incident", html),
        ("/maintenance/{id}", "The page of a maintenance", html),
    ]
    told = {path: _get(words, answer, path=path) for path, words, answer in rows}
    v5 = _get("As OKX's; once in 5 s per address", _answer(_ref("SystemStatus")), path="/api/v5/system/status")
    v5["get"]["parameters"] = [{"name": "state", "in": "query", "schema": {"type": "string", "enum": ["", *STATES]}}]
    v5["get"]["responses"] |= {code: _answer(_ref("SystemStatusError")) for code in ("400", "429")}
    events = _get("Server-sent events", _answer(_STRING, "text/event-stream"), path="/api/events", cached=False)
    events["get"]["parameters"] = [{"name": "Last-Event-ID", "in": "header", "schema": _STRING}]
    events["get"]["responses"]["503"] = {"$ref": "#/components/responses/Error"}
    return {**told, "/api/v5/system/status": v5, "/api/events": events}


def document(board: Board) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{board.page_name} status",
            "version": exchange.__version__,
            "description": "Public facts, measured from outside. Nothing here needs a key, and nothing can be changed.",
        },
        "servers": [{"url": board.page_url.rstrip("/") or "/"}],
        "paths": paths(),
        "components": {
            "schemas": SCHEMAS,
            "responses": {
                "Error": {
                    "description": "A code and what was expected.",
                    "content": {"application/json": {"schema": _ref("Error")}, "text/html": {"schema": _STRING}},
                }
            },
        },
    }
