"""The Board as it is now, made from what is seen; everything that tells the public reads it here."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import structlog
from msgspec.structs import replace

from exchange.client import Event, Instrument
from status.causes import Plan
from status.history.days import Days
from status.history.delays import Delay, Delays
from status.history.records import read_incident, read_maintenance
from status.history.store import Store
from status.incidents import Incidents
from status.levels import FUNDS, Judge, Verdict, gateway_id, market_data_id, trading_id
from status.maintenance import Maintenances
from status.model import Board, Component, ComponentStatus, Day, Incident, MaintenanceStatus, Notice
from status.settings import Settings
from status.watch.looks import Look, MarketStage
from status.watch.supervisor import Heard

_log = structlog.get_logger()

_SHOWN_NS = 90 * 86_400_000_000_000
_DAY_NS = 86_400_000_000_000
_DAYS_NS = 5_000_000_000
_HEARD_NS = 10_000_000_000
"""What the supervisor said longer ago says nothing of now."""
_EVENTS_NS = 3_600_000_000_000
_EVENTS_MAX = 10_000
_GROUPS = ("Trading", "Market data", "API", "Accounts")
_OVER = (MaintenanceStatus.COMPLETED, MaintenanceStatus.CANCELED)


def new_id() -> str:
    """As the Statuspage's: 12 characters of [0-9a-f]."""
    return secrets.token_hex(6)


class NoticeUnknown(LookupError):
    """No notice has this id."""

    code = "NOTICE_UNKNOWN"


