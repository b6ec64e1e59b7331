"""Incidents: they open, gather, follow and close by themselves. Pure: time comes in with what is seen.

investigating: components are not operational for longer than a blip. identified: the event log says why. monitoring:
it gets better, stage by stage, or all is well again. resolved: all has been well for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from exchange.client import Event
from status.causes import Plan, cause_of
from status.model import Component, ComponentStatus, Impact, Incident, IncidentStatus, TradingMode, Update
from status.settings import IncidentRules

_FINE = (ComponentStatus.OPERATIONAL, ComponentStatus.MAINTENANCE)
_SEVERITY = list(ComponentStatus).index
_IMPACTS = {
    ComponentStatus.DEGRADED: Impact.MINOR,
    ComponentStatus.PARTIAL_OUTAGE: Impact.MAJOR,
    ComponentStatus.MAJOR_OUTAGE: Impact.CRITICAL,
}
_RANK = {Impact.NONE: 0, Impact.MINOR: 1, Impact.MAJOR: 2, Impact.CRITICAL: 3}
_CAUSE_BEFORE_NS = 10_000_000_000
"""The supervisor may have seen the cause so long before the first look failed."""
_MODE_WORDS = {
    TradingMode.ONLINE: "open",
    TradingMode.LIMITED: "open at a limited rate",
    TradingMode.POST_ONLY: "open for cancels and post-only orders",
    TradingMode.CANCEL_ONLY: "open for cancels",
    TradingMode.RECOVERING: "recovering",
    TradingMode.HALTED: "halted",
    TradingMode.UNKNOWN: "not to be reached",
}
_RECOVERING_MODES = (TradingMode.CANCEL_ONLY, TradingMode.POST_ONLY, TradingMode.LIMITED, TradingMode.ONLINE)


class IncidentUnknown(LookupError):
    """No incident, or no update of one, has this id."""

    code = "INCIDENT_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Blip:
    """Was not operational, but not for long enough to be announced."""

    component: str
    began_ns: int
    ended_ns: int
    worst: ComponentStatus


@dataclass(slots=True)
class _Trouble:
    """A component that is not operational now."""

    began_ns: int
    worst: ComponentStatus


@dataclass(slots=True)
class Incidents:
    rules: IncidentRules
    new_id: Callable[[], str]
    kept: dict[str, Incident] = field(default_factory=dict)
    """By id, oldest first."""
    changed: list[str] = field(default_factory=list)
    """Ids since this was last emptied, in the order of their changes."""
    blips: list[Blip] = field(default_factory=list)
    _trouble: dict[str, _Trouble] = field(default_factory=dict)
    _last_began_ns: dict[str, int] = field(default_factory=dict)
    """By incident: when the last of its components began to fail."""
    _fine_since_ns: dict[str, int] = field(default_factory=dict)
    _modes: dict[str, dict[str, TradingMode]] = field(default_factory=dict)
    """By incident, what was told last of each market."""

    @property
    def unresolved(self) -> list[Incident]:
        return [incident for incident in self.kept.values() if not incident.resolved_ns]

    # ---------------------------------------------------------------- what is seen

    def observe(
        self,
        now_ns: int,
        components: Mapping[str, Component],
        failing_since_ns: Mapping[str, int],
        events: Sequence[Event],
        plan: Plan,
    ) -> None:
        """Take in how all components are now. `events` are those of the last hour or so, oldest first."""
        self._note_trouble(now_ns, components, failing_since_ns)
        due = [
            name
            for name, trouble in self._trouble.items()
            if now_ns - trouble.began_ns >= self.rules.blip_ms * 1_000_000 and self._unresolved_of(name) is None
        ]
        for name in sorted(due, key=lambda name: self._trouble[name].began_ns):
            # One that came before may have taken this one with it.
            if self._unresolved_of(name) is None:
                self._place(now_ns, name, components)
        for incident in self.unresolved:
            self._follow(now_ns, incident, components, events, plan)

    def _note_trouble(
        self, now_ns: int, components: Mapping[str, Component], failing_since_ns: Mapping[str, int]
    ) -> None:
        for name, component in components.items():
            trouble = self._trouble.get(name)
            if component.status not in _FINE:
                if trouble is None:
                    began_ns = min(failing_since_ns.get(name) or now_ns, now_ns)
                    self._trouble[name] = _Trouble(began_ns, component.status)
                elif _SEVERITY(component.status) > _SEVERITY(trouble.worst):
                    trouble.worst = component.status
            elif trouble is not None:
                del self._trouble[name]
                if self._unresolved_of(name) is None:
                    self.blips.append(Blip(name, trouble.began_ns, now_ns, trouble.worst))

    def _unresolved_of(self, name: str) -> Incident | None:
        return next((incident for incident in self.unresolved if name in incident.components), None)

    def _place(self, now_ns: int, name: str, components: Mapping[str, Component]) -> None:
        """A component has failed for longer than a blip: again, with others, or as the first."""
        began_ns = self._trouble[name].began_ns
        for incident in reversed(self.kept.values()):
            resolved_ns = incident.resolved_ns
            if (
                resolved_ns
                and name in incident.components
                and not any(self._unresolved_of(other) for other in incident.components)
                and began_ns - resolved_ns <= self.rules.relapse_ms * 1_000_000
            ):
                self._reopen(now_ns, incident, components)
                return
        for incident in self.unresolved:
            last_ns = self._last_began_ns.get(incident.id, incident.started_ns)
            if abs(began_ns - last_ns) <= self.rules.group_ms * 1_000_000:
                self._join(now_ns, incident, [name], components)
                return
        self._open(now_ns, components)

    def _open(self, now_ns: int, components: Mapping[str, Component]) -> None:
        names = self._free(components)
        started_ns = min(self._trouble[name].began_ns for name in names)
        incident = Incident(
            id=self.new_id(),
            name=_name_of(names, components),
            status=IncidentStatus.INVESTIGATING,
            impact=Impact.NONE,
            components=tuple(names),
            instruments=_instruments_of(names, components),
            started_ns=started_ns,
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        self._last_began_ns[incident.id] = max(self._trouble[name].began_ns for name in names)
        self._tell(now_ns, incident, IncidentStatus.INVESTIGATING, _what_fails(names, components), components)

    def _free(self, components: Mapping[str, Component]) -> list[str]:
        """All that fail and belong to no incident yet, as the page orders them."""
        names = [name for name in self._trouble if self._unresolved_of(name) is None and name in components]
        return sorted(names, key=lambda name: components[name].position)

    def _join(self, now_ns: int, incident: Incident, names: list[str], components: Mapping[str, Component]) -> None:
        joined = [*incident.components, *names]
        began = [self._trouble[name].began_ns for name in names]
        self._last_began_ns[incident.id] = max([self._last_began_ns.get(incident.id, incident.started_ns), *began])
        incident = replace(
            incident,
            components=tuple(joined),
            instruments=_instruments_of(joined, components),
            name=_name_of(joined, components),
            started_ns=min(incident.started_ns, *began),
        )
        self._tell(now_ns, incident, incident.status, _what_fails(names, components), components)

    def _reopen(self, now_ns: int, incident: Incident, components: Mapping[str, Component]) -> None:
        names = [name for name in self._free(components) if name not in incident.components]
        joined = [*incident.components, *names]
        self._last_began_ns[incident.id] = max(trouble.began_ns for trouble in self._trouble.values())
        failing = [name for name in joined if name in self._trouble]
        incident = replace(
            incident,
            components=tuple(joined),
            instruments=_instruments_of(joined, components),
            resolved_ns=0,
            monitoring_ns=0,
            cause="",
            identified_ns=0,
        )
        text = f"It came again. {_what_fails(failing, components)}"
        self._tell(now_ns, incident, IncidentStatus.INVESTIGATING, text, components)

    # ---------------------------------------------------------------- how it goes on

    def _follow(
        self,
        now_ns: int,
        incident: Incident,
        components: Mapping[str, Component],
        events: Sequence[Event],
        plan: Plan,
    ) -> None:
        # What it came to since it was opened counts, also if it was told of no update.
        incident = self._with_impact(incident, components)
        began_ns = self._last_began_ns.setdefault(incident.id, incident.started_ns)
        telling = [e for e in events if e.time_ns >= min(incident.started_ns, began_ns) - _CAUSE_BEFORE_NS]
        # Once all is well, what happens is of something else.
        cause = "" if incident.id in self._fine_since_ns else cause_of(telling, incident.components, plan)
        if cause and cause != incident.cause:
            first = not incident.cause
            incident = replace(incident, cause=cause)
            if first and incident.status is IncidentStatus.INVESTIGATING:
                incident = self._tell(now_ns, incident, IncidentStatus.IDENTIFIED, cause, components)
            else:
                self._keep(incident)
        incident = self._tell_stages(now_ns, incident, components)
        failing = [name for name in incident.components if name in self._trouble]
        if failing:
            was_fine = self._fine_since_ns.pop(incident.id, 0)
            if was_fine:
                status = IncidentStatus.IDENTIFIED if incident.cause else IncidentStatus.INVESTIGATING
                self._tell(now_ns, incident, status, f"Not yet over. {_what_fails(failing, components)}", components)
            return
        if incident.id not in self._fine_since_ns:
            self._fine_since_ns[incident.id] = now_ns
            if incident.monitoring_ns == 0 or not incident.updates[0].body.startswith(_ALL_WELL):
                self._tell(now_ns, incident, IncidentStatus.MONITORING, f"{_ALL_WELL} We keep watching.", components)
        elif now_ns - self._fine_since_ns[incident.id] >= self.rules.resolve_ms * 1_000_000:
            fine_ns = self._fine_since_ns.pop(incident.id)
            lasted = _span(incident.started_ns, fine_ns)
            text = f"From {_utc(incident.started_ns)} to {_utc(fine_ns)} UTC, {lasted}."
            if incident.cause:
                text += f" Cause: {incident.cause}"
            self._tell(now_ns, incident, IncidentStatus.RESOLVED, text, components)

    def _tell_stages(self, now_ns: int, incident: Incident, components: Mapping[str, Component]) -> Incident:
        """Markets that let through more, or less, than was told last; all that changed at once in one update."""
        markets = [components[name] for name in incident.components if name in components]
        now = {c.instrument: c.trading_mode for c in markets if c.trading_mode is not None}
        first = incident.id not in self._modes
        told = self._modes.setdefault(incident.id, dict(now))
        moved = [symbol for symbol, mode in now.items() if told.get(symbol, mode) is not mode]
        told.update(now)
        if first or not moved or incident.id in self._fine_since_ns:
            return incident
        # That a market is not to be reached says its component.
        known = [symbol for symbol in moved if now[symbol] is not TradingMode.UNKNOWN]
        if not known:
            return incident
        lines = []
        for symbol in known:
            line = f"{symbol} is {_MODE_WORDS[now[symbol]]}"
            next_ns = next((c.next_mode_ns for c in markets if c.instrument == symbol and c.trading_mode), 0)
            if next_ns > now_ns and now[symbol] is not TradingMode.ONLINE:
                line += f", the next stage is expected at {_utc(next_ns)} UTC"
            lines.append(line)
        is_recovery = all(now[symbol] in _RECOVERING_MODES for symbol in known)
        status = IncidentStatus.MONITORING if is_recovery else incident.status
        return self._tell(now_ns, incident, status, f"{'; '.join(lines)}.", components)

    def _with_impact(self, incident: Incident, components: Mapping[str, Component]) -> Incident:
        found = [components[name].status for name in incident.components if name in components]
        impacts = [incident.impact, *(_IMPACTS.get(status, Impact.NONE) for status in found)]
        worst = max(impacts, key=_RANK.__getitem__)
        if worst is not incident.impact:
            incident = replace(incident, impact=worst)
            self._keep(incident)
        return incident

    def _tell(
        self,
        now_ns: int,
        incident: Incident,
        status: IncidentStatus,
        body: str,
        components: Mapping[str, Component],
        by: str = "automatic",
    ) -> Incident:
        incident = self._with_impact(incident, components)
        now = tuple((name, components[name].status) for name in incident.components if name in components)
        update = Update(id=self.new_id(), at_ns=now_ns, status=status, body=body, by=by, components=now)
        times = {
            IncidentStatus.IDENTIFIED: ("identified_ns", incident.identified_ns),
            IncidentStatus.MONITORING: ("monitoring_ns", incident.monitoring_ns),
            IncidentStatus.RESOLVED: ("resolved_ns", incident.resolved_ns),
        }
        if status in times and not times[status][1]:
            incident = replace(incident, **{times[status][0]: now_ns})
        incident = replace(incident, status=status, updated_ns=now_ns, updates=(update, *incident.updates))
        self._keep(incident)
        return incident

    def _keep(self, incident: Incident) -> None:
        self.kept[incident.id] = incident
        if incident.id not in self.changed:
            self.changed.append(incident.id)

    # ---------------------------------------------------------------- by hand

    def add_words(self, now_ns: int, incident_id: str, body: str) -> Incident:
        """An operator's words; what the incident's status is stays a matter of what is seen."""
        incident = self._get(incident_id)
        update = Update(id=self.new_id(), at_ns=now_ns, status=incident.status, body=body, by="operator")
        incident = replace(incident, updated_ns=now_ns, updates=(update, *incident.updates))
        self._keep(incident)
        return incident

    def correct(self, now_ns: int, update_id: str, body: str) -> Incident:
        """Other words for an update. What it said first stays visible beside them."""
        for incident in self.kept.values():
            for index, update in enumerate(incident.updates):
                if update.id == update_id:
                    before = update.body_before or update.body
                    corrected = replace(update, body=body, corrected_ns=now_ns, body_before=before)
                    updates = (*incident.updates[:index], corrected, *incident.updates[index + 1 :])
                    changed = replace(incident, updates=updates, updated_ns=now_ns)
                    self._keep(changed)
                    return changed
        raise IncidentUnknown(f"expected the id of an update of an incident, found none with {update_id!r}")

    def publish_postmortem(self, now_ns: int, incident_id: str, text: str) -> Incident:
        """Only of what is resolved."""
        incident = self._get(incident_id)
        if not incident.resolved_ns:
            raise IncidentUnknown(f"expected a resolved incident, {incident_id} is {incident.status.value}")
        update = Update(
            id=self.new_id(),
            at_ns=now_ns,
            status=IncidentStatus.POSTMORTEM,
            body="The post-mortem is published.",
            by="operator",
        )
        incident = replace(
            incident,
            status=IncidentStatus.POSTMORTEM,
            postmortem=text,
            updated_ns=now_ns,
            updates=(update, *incident.updates),
        )
        self._keep(incident)
        return incident

    def _get(self, incident_id: str) -> Incident:
        incident = self.kept.get(incident_id)
        if incident is None:
            raise IncidentUnknown(f"expected the id of an incident, found none with {incident_id!r}")
        return incident


_ALL_WELL = "All affected components work again."


def _instruments_of(names: Iterable[str], components: Mapping[str, Component]) -> tuple[str, ...]:
    found = (components[name].instrument for name in names if name in components)
    return tuple(dict.fromkeys(symbol for symbol in found if symbol))


def _name_of(names: Sequence[str], components: Mapping[str, Component]) -> str:
    """What a headline says: the exchange, a group, or the components by name."""
    known = [components[name] for name in names if name in components]
    failing = (c.status for c in known if c.status not in _FINE)
    worst = max(failing, key=_SEVERITY, default=ComponentStatus.DEGRADED)
    how = "degraded" if worst is ComponentStatus.DEGRADED else "disrupted"
    if worst is ComponentStatus.MAJOR_OUTAGE:
        how = "unavailable"
    if len(known) == len(components) and len(known) > 1:
        return f"Exchange {how}"
    by_group: dict[str, list[Component]] = {}
    for component in known:
        by_group.setdefault(component.group, []).append(component)
    parts = []
    for group, members in by_group.items():
        symbols = [c.instrument for c in members if c.instrument]
        if symbols and len(symbols) == sum(1 for c in components.values() if c.group == group):
            parts.append(group)
        else:
            parts.append(f"{group} of {', '.join(symbols)}" if symbols else ", ".join(c.name for c in members))
    return f"{', '.join(parts)} {how}"


def _what_fails(names: Sequence[str], components: Mapping[str, Component]) -> str:
    """One sentence for each reason, with those that it is true of."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        component = components.get(name)
        if component is not None and component.status not in _FINE:
            by_reason.setdefault(component.reason, []).append(component.name)
    return " ".join(f"{', '.join(found)}: {reason}" for reason, found in by_reason.items())


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%H:%M:%S")


def _span(from_ns: int, to_ns: int) -> str:
    seconds = max(round((to_ns - from_ns) / 1e9), 0)
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
