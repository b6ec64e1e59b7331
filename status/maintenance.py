"""Maintenance: announced by an operator, and then started, verified and completed by what is seen of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from exchange.client import Maintenance as Command
from exchange.client import MaintenanceKind, MaintenanceState
from status.causes import Plan
from status.model import Maintenance, MaintenanceStatus, Update

_EARLY_NS = 15 * 60 * 1_000_000_000
"""A command that begins so long before its window still belongs to it."""
_VERIFY_NS = 5_000_000_000
"""All must have been well for so long after the command ended."""
_SETTLE_NS = 15_000_000_000
"""After that what is not operational is an outage, and no maintenance any more."""
_SILENT_NS = 60_000_000_000
"""A supervisor that is itself replaced is away for seconds."""
_WAITING = (MaintenanceStatus.SCHEDULED,)
_UNDER_WAY = (MaintenanceStatus.IN_PROGRESS, MaintenanceStatus.VERIFYING)
_KINDS = {MaintenanceKind.RESTART: "Restart", MaintenanceKind.DRAIN: "Repair", MaintenanceKind.UNDRAIN: "Repair"}


class MaintenanceUnknown(LookupError):
    """No maintenance has this id, or it is over."""

    code = "MAINTENANCE_UNKNOWN"


class WindowInvalid(ValueError):
    """A window that does not end after it begins, or that is over."""

    code = "WINDOW_INVALID"


@dataclass(slots=True)
class Maintenances:
    new_id: Callable[[], str]
    kept: dict[str, Maintenance] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    """By id: when the maintenance command that belongs to it began, as the exchange says; outlives a restart."""
    changed: list[str] = field(default_factory=list)
    _ended_ns: dict[str, int] = field(default_factory=dict)
    """When its command, or its window, was seen to be over."""
    _heard_ns: dict[str, int] = field(default_factory=dict)
    """When its command was heard of last."""
    _fine_since_ns: int = 0

    @property
    def under_way(self) -> list[Maintenance]:
        return [m for m in self.kept.values() if m.status in _UNDER_WAY]

    def covers(self, component: str, now_ns: int) -> bool:
        """Whether a component that is not operational is so because of maintenance."""
        return any(
            component in m.components
            and (m.status is MaintenanceStatus.IN_PROGRESS or now_ns - self._ended_ns.get(m.id, now_ns) < _SETTLE_NS)
            for m in self.under_way
        )

    # ---------------------------------------------------------------- what is seen

    def observe(self, now_ns: int, command: Command | None, plan: Plan, *, all_operational: bool) -> None:
        """Take in the newest maintenance command of the exchange, and whether all that is measured is well."""
        self._fine_since_ns = (self._fine_since_ns or now_ns) if all_operational else 0
        for maintenance in list(self.kept.values()):
            if maintenance.status is MaintenanceStatus.SCHEDULED and now_ns >= maintenance.scheduled_for_ns:
                self._begin(now_ns, maintenance, "The maintenance has begun.")
        if command is not None:
            self._take(now_ns, command, plan)
        for maintenance in self.under_way:
            if maintenance.status is MaintenanceStatus.IN_PROGRESS:
                self._end_unheard(now_ns, maintenance)
            elif maintenance.status is MaintenanceStatus.VERIFYING:
                ended_ns = self._ended_ns.setdefault(maintenance.id, now_ns)
                if self._fine_since_ns and now_ns - max(self._fine_since_ns, ended_ns) >= _VERIFY_NS:
                    self._tell(now_ns, maintenance, MaintenanceStatus.COMPLETED, "The maintenance is completed.")

    def _end_unheard(self, now_ns: int, maintenance: Maintenance) -> None:
        """Without a command its time ends it. With one, silence does: no outage may hide behind it for ever."""
        if maintenance.id not in self.commands:
            if now_ns >= maintenance.scheduled_until_ns:
                self._verify(now_ns, maintenance, "The time for the maintenance is over. We check that all is well.")
        elif now_ns - self._heard_ns.setdefault(maintenance.id, now_ns) >= _SILENT_NS:
            self._verify(now_ns, maintenance, "How far the work is cannot be seen any more. We check what works.")

    def _take(self, now_ns: int, command: Command, plan: Plan) -> None:
        known = next((id_ for id_, begun in self.commands.items() if begun == command.begin_time_ns), None)
        running = command.state in (MaintenanceState.WAITING, MaintenanceState.RUNNING)
        if known is None:
            if not running and now_ns - command.end_time_ns > _SETTLE_NS:
                return  # long over, and before our time
            maintenance = self._announced_for(now_ns) or self._unannounced(now_ns, command, plan)
            self.commands[maintenance.id] = command.begin_time_ns
            if maintenance.status is MaintenanceStatus.SCHEDULED:
                maintenance = self._begin(now_ns, maintenance, "The maintenance has begun.")
        else:
            maintenance = self.kept[known]
        self._heard_ns[maintenance.id] = now_ns
        if not running and maintenance.status is MaintenanceStatus.IN_PROGRESS:
            done = command.state is MaintenanceState.DONE
            text = "The work is done." if done else "The work stopped before its end."
            self._verify(now_ns, maintenance, f"{text} We check that all is well.")

    def _announced_for(self, now_ns: int) -> Maintenance | None:
        """The maintenance that a command of now belongs to."""
        for maintenance in self.kept.values():
            if maintenance.id in self.commands:
                continue
            near = maintenance.scheduled_for_ns - _EARLY_NS <= now_ns <= maintenance.scheduled_until_ns
            if maintenance.status is MaintenanceStatus.IN_PROGRESS or (maintenance.status in _WAITING and near):
                return maintenance
        return None

    def _unannounced(self, now_ns: int, command: Command, plan: Plan) -> Maintenance:
        components = plan.components_of(command.shard) if command.shard else plan.everything
        what = f"of {plan.words_for(command.shard)}" if command.shard else "of all parts, one after the other"
        if command.node:
            what = "of a part of the machines"
        return Maintenance(
            id=self.new_id(),
            name=f"{_KINDS.get(command.kind, 'Work')} {what}",
            status=MaintenanceStatus.SCHEDULED,
            components=components,
            scheduled_for_ns=now_ns,
            scheduled_until_ns=now_ns + _EARLY_NS,
            created_ns=now_ns,
            updated_ns=now_ns,
        )

    # ---------------------------------------------------------------- by hand

    def schedule(
        self, now_ns: int, name: str, components: Sequence[str], from_ns: int, until_ns: int, body: str
    ) -> Maintenance:
        self._check_window(now_ns, from_ns, until_ns)
        maintenance = Maintenance(
            id=self.new_id(),
            name=name,
            status=MaintenanceStatus.SCHEDULED,
            components=tuple(components),
            scheduled_for_ns=from_ns,
            scheduled_until_ns=until_ns,
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        return self._tell(now_ns, maintenance, MaintenanceStatus.SCHEDULED, body, by="operator")

    def reschedule(self, now_ns: int, id_: str, from_ns: int, until_ns: int, body: str) -> Maintenance:
        maintenance = self._get(id_, _WAITING)
        self._check_window(now_ns, from_ns, until_ns)
        before = maintenance.rescheduled_from_ns
        if before == (0, 0):
            before = (maintenance.scheduled_for_ns, maintenance.scheduled_until_ns)
        maintenance = replace(
            maintenance, scheduled_for_ns=from_ns, scheduled_until_ns=until_ns, rescheduled_from_ns=before
        )
        return self._tell(now_ns, maintenance, MaintenanceStatus.SCHEDULED, body, by="operator")

    def cancel(self, now_ns: int, id_: str, body: str) -> Maintenance:
        maintenance = self._get(id_, (*_WAITING, *_UNDER_WAY))
        return self._tell(now_ns, maintenance, MaintenanceStatus.CANCELED, body, by="operator")

    def add_words(self, now_ns: int, id_: str, body: str) -> Maintenance:
        maintenance = self._get(id_, tuple(MaintenanceStatus))
        return self._tell(now_ns, maintenance, maintenance.status, body, by="operator")

    def correct(self, now_ns: int, update_id: str, body: str) -> Maintenance:
        """Other words for an update; what it said first stays visible."""
        for maintenance in self.kept.values():
            for index, update in enumerate(maintenance.updates):
                if update.id == update_id:
                    before = update.body_before or update.body
                    corrected = replace(update, body=body, corrected_ns=now_ns, body_before=before)
                    updates = (*maintenance.updates[:index], corrected, *maintenance.updates[index + 1 :])
                    return self._keep(replace(maintenance, updates=updates, updated_ns=now_ns))
        raise MaintenanceUnknown(f"expected the id of an update of a maintenance, found none with {update_id!r}")

    def _check_window(self, now_ns: int, from_ns: int, until_ns: int) -> None:
        if not now_ns < until_ns or not from_ns < until_ns:
            raise WindowInvalid("expected a window that ends after it begins, and in the future")

    def _get(self, id_: str, statuses: Sequence[MaintenanceStatus]) -> Maintenance:
        maintenance = self.kept.get(id_)
        if maintenance is None or maintenance.status not in statuses:
            found = "none" if maintenance is None else f"one that is {maintenance.status.value}"
            expected = ", ".join(status.value for status in statuses)
            raise MaintenanceUnknown(f"expected a maintenance {id_!r} that is {expected}, found {found}")
        return maintenance

    # ---------------------------------------------------------------- what is told

    def _begin(self, now_ns: int, maintenance: Maintenance, body: str) -> Maintenance:
        return self._tell(now_ns, replace(maintenance, begun_ns=now_ns), MaintenanceStatus.IN_PROGRESS, body)

    def _verify(self, now_ns: int, maintenance: Maintenance, body: str) -> None:
        self._ended_ns[maintenance.id] = now_ns
        self._tell(now_ns, maintenance, MaintenanceStatus.VERIFYING, body)

    def _tell(
        self, now_ns: int, maintenance: Maintenance, status: MaintenanceStatus, body: str, by: str = "automatic"
    ) -> Maintenance:
        update = Update(id=self.new_id(), at_ns=now_ns, status=status, body=body, by=by)
        completed_ns = now_ns if status is MaintenanceStatus.COMPLETED else maintenance.completed_ns
        return self._keep(
            replace(
                maintenance,
                status=status,
                updated_ns=now_ns,
                completed_ns=completed_ns,
                updates=(update, *maintenance.updates),
            )
        )

    def _keep(self, maintenance: Maintenance) -> Maintenance:
        self.kept[maintenance.id] = maintenance
        if maintenance.id not in self.changed:
            self.changed.append(maintenance.id)
        return maintenance