class Publisher:
    """Takes looks and what the supervisor says, and makes the Board of them, a few times a second.

    `board()` is the newest Board. `changes()` yields each that says something new to the public; a reader that is slow
    gets the newest, and none between.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock_ns: Callable[[], int],
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._settings = settings
        self._clock_ns = clock_ns
        self.store = store
        self.judge = Judge(settings.levels, len(settings.exchange.addresses))
        self.incidents = Incidents(settings.incidents, new_id)
        self.maintenances = Maintenances(new_id)
        self.notices: dict[str, Notice] = {}
        self.days = Days()
        self.delays = Delays(settings.history.latency_bucket_s)
        self._new_id = new_id
        self._components: dict[str, Component] = {}
        self._instruments: dict[str, Instrument] = {}
        self._symbols: set[str] = set()
        """Those of before, too: what they are is known once a gateway answers."""
        self._gateway_names: dict[str, int] = {}
        self._events: list[Event] = []
        self._heard: Heard | None = None
        self._days_made_ns = 0
        self._condition = asyncio.Condition()
        self._board = Board(
            version=0,
            page_name=settings.serving.page_name,
            page_url=settings.serving.page_url,
            updated_ns=0,
            checked_ns=0,
            components=(),
            incidents=(),
            maintenances=(),
        )

    # ---------------------------------------------------------------- what is seen

    def see(self, look: Look) -> None:
        self.judge.see(look)
        self.delays.see(look)

    def hear_stage(self, stage: MarketStage) -> None:
        self.judge.hear_stage(stage)

    def hear_instruments(self, listed: Iterable[Instrument]) -> None:
        self._instruments.update({instrument.symbol: instrument for instrument in listed})
        self._symbols.update(self._instruments)

    def hear(self, heard: Heard) -> None:
        self._heard = heard
        self.judge.hear_parts(heard.at_ns, heard.components)
        addresses = self._settings.exchange.addresses
        for part in heard.components:
            if part.address in addresses:
                self._gateway_names[part.name] = addresses.index(part.address)
            elif part.name.startswith("gateway-") and part.name not in self._gateway_names:
                number = part.name.removeprefix("gateway-")
                if number.isdigit() and int(number) < len(addresses):
                    self._gateway_names[part.name] = int(number)
        for event in heard.events:
            self.store.put_event(event.time_ns, event.kind, event.component, event.detail)
        oldest_ns = heard.at_ns - _EVENTS_NS
        self._events = [e for e in (*self._events, *heard.events) if e.time_ns >= oldest_ns][-_EVENTS_MAX:]

    @property
    def plan(self) -> Plan:
        by_shard: dict[str, tuple[str, ...]] = {}
        for instrument in self._instruments.values():
            by_shard[instrument.shard] = (*by_shard.get(instrument.shard, ()), instrument.symbol)
        return Plan(by_shard, self._gateway_names)

    # ---------------------------------------------------------------- what is told

    def now_ns(self) -> int:
        return self._clock_ns()

    def board(self) -> Board:
        return self._board

    async def changes(self) -> AsyncIterator[Board]:
        """The Board as it is, and then each new one."""
        version = -1
        while True:
            async with self._condition:
                await self._condition.wait_for(lambda seen=version: self._board.version != seen)  # type: ignore[misc]
                board = self._board
            version = board.version
            yield board

    def restore(self) -> None:
        """Go on from what the history holds."""
        self.incidents.kept.update(self.store.records_by("incident", read_incident))
        self.maintenances.kept.update(self.store.records_by("maintenance", read_maintenance))
        self.maintenances.commands.update(self.store.records("command", int))
        self.notices.update(self.store.records("notice", Notice))
        watched = {gateway_id(number) for number in range(len(self._settings.exchange.addresses))}
        for name, component in self.store.records("component", Component).items():
            if component.group != "API" or name in watched:
                self._components[name] = component
        self._symbols.update(c.instrument for c in self._components.values() if c.instrument)
        self.days.counts.update(self.store.day_counts())
        for row in self.store.read(
            "SELECT * FROM delays WHERE begin_ns > ? ORDER BY begin_ns", (self.now_ns() - _DAY_NS,)
        ):
            self.delays.add(Delay(*row))
        version = self.store.records("version", int).get("board", 0)
        # Readers hold versions of before: each start begins above all that were.
        self._board = replace(self._board, version=version + 1_000)
        self._make(self._clock_ns())

    async def refresh(self) -> None:
        """Judge, follow incidents and maintenance, and tell if anything changed."""
        now_ns = self._clock_ns()
        verdicts = self.judge.verdicts(sorted(self._symbols), now_ns)
        all_operational = bool(verdicts) and all(v.status is ComponentStatus.OPERATIONAL for v in verdicts.values())
        heard = self._heard
        self.maintenances.observe(
            now_ns,
            heard.maintenance if heard is not None and now_ns - heard.at_ns < _HEARD_NS else None,
            self.plan,
            all_operational=all_operational,
        )
        for name, verdict in verdicts.items():
            self._components[name] = self._component(name, verdict, now_ns)
            self.days.note(verdict.checked_ns, name, self._components[name].status)
        seen = {name: self._components[name] for name in verdicts}
        since = {name: verdict.failing_since_ns for name, verdict in verdicts.items()}
        self.incidents.observe(now_ns, seen, since, self._events, self.plan)
        self._keep(now_ns)
        if self._make(now_ns):
            async with self._condition:
                self._condition.notify_all()

    def put_notice(self, body: str) -> Notice:
        notice = Notice(id=self._new_id(), body=body, at_ns=self._clock_ns())
        self.notices[notice.id] = notice
        self.store.put("notice", notice.id, notice.at_ns, notice)
        return notice

    def remove_notice(self, id_: str) -> None:
        """Raises `NoticeUnknown`."""
        if self.notices.pop(id_, None) is None:
            raise NoticeUnknown(f"expected the id of a notice, found none with {id_!r}")
        self.store.delete("notice", id_)

    def _component(self, name: str, verdict: Verdict, now_ns: int) -> Component:
        status, reason = verdict.status, verdict.reason
        if status is not ComponentStatus.OPERATIONAL and self.maintenances.covers(name, now_ns):
            status, reason = ComponentStatus.MAINTENANCE, "Maintenance is under way."
        before = self._components.get(name)
        same = before is not None and before.status is status
        return Component(
            id=name,
            **self._described(name),
            status=status,
            since_ns=before.since_ns if same and before is not None else now_ns,
            reason=reason,
            trading_mode=verdict.mode,
            next_mode_ns=verdict.next_mode_ns,
            latency_p50_ms=verdict.latency_p50_ms,
            latency_p99_ms=verdict.latency_p99_ms,
            checked_ns=verdict.checked_ns,
            created_ns=before.created_ns if before is not None else now_ns,
        )

    def _described(self, name: str) -> dict[str, Any]:
        """Name, group, place and description of a component."""
        for index, symbol in enumerate(sorted(self._symbols)):
            if name == trading_id(symbol):
                text = f"Orders and cancels of {symbol}"
                return _described(f"Trading {symbol}", "Trading", index, text, symbol)
            if name == market_data_id(symbol):
                text = f"Order book, trades and ticker of {symbol}"
                return _described(f"Market data {symbol}", "Market data", index, text, symbol)
        if name == FUNDS:
            return _described("Accounts and funds", "Accounts", 0, "Balances, deposits, withdrawals and transfers")
        for number in range(len(self._settings.exchange.addresses)):
            if name == gateway_id(number):
                return _described(f"API gateway {number}", "API", number, "A way in for clients, by gRPC")
        raise LookupError(f"expected a component that is watched, was {name!r}")

    def _days_of(
        self, components: Iterable[Component], incidents: Iterable[Incident], now_ns: int
    ) -> dict[str, tuple[Day, ...]]:
        """Made anew every few seconds only: nobody sees seconds in a day's bar."""
        if now_ns - self._days_made_ns < _DAYS_NS:
            return self._board.days
        self._days_made_ns = now_ns
        return {c.id: self.days.of(c.id, incidents, now_ns) for c in components}

    def _keep(self, now_ns: int) -> None:
        """Note for the history what changed."""
        for id_ in self.incidents.changed:
            incident = self.incidents.kept[id_]
            self.store.put("incident", id_, incident.started_ns, incident)
        for id_ in self.maintenances.changed:
            maintenance = self.maintenances.kept[id_]
            self.store.put("maintenance", id_, maintenance.scheduled_for_ns, maintenance)
            if id_ in self.maintenances.commands:
                self.store.put("command", id_, now_ns, self.maintenances.commands[id_])
        for blip in self.incidents.blips:
            self.store.put_blip(blip.component, blip.began_ns, blip.ended_ns, blip.worst.value)
            _log.info("status.blip", component=blip.component, lasted_ms=(blip.ended_ns - blip.began_ns) // 1_000_000)
        self.incidents.changed.clear()
        self.maintenances.changed.clear()
        self.incidents.blips.clear()
        for component, date in self.days.changed:
            self.store.put_day(component, date, self.days.counts[component, date])
        self.days.changed.clear()
        for delay in self.delays.finished(now_ns):
            self.store.put_delay(delay.component, delay.begin_ns, delay.looks, delay.p50_ms, delay.p99_ms)

    def _make(self, now_ns: int) -> bool:
        """Make the Board anew; True if it says something new."""
        components = tuple(sorted(self._components.values(), key=lambda c: c.position))
        shown_ns = now_ns - _SHOWN_NS
        kept = self.incidents.kept.values()
        incidents = [i for i in kept if not i.resolved_ns or i.started_ns >= shown_ns]
        maintenances = [
            m for m in self.maintenances.kept.values() if m.status not in _OVER or m.scheduled_until_ns >= shown_ns
        ]
        board = replace(
            self._board,
            # What was not looked at for longest: a board is as old as its oldest part.
            checked_ns=min((c.checked_ns for c in components), default=0),
            components=components,
            incidents=tuple(sorted(incidents, key=lambda i: i.started_ns, reverse=True)),
            maintenances=tuple(sorted(maintenances, key=lambda m: m.scheduled_for_ns, reverse=True)),
            notices=tuple(self.notices.values()),
            days=self._days_of(components, incidents, now_ns),
            latency={c.id: self.delays.series(c.id, now_ns) for c in components},
        )
        is_new = _said(board) != _said(self._board)
        if is_new:
            board = replace(board, version=board.version + 1, updated_ns=now_ns)
            self.store.put("version", "board", now_ns, board.version)
            for component in components:
                self.store.put("component", component.id, now_ns, component)
        self._board = board
        return is_new


def _described(name: str, group: str, index: int, description: str, instrument: str = "") -> dict[str, Any]:
    position = _GROUPS.index(group) * 1_000 + index
    return {
        "name": name,
        "group": group,
        "position": position,
        "description": description,
        "instrument": instrument,
    }


def _said(board: Board) -> Mapping[str, object]:
    """What is news to the public: not each delay and moment of a look."""
    return {
        "components": [replace(c, latency_p50_ms=0.0, latency_p99_ms=0.0, checked_ns=0) for c in board.components],
        "incidents": board.incidents,
        "maintenances": board.maintenances,
        "notices": board.notices,
    }
