"""The Board: what is made of looks, what is news, and what is kept through a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exchange.client import Maintenance as Command
from exchange.client import MaintenanceKind, MaintenanceState, Stage
from status.history.store import Store
from status.model import Board, ComponentStatus, Impact, IncidentStatus, MaintenanceStatus
from status.publisher import Publisher
from status.settings import Exchange, Settings
from status.watch.looks import Kind, MarketStage, Result
from status.watch.supervisor import Heard
from tests.status.observed import SECOND, START, event, instrument, look

MARKETS = {"BTC-USDT": "shard-0", "ETH-USDT": "shard-1"}


class World:
    """A publisher with a store of its own; time passes in seconds."""

    def __init__(self, folder: Path, now_s: int = 0) -> None:
        self.now_s = now_s
        self.store = Store(folder / "history.db")
        self.store.open()
        settings = Settings(exchange=Exchange(addresses=("gateway:1",)))
        self.publisher = Publisher(settings, self.store, lambda: START + self.now_s * SECOND)
        self.publisher.restore()

    async def seconds(self, count: int, *failing: Kind, command: Command | None = None) -> Board:
        for _ in range(count):
            self.now_s += 1
            self.publisher.hear_instruments(instrument(symbol, shard) for symbol, shard in MARKETS.items())
            for kind in Kind:
                result = Result.FAILED if kind in failing else Result.OK
                symbols = ("",) if kind in (Kind.GATEWAY, Kind.ACCOUNT) else tuple(MARKETS)
                for symbol in symbols:
                    self.publisher.see(look(kind, self.now_s, result, instrument=symbol))
            for symbol in MARKETS:
                self.publisher.hear_stage(MarketStage(symbol, Stage.OPEN, 0, self.publisher.now_ns()))
            if command is not None:
                self.publisher.hear(Heard(self.publisher.now_ns(), (), (), command))
            await self.publisher.refresh()
        return self.publisher.board()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.store.close()


async def test_components_are_told_in_the_order_of_the_page(world: World) -> None:
    board = await world.seconds(1)
    assert [component.id for component in board.components] == [
        "trading-btc-usdt",
        "trading-eth-usdt",
        "market-data-btc-usdt",
        "market-data-eth-usdt",
        "api-gateway-0",
        "funds",
    ]
    assert board.indicator is Impact.NONE
    assert board.checked_ns == START + SECOND


async def test_the_version_rises_only_with_what_is_news_to_the_public(world: World) -> None:
    first = await world.seconds(1)
    second = await world.seconds(5)
    assert second.version == first.version
    assert second.checked_ns > first.checked_ns
    third = await world.seconds(2, Kind.ORDER)
    assert third.version > second.version


async def test_changes_begin_with_the_board_as_it_is_and_leave_out_what_came_between(world: World) -> None:
    await world.seconds(1)
    changes = world.publisher.changes()
    assert (await anext(changes)).version == world.publisher.board().version
    await world.seconds(2, Kind.ORDER)
    await world.seconds(2)
    newest = await asyncio.wait_for(anext(changes), 5)
    assert newest.version == world.publisher.board().version
    waiting = asyncio.ensure_future(anext(changes))
    await world.seconds(3)
    assert not waiting.done()
    waiting.cancel()


async def test_an_outage_is_on_the_board_at_the_second_failed_look_and_an_incident_after_a_blip(world: World) -> None:
    await world.seconds(1)
    board = await world.seconds(2, *Kind)
    assert {component.status for component in board.components} == {ComponentStatus.MAJOR_OUTAGE}
    assert board.incidents == ()
    board = await world.seconds(3, *Kind)
    (incident,) = board.incidents
    assert (incident.name, incident.impact) == ("Exchange unavailable", Impact.CRITICAL)
    assert board.indicator is Impact.CRITICAL


async def test_a_restart_goes_on_with_incidents_days_and_versions(world: World, tmp_path: Path) -> None:
    before = await world.seconds(20, Kind.ORDER)
    world.publisher.put_notice("Look here.")
    await world.publisher.refresh()
    await world.store.flush()
    restarted = World(tmp_path, now_s=world.now_s + 3_600)
    board = restarted.publisher.board()
    assert board.incidents == before.incidents
    assert [notice.body for notice in board.notices] == ["Look here."]
    assert board.version > before.version
    assert [component.status for component in board.components] == [c.status for c in before.components]
    board = await restarted.seconds(60)
    (incident,) = board.incidents
    assert incident.status is IncidentStatus.RESOLVED
    measured_s = sum(day.measured_s for day in board.days["trading-btc-usdt"])
    assert measured_s < 120  # the hour between was not measured
    await restarted.store.close()


async def test_whoever_starts_in_the_middle_of_an_outage_says_so_of_all_that_it_knew(
    world: World, tmp_path: Path
) -> None:
    await world.seconds(2)
    await world.store.flush()
    restarted = World(tmp_path, now_s=world.now_s + 60)
    for second in (1, 2):
        restarted.now_s += 1
        restarted.publisher.see(look(Kind.GATEWAY, restarted.now_s, Result.FAILED))
        await restarted.publisher.refresh()
        assert second == 2 or restarted.publisher.board().checked_ns < restarted.publisher.now_ns() - 30 * SECOND
    board = restarted.publisher.board()
    assert len(board.components) == 6
    assert {component.status for component in board.components} == {ComponentStatus.MAJOR_OUTAGE}
    await restarted.store.close()


async def test_what_a_restart_of_the_exchange_breaks_is_maintenance_and_no_incident(world: World) -> None:
    await world.seconds(1)
    begun_ns = world.publisher.now_ns()
    running = Command(MaintenanceKind.RESTART, "", "shard-0", MaintenanceState.RUNNING, (), begun_ns, 0, "")
    board = await world.seconds(10, Kind.ORDER, command=running)
    found = {component.id: component.status for component in board.components}
    assert found["trading-btc-usdt"] is ComponentStatus.MAINTENANCE
    assert found["trading-eth-usdt"] is ComponentStatus.MAJOR_OUTAGE  # that shard is not being restarted
    (maintenance,) = board.maintenances
    assert (maintenance.name, maintenance.status) == (
        "Restart of the engine of BTC-USDT",
        MaintenanceStatus.IN_PROGRESS,
    )
    (incident,) = board.incidents
    assert incident.components == ("trading-eth-usdt",)


async def test_events_of_the_supervisor_name_the_cause_and_nothing_internal_is_told(world: World) -> None:
    await world.seconds(1)
    lost = event(world.now_s, "lost", "shard-0", "process 4711 at 10.0.0.9")
    world.publisher.hear(Heard(world.publisher.now_ns(), (), (lost,), None))
    board = await world.seconds(10, Kind.ORDER)
    (incident,) = board.incidents
    assert incident.cause == "The engine of BTC-USDT was lost."
    for internal in ("4711", "10.0.0.9", "node-7"):
        assert internal not in str(board)
