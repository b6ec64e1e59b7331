"""Boards of made-up moments, and a publisher that a test can move from one to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec

from status.model import (
    Board,
    Component,
    ComponentStatus,
    Day,
    Impact,
    Incident,
    IncidentStatus,
    Latency,
    Maintenance,
    MaintenanceStatus,
    Notice,
    TradingMode,
    Update,
)

S = 1_000_000_000
NOW_NS = int(datetime(2026, 7, 5, 10, 20, 30, tzinfo=UTC).timestamp()) * S
MARKETS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}\x07"


class FakePublisher:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._changed = asyncio.Event()

    def board(self) -> Board:
        return self._board

    def publish(self, board: Board) -> None:
        self._board = board
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[Board]:
        told = -1
        while True:
            changed = self._changed
            if self._board.version != told:
                told = self._board.version
                yield self._board
            else:
                await changed.wait()


def changed(board: Board, now_ns: int = NOW_NS, **changes: object) -> Board:
    return msgspec.structs.replace(board, version=board.version + 1, updated_ns=now_ns, checked_ns=now_ns, **changes)


def _components(now_ns: int) -> tuple[Component, ...]:
    made = now_ns - 90 * 86_400 * S
    rows: list[Component] = []

    def add(id_: str, name: str, group: str, **more: object) -> None:
        rows.append(
            Component(
                id=id_, name=name, group=group, position=len(rows) + 1, status=ComponentStatus.OPERATIONAL,
                since_ns=now_ns - 7_200 * S, checked_ns=now_ns, created_ns=made, **more,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    for at, market in enumerate(MARKETS):
        add(
            f"trading-{market.lower()}", f"{market} trading", "Trading", instrument=market,
            trading_mode=TradingMode.ONLINE, latency_p50_ms=2.1 + at / 10, latency_p99_ms=7.8 + at,
        )  # fmt: skip
    for market in MARKETS:
        add(f"market-data-{market.lower()}", f"{market} market data", "Market data", instrument=market)
    add("api-gateway-0", "API gateway 0", "API")
    add("api-gateway-1", "API gateway 1", "API")
    add("funds", "Accounts and funds", "Accounts")
    return tuple(rows)


def _days(now_ns: int, count: int = 90, gaps: bool = False) -> tuple[Day, ...]:
    today = datetime.fromtimestamp(now_ns // S, UTC)
    days: list[Day] = []
    for back in range(count - 1, -1, -1):
        if gaps and (back > 70 or 40 < back < 46):
            continue
        measured = 86_400.0 if back else 37_230.0
        days.append(
            Day(
                date=(today - timedelta(days=back)).strftime("%Y-%m-%d"),
                measured_s=measured,
                down_s=720.0 if back == 12 else 0.0,
                degraded_s=95.0 if back in {3, 30} else 0.0,
                maintenance_s=600.0 if back == 20 else 0.0,
                incidents=("inc-old",) if back == 12 else (),
            )
        )
    return tuple(days)


def _latency(now_ns: int) -> tuple[Latency, ...]:
    return tuple(
        Latency(at_ns=now_ns - (287 - i) * 300 * S, p50_ms=2 + (i * 7 % 11) / 10, p99_ms=7 + (i * 13 % 17) / 4)
        for i in range(288)
        if not 100 < i < 120
    )


def _old_incident(now_ns: int) -> Incident:
    start = now_ns - 12 * 86_400 * S
    updates = (
        Update(id="o3", at_ns=start + 720 * S, status=IncidentStatus.RESOLVED, body="All orders are taken again."),
        Update(
            id="o2", at_ns=start + 200 * S, status=IncidentStatus.IDENTIFIED, by="operator",
            body="A network link between two machines failed.", corrected_ns=start + 900 * S,
            body_before="A machine failed.",
        ),
        Update(id="o1", at_ns=start + 4 * S, status=IncidentStatus.INVESTIGATING, body="BTC-USDT takes no orders."),
    )  # fmt: skip
    return Incident(
        id="inc-old", name="BTC-USDT was down", status=IncidentStatus.POSTMORTEM, impact=Impact.CRITICAL,
        components=("trading-btc-usdt",), instruments=("BTC-USDT",), started_ns=start, created_ns=start + 4 * S,
        updated_ns=start + 900 * S, identified_ns=start + 200 * S, resolved_ns=start + 720 * S, updates=updates,
        cause="A network link failed.", postmortem="What happened: a link failed.\nWhat we changed: two links.",
    )  # fmt: skip


def operational(now_ns: int = NOW_NS, *, gaps: bool = False) -> Board:
    components = _components(now_ns)
    return Board(
        version=7, page_name="Evenkeel", page_url="https://status.example.com", updated_ns=now_ns, checked_ns=now_ns,
        components=components, incidents=(_old_incident(now_ns),), maintenances=(),
        days={c.id: _days(now_ns, gaps=gaps) for c in components},
        latency={c.id: _latency(now_ns) for c in components[:3]},
    )  # fmt: skip


def history(now_ns: int = NOW_NS) -> Board:
    """90 days with gaps in them."""
    return operational(now_ns, gaps=True)


def incident(now_ns: int = NOW_NS, mode: TradingMode = TradingMode.CANCEL_ONLY) -> Board:
    board = operational(now_ns)
    start = now_ns - 40 * S
    hit = {
        "trading-btc-usdt": {
            "status": ComponentStatus.MAJOR_OUTAGE, "reason": "Only cancels are taken since a restart.",
            "trading_mode": mode, "next_mode_ns": now_ns + 12 * S, "since_ns": start,
        },
        "trading-eth-usdt": {
            "status": ComponentStatus.DEGRADED, "trading_mode": TradingMode.LIMITED, "since_ns": start,
        },
    }  # fmt: skip
    components = tuple(msgspec.structs.replace(c, **hit.get(c.id, {})) for c in board.components)
    updates = (
        Update(id="u4", at_ns=now_ns - 9 * S, status=IncidentStatus.IDENTIFIED, body="BTC-USDT takes cancels again."),
        Update(id="u3", at_ns=now_ns - 20 * S, status=IncidentStatus.IDENTIFIED, body="ETH-USDT takes orders, paced."),
        Update(
            id="u2", at_ns=now_ns - 30 * S, status=IncidentStatus.IDENTIFIED, by="operator",
            body="One machine restarted.", corrected_ns=now_ns - 25 * S, body_before="Two machines restarted.",
        ),
        Update(
            id="u1", at_ns=start, status=IncidentStatus.INVESTIGATING, body="BTC-USDT and ETH-USDT take no orders.",
            components=(("trading-btc-usdt", ComponentStatus.MAJOR_OUTAGE),),
        ),
    )  # fmt: skip
    opened = Incident(
        id="inc-1", name="BTC-USDT and ETH-USDT recover from a restart", status=IncidentStatus.IDENTIFIED,
        impact=Impact.CRITICAL, components=("trading-btc-usdt", "trading-eth-usdt"),
        instruments=("BTC-USDT", "ETH-USDT"), started_ns=start, created_ns=start + S, updated_ns=now_ns - 9 * S,
        identified_ns=now_ns - 30 * S, updates=updates,
    )  # fmt: skip
    return changed(board, now_ns, components=components, incidents=(opened, *board.incidents))


def maintenance(now_ns: int = NOW_NS) -> Board:
    """One under way, one to come, one done, one called off."""
    board = operational(now_ns)

    def plan(id_: str, status: MaintenanceStatus, begins_s: int, **more: object) -> Maintenance:
        return Maintenance(
            id=id_, name=f"Restart of the SOL-USDT machines ({id_})", status=status, components=("trading-sol-usdt",),
            scheduled_for_ns=now_ns + begins_s * S, scheduled_until_ns=now_ns + (begins_s + 1800) * S,
            created_ns=now_ns - 86_400 * S, updated_ns=now_ns - 60 * S,
            updates=(Update(id=f"{id_}-u", at_ns=now_ns - 60 * S, status=status, body="Trading goes on."),),
            **more,  # type: ignore[arg-type]
        )  # fmt: skip

    plans = (
        plan("mnt-1", MaintenanceStatus.IN_PROGRESS, -60, begun_ns=now_ns - 60 * S),
        plan("mnt-2", MaintenanceStatus.SCHEDULED, 7200, rescheduled_from_ns=(now_ns + 3600 * S, now_ns + 5400 * S)),
        plan(
            "mnt-3",
            MaintenanceStatus.COMPLETED,
            -90_000,
            begun_ns=now_ns - 90_000 * S,
            completed_ns=now_ns - 89_000 * S,
        ),
        plan("mnt-4", MaintenanceStatus.CANCELED, -50_000),
    )
    components = tuple(
        msgspec.structs.replace(c, status=ComponentStatus.MAINTENANCE) if c.id == "trading-sol-usdt" else c
        for c in board.components
    )
    notice = Notice(id="n1", body="Fees of makers fall on 1 August.", at_ns=now_ns - 3600 * S)
    return changed(board, now_ns, components=components, maintenances=plans, notices=(notice,))


def empty(now_ns: int = NOW_NS) -> Board:
    """Nothing was measured yet."""
    return Board(
        version=1, page_name="Evenkeel", page_url="https://status.example.com", updated_ns=now_ns, checked_ns=0,
        components=(), incidents=(), maintenances=(),
    )  # fmt: skip


def stale(now_ns: int = NOW_NS) -> Board:
    """As after a restart of the service that cannot reach the exchange."""
    return msgspec.structs.replace(operational(now_ns), checked_ns=now_ns - 300 * S)


def hostile(now_ns: int = NOW_NS) -> Board:
    """Words that are not to be taken for markup, and an id that is not to be taken for a path."""
    board = incident(now_ns)
    first = msgspec.structs.replace(
        board.incidents[0], name=HOSTILE,
        updates=(
            msgspec.structs.replace(
                board.incidents[0].updates[0], body=HOSTILE, corrected_ns=1, body_before=HOSTILE
            ),
        ),
    )  # fmt: skip
    outside = msgspec.structs.replace(first, id="../../etc/passwd")
    components = (msgspec.structs.replace(board.components[0], name=HOSTILE, reason=HOSTILE), *board.components[1:])
    notices = (Notice(id="n", body=HOSTILE, at_ns=now_ns),)
    return changed(board, now_ns, incidents=(first, outside), components=components, notices=notices)


SCENES = {
    "operational": operational,
    "history": history,
    "incident": incident,
    "maintenance": maintenance,
    "empty": empty,
    "stale": stale,
}
