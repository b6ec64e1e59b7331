"""Maintenance: announced, and then begun and ended by what is seen."""

from __future__ import annotations

import pytest

from exchange.client import Maintenance as Command
from exchange.client import MaintenanceKind, MaintenanceState
from status.maintenance import Maintenances, MaintenanceUnknown, WindowInvalid
from status.model import Maintenance
from tests.status.observed import PLAN, SECOND, START, ids

BTC = "trading-btc-usdt"
MINUTE = 60 * SECOND


class World:
    def __init__(self) -> None:
        new_id = ids()
        self.maintenances = Maintenances(lambda: next(new_id))
        self.now_ns = START
        self.command: Command | None = None

    def schedule(self, from_s: int, until_s: int) -> Maintenance:
        return self.maintenances.schedule(
            self.now_ns, "New version", [BTC], START + from_s * SECOND, START + until_s * SECOND, "Short pauses."
        )

    def run_command(self, state: MaintenanceState, begun_s: int, ended_s: int = 0) -> None:
        end_ns = START + ended_s * SECOND if ended_s else 0
        self.command = Command(MaintenanceKind.RESTART, "", "", state, (), START + begun_s * SECOND, end_ns, "")

    def at(self, second: int, *, well: bool = True) -> None:
        """A look each second up to then."""
        while self.now_ns < START + second * SECOND:
            self.now_ns += SECOND
            self.maintenances.observe(self.now_ns, self.command, PLAN, all_operational=well)

    def only(self) -> Maintenance:
        (maintenance,) = self.maintenances.kept.values()
        return maintenance


def test_the_command_begins_and_ends_what_was_announced() -> None:
    world = World()
    world.schedule(100, 1_000)
    world.at(90)
    assert world.only().status.value == "scheduled"
    world.run_command(MaintenanceState.RUNNING, begun_s=90)
    world.at(95, well=False)
    assert world.only().status.value == "in_progress"
    assert world.maintenances.covers(BTC, world.now_ns)
    assert not world.maintenances.covers("trading-eth-usdt", world.now_ns)
    world.run_command(MaintenanceState.DONE, begun_s=90, ended_s=120)
    world.at(125, well=False)
    assert world.only().status.value == "verifying"
    world.at(135)
    assert world.only().status.value == "completed"
    assert [update.status.value for update in reversed(world.only().updates)] == [
        "scheduled",
        "in_progress",
        "verifying",
        "completed",
    ]
    world.at(300)
    assert len(world.maintenances.kept) == 1


def test_without_a_command_its_time_begins_and_ends_it() -> None:
    world = World()
    world.schedule(10, 60)
    world.at(11)
    assert world.only().status.value == "in_progress"
    world.at(100, well=False)
    assert world.only().status.value == "verifying"
    # What still does not work long after is an outage.
    assert not world.maintenances.covers(BTC, world.now_ns)
    world.at(110)
    assert world.only().status.value == "completed"


def test_a_command_that_nobody_announced_is_told_all_the_same() -> None:
    world = World()
    world.run_command(MaintenanceState.RUNNING, begun_s=5)
    world.at(6)
    assert world.only().status.value == "in_progress"
    assert set(world.only().components) == set(PLAN.everything)
    world.run_command(MaintenanceState.FAILED, begun_s=5, ended_s=9)
    world.at(20)
    assert world.only().status.value == "completed"
    assert any("stopped before its end" in update.body for update in world.only().updates)


def test_a_command_of_long_ago_is_none_of_now() -> None:
    world = World()
    world.now_ns += 3_600 * SECOND
    world.run_command(MaintenanceState.DONE, begun_s=5, ended_s=9)
    world.at(3_610)
    assert world.maintenances.kept == {}


def test_an_outage_does_not_hide_for_ever_behind_a_command_that_nobody_hears_of() -> None:
    world = World()
    world.run_command(MaintenanceState.RUNNING, begun_s=5)
    world.at(6)
    world.command = None
    world.at(60, well=False)
    assert world.maintenances.covers(BTC, world.now_ns)
    world.at(100, well=False)
    assert world.only().status.value == "verifying"
    assert not world.maintenances.covers(BTC, world.now_ns)


def test_a_restart_of_the_service_knows_the_command_that_is_under_way() -> None:
    world = World()
    world.schedule(10, 600)
    world.run_command(MaintenanceState.RUNNING, begun_s=12)
    world.at(20)
    restarted = World()
    restarted.now_ns = world.now_ns
    restarted.maintenances.kept.update(world.maintenances.kept)
    restarted.maintenances.commands.update(world.maintenances.commands)
    restarted.run_command(MaintenanceState.DONE, begun_s=12, ended_s=25)
    restarted.at(40)
    assert restarted.only().status.value == "completed"


def test_maintenance_is_moved_and_canceled_until_it_is_over() -> None:
    world = World()
    planned = world.schedule(100, 200)
    moved = world.maintenances.reschedule(START, planned.id, START + 300 * SECOND, START + 400 * SECOND, "Later.")
    assert moved.rescheduled_from_ns == (START + 100 * SECOND, START + 200 * SECOND)
    world.at(250)
    assert world.only().status.value == "scheduled"
    world.maintenances.cancel(world.now_ns, planned.id, "Not needed.")
    world.at(500)
    assert world.only().status.value == "canceled"
    with pytest.raises(MaintenanceUnknown):
        world.maintenances.reschedule(START, planned.id, START + SECOND, START + MINUTE, "x")
    with pytest.raises(WindowInvalid):
        world.maintenances.schedule(START, "x", [], START + MINUTE, START + SECOND, "x")
