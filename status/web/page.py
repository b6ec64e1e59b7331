"""The pages: what the templates are given, and where each page is.

Links are relative, so that a snapshot works anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from status.model import (
    Board,
    Component,
    ComponentStatus,
    Impact,
    Incident,
    IncidentStatus,
    Maintenance,
    TradingMode,
)
from status.web import times
from status.web.charts import day_facts, day_kind, latency_chart, uptimes
from status.web.history import PERIODS, as_of_ns, percent_words, uptime
from status.web.statuspage import active, indicator, unresolved, upcoming

RECENT_DAYS = 14
STATIC = ("status.css", "status.js", "icon.svg")

HEADLINES = {
    Impact.NONE: "Everything works",
    Impact.MINOR: "Some things are slower than they should be",
    Impact.MAJOR: "A part of the exchange does not work",
    Impact.CRITICAL: "The exchange has a major outage",
    Impact.MAINTENANCE: "Maintenance is under way",
}
STATUS_WORDS = {
    ComponentStatus.OPERATIONAL: "Operational",
    ComponentStatus.DEGRADED: "Degraded",
    ComponentStatus.PARTIAL_OUTAGE: "Partial outage",
    ComponentStatus.MAJOR_OUTAGE: "Outage",
    ComponentStatus.MAINTENANCE: "Maintenance",
}
MODES = {
    TradingMode.RECOVERING: ("Recovering", "Orders and cancels wait; balances and books are safe."),
    TradingMode.CANCEL_ONLY: ("Cancel only", "Open orders can be cancelled; no new orders yet."),
    TradingMode.POST_ONLY: ("Post only", "Cancels and post-only orders; nothing trades yet."),
    TradingMode.LIMITED: ("Limited", "All orders, at a rate that rises step by step."),
    TradingMode.ONLINE: ("Open", "All orders."),
    TradingMode.HALTED: ("Halted", "Halted by an operator."),
    TradingMode.UNKNOWN: ("Unknown", "It could not be seen."),
}
STAGES = tuple(MODES)[:5]
"""On the way back from a restart, in this order."""


@cache
def static_files() -> dict[str, tuple[str, bytes]]:
    """By name: the name with a hash of the content, under which it is served and never changes, and the content."""
    files: dict[str, tuple[str, bytes]] = {}
    for name in STATIC:
        content = (resources.files("status.web") / "static" / name).read_bytes()
        stem, _, suffix = name.rpartition(".")
        files[name] = (f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{suffix}", content)
    return files


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("status.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "iso": times.iso,
        "words": times.words,
        "day_words": times.day_words,
        "duration": times.duration,
        "percent": percent_words,
        "spaced": lambda word: str(word).replace("_", " "),
        "status_words": STATUS_WORDS.__getitem__,
    }
    environment.globals |= {
        "day_kind": day_kind,
        "day_facts": day_facts,
        "latency_chart": latency_chart,
        "modes": MODES,
        "stages": STAGES,
        "periods": PERIODS,
    }
    return environment


class Pages:
    """The pages of a board. `snapshot` pages link to files (`….html`) and do not ask for events."""

    def __init__(self, board: Board, *, stale: bool, snapshot: bool) -> None:
        self._board = board
        self._stale = stale
        self._snapshot = snapshot

    def makers(self) -> dict[str, Callable[[], str]]:
        """By path."""
        board = self._board
        makers: dict[str, Callable[[], str]] = {"/": self.index, "/history": self.history, "/404": self.not_found}
        for c in board.components:
            makers[f"/components/{c.id}"] = partial(self.component, c)
        for incident in board.incidents:
            makers[f"/incidents/{incident.id}"] = partial(self.incident, incident)
        for maintenance in board.maintenances:
            makers[f"/maintenance/{maintenance.id}"] = partial(self.maintenance, maintenance)
        for month in self._months():
            makers[f"/history/{month}"] = partial(self.month, month)
        return makers

    def index(self) -> str:
        board = self._board
        since_ns = as_of_ns(board) - RECENT_DAYS * 86_400 * times.SECOND
        return self._render(
            "index.html",
            "/",
            open_incidents=unresolved(board),
            active=active(board),
            upcoming=sorted(upcoming(board), key=lambda m: m.scheduled_for_ns),
            markets=[c for c in board.components if c.trading_mode is not None],
            groups=self._groups(),
            recent=[i for i in board.incidents if i.resolved_ns and i.started_ns >= since_ns],
            recent_days=RECENT_DAYS,
        )

    def component(self, component: Component) -> str:
        days = self._board.days.get(component.id, ())
        return self._render(
            "component.html",
            f"/components/{component.id}",
            c=component,
            days_drawn=uptimes(days, as_of_ns(self._board)),
            uptime_by_period={p: uptime(days, as_of_ns(self._board), p).percent for p in PERIODS},
            days=[day for day in reversed(days) if day_kind(day) != "good"],
            measured_days=len(days),
            incidents={incident.id: incident for incident in self._board.incidents},
        )

    def incident(self, incident: Incident) -> str:
        return self._render(
            "incident.html",
            f"/incidents/{incident.id}",
            incident=incident,
            postmortem=incident.postmortem if incident.status is IncidentStatus.POSTMORTEM else "",
        )

    def maintenance(self, maintenance: Maintenance) -> str:
        return self._render("maintenance.html", f"/maintenance/{maintenance.id}", maintenance=maintenance)

    def history(self) -> str:
        months = self._months()
        return self._render(
            "history.html",
            "/history",
            months=[(month, times.month_words(month), *self._of_month(month)) for month in months],
            single=False,
        )

    def month(self, month: str) -> str:
        rows = [(month, times.month_words(month), *self._of_month(month))]
        return self._render("history.html", f"/history/{month}", months=rows, single=True)

    def not_found(self) -> str:
        return self._render("404.html", "/404")

    def _render(self, template: str, path: str, **context: Any) -> str:
        board = self._board
        # A page that is served for any path that does not exist cannot link relative to it.
        root = "/" if path == "/404" and not self._snapshot else "../" * (path.count("/") - 1) or "./"
        names = {component.id: component for component in board.components}

        def href(to: str) -> str:
            if to == "/":
                return root + ("index.html" if self._snapshot else "")
            return root + to.lstrip("/") + (".html" if self._snapshot else "")

        return (
            _environment()
            .get_template(template)
            .render(
                board=board,
                stale=self._stale,
                snapshot=self._snapshot,
                empty=not board.checked_ns,
                impact=indicator(board),
                headline=self._headline(),
                names=names,
                href=href,
                file=lambda to: root + to.lstrip("/"),
                static=lambda name: f"{root}static/{static_files()[name][0]}",
                path=path,
                **context,
            )
        )

    def _headline(self) -> str:
        board = self._board
        if not board.checked_ns:
            return "Not measured yet"
        if self._stale:
            return "We cannot see the exchange at present"
        impact = indicator(board)
        if impact is Impact.NONE and unresolved(board):
            return "Everything works; an incident is being watched"
        if impact is Impact.MAINTENANCE and all(c.status is ComponentStatus.OPERATIONAL for c in board.components):
            return "Maintenance is under way; everything works"
        return HEADLINES[impact]

    def _groups(self) -> list[tuple[str, list[dict[str, Any]]]]:
        board = self._board
        groups: dict[str, list[dict[str, Any]]] = {}
        for component in sorted(board.components, key=lambda c: c.position):
            days = board.days.get(component.id, ())
            groups.setdefault(component.group, []).append(
                {
                    "c": component,
                    "bars": uptimes(days, as_of_ns(board)),
                    "percent": uptime(days, as_of_ns(board), "90d").percent,
                }
            )
        return list(groups.items())

    def _months(self) -> list[str]:
        """Newest first."""
        board = self._board
        starts = [i.started_ns for i in board.incidents] + [m.scheduled_for_ns for m in board.maintenances]
        return sorted({times.date(start)[:7] for start in starts}, reverse=True)

    def _of_month(self, month: str) -> tuple[list[Incident], list[Maintenance]]:
        board = self._board
        return (
            [i for i in board.incidents if times.date(i.started_ns).startswith(month)],
            [m for m in board.maintenances if times.date(m.scheduled_for_ns).startswith(month)],
        )
