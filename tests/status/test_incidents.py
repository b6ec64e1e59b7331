"""Incidents by themselves: what opens, gathers, identifies, follows, closes and reopens them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.client import Event
from status.incidents import Incidents, IncidentUnknown
from status.model import Component, ComponentStatus, Impact, Incident, IncidentStatus, TradingMode
from status.settings import IncidentRules
from tests.status.observed import PLAN, SECOND, START, component, event, ids

BTC, ETH, GATEWAY = "trading-btc-usdt", "trading-eth-usdt", "api-gateway-0"
FINE, DEGRADED = ComponentStatus.OPERATIONAL, ComponentStatus.DEGRADED
PARTIAL, MAJOR = ComponentStatus.PARTIAL_OUTAGE, ComponentStatus.MAJOR_OUTAGE
RULES = IncidentRules()


class World:
    """Three components, and time that passes a second at a step."""

    def __init__(self, rules: IncidentRules = RULES) -> None:
        new_id = ids()
        self.incidents = Incidents(rules, lambda: next(new_id))
        self.now_s = 0.0
        self.events: list[Event] = []
        self.statuses = {BTC: FINE, ETH: FINE, GATEWAY: FINE}
        self.modes = {BTC: TradingMode.ONLINE, ETH: TradingMode.ONLINE}

    def components(self) -> dict[str, Component]:
        symbols = {BTC: "BTC-USDT", ETH: "ETH-USDT"}
        return {
            name: component(name, status, mode=self.modes.get(name), symbol=symbols.get(name, ""), position=position)
            for position, (name, status) in enumerate(self.statuses.items())
        }

    def step(self, seconds: float = 1.0, **statuses: ComponentStatus) -> None:
        self.statuses.update({name.replace("_", "-"): status for name, status in statuses.items()})
        for _ in range(max(round(seconds), 1)):
            self.now_s += min(seconds, 1.0)
            self.incidents.observe(self.now_ns, self.components(), {}, self.events, PLAN)

    @property
    def now_ns(self) -> int:
        return START + int(self.now_s * SECOND)

    def only(self) -> Incident:
        (incident,) = self.incidents.kept.values()
        return incident

    def statuses_told(self) -> list[str]:
        return [update.status.value for update in reversed(self.only().updates)]


def test_a_blip_is_recorded_and_not_announced() -> None:
    world = World()
    world.step(4, trading_btc_usdt=MAJOR)
    world.step(1, trading_btc_usdt=FINE)
    assert world.incidents.kept == {}
    (blip,) = world.incidents.blips
    assert (blip.component, blip.worst, blip.ended_ns - blip.began_ns) == (BTC, MAJOR, 4 * SECOND)


def test_an_incident_opens_with_all_that_fails_then() -> None:
    world = World()
    world.step(2, trading_btc_usdt=MAJOR)
    world.step(3, trading_eth_usdt=DEGRADED)
    assert world.only().components == (BTC, ETH)
    assert world.only().instruments == ("BTC-USDT", "ETH-USDT")
    assert world.only().impact is Impact.CRITICAL
    assert world.only().started_ns == START + SECOND
    assert "It does not work." in world.only().updates[0].body


def test_what_fails_soon_after_joins_and_what_fails_much_later_does_not() -> None:
    world = World()
    world.step(10, trading_btc_usdt=PARTIAL)
    world.step(10, trading_eth_usdt=PARTIAL)
    assert world.only().components == (BTC, ETH)
    world.step(40)
    world.step(10, api_gateway_0=MAJOR)
    first, second = world.incidents.kept.values()
    assert (first.components, second.components) == ((BTC, ETH), (GATEWAY,))
    assert first.impact is Impact.MAJOR


def test_the_event_log_identifies_the_cause_without_telling_internals() -> None:
    world = World()
    world.step(5, trading_btc_usdt=MAJOR)
    world.events.append(event(world.now_s, "lost", "shard-1", "pid 4711 on 10.0.0.9"))
    world.step(1)
    assert world.only().status.value == "investigating"  # that was another market's
    world.events.append(event(world.now_s, "lost", "shard-0", "pid 4712 on 10.0.0.9"))
    world.step(1)
    assert world.only().status.value == "identified"
    assert world.only().cause == "The engine of BTC-USDT was lost."
    assert "4712" not in str(world.only)
    assert "node-7" not in str(world.only)


def test_stages_are_told_as_they_come_and_the_end_after_a_while() -> None:
    world = World()
    world.modes[BTC] = TradingMode.RECOVERING
    world.step(6, trading_btc_usdt=MAJOR)
    world.modes[BTC] = TradingMode.CANCEL_ONLY
    world.step(2, trading_btc_usdt=PARTIAL)
    world.modes[BTC] = TradingMode.LIMITED
    world.step(2, trading_btc_usdt=DEGRADED)
    assert world.only().updates[0].body == "BTC-USDT is open at a limited rate."
    assert world.only().status.value == "monitoring"
    world.modes[BTC] = TradingMode.ONLINE
    world.step(29, trading_btc_usdt=FINE)
    assert not world.only().resolved_ns
    world.step(5)
    assert world.only().status.value == "resolved"
    assert world.only().impact is Impact.CRITICAL
    assert world.statuses_told()[0] == "investigating"
    assert world.statuses_told()[-1] == "resolved"


def test_that_a_market_lets_through_less_is_told_too() -> None:
    world = World()
    world.modes[BTC] = TradingMode.POST_ONLY
    world.step(6, trading_btc_usdt=PARTIAL)
    world.modes[BTC] = TradingMode.HALTED
    world.step(1, trading_btc_usdt=MAJOR)
    assert world.only().updates[0].body == "BTC-USDT is halted."
    assert world.only().status.value == "investigating"
    assert world.only().impact is Impact.CRITICAL


def test_a_relapse_opens_the_same_incident_again() -> None:
    world = World()
    world.step(6, trading_btc_usdt=PARTIAL)
    world.step(40, trading_btc_usdt=FINE)
    assert world.only().resolved_ns
    world.step(10, trading_btc_usdt=PARTIAL)
    assert not world.only().resolved_ns
    assert world.only().status.value == "investigating"
    assert "came again" in world.only().updates[0].body
    world.step(40, trading_btc_usdt=FINE)
    world.step(600)
    world.step(10, trading_btc_usdt=PARTIAL)
    assert len(world.incidents.kept) == 2  # that is another one


def test_maintenance_opens_none() -> None:
    world = World()
    world.step(60, trading_btc_usdt=ComponentStatus.MAINTENANCE)
    assert world.incidents.kept == {}


def test_an_operator_adds_words_and_corrects_and_what_was_first_stays() -> None:
    world = World()
    world.step(6, trading_btc_usdt=PARTIAL)
    status = world.only().status
    world.incidents.add_words(world.now_ns, world.only().id, "We know.")
    update = world.only().updates[0]
    assert (update.by, update.status, world.only().status) == ("operator", status, status)
    world.incidents.correct(world.now_ns + 1, update.id, "We know more.")
    world.incidents.correct(world.now_ns + 2, update.id, "We know most.")
    update = world.only().updates[0]
    assert (update.body, update.body_before, update.corrected_ns) == ("We know most.", "We know.", world.now_ns + 2)
    with pytest.raises(IncidentUnknown):
        world.incidents.correct(world.now_ns, "no-such", "x")
    with pytest.raises(IncidentUnknown):
        world.incidents.publish_postmortem(world.now_ns, world.only().id, "too early")


def test_a_restart_goes_on_with_an_open_incident() -> None:
    world = World()
    world.step(6, trading_btc_usdt=PARTIAL)
    restarted = World()
    restarted.now_s = world.now_s + 100
    restarted.incidents.kept.update(world.incidents.kept)
    restarted.step(10, trading_btc_usdt=PARTIAL)
    assert len(restarted.incidents.kept) == 1
    restarted.step(40, trading_btc_usdt=FINE)
    assert restarted.only().resolved_ns
    assert restarted.only().started_ns == world.only().started_ns


STATUSES = st.sampled_from([FINE, FINE, DEGRADED, PARTIAL, MAJOR, ComponentStatus.MAINTENANCE])
RANK = list(Impact).index


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(STATUSES, STATUSES, STATUSES, st.integers(1, 40)), min_size=1, max_size=25))
def test_whatever_happens_incidents_tell_the_truth(
    steps: Sequence[tuple[ComponentStatus, ComponentStatus, ComponentStatus, int]],
) -> None:
    world = World()
    broken_since: dict[str, float] = {}
    impacts: dict[str, Impact] = {}
    for *statuses, seconds in steps:
        world.statuses.update(zip(world.statuses, statuses, strict=True))
        for _ in range(seconds):
            world.step()
            for name, status in world.statuses.items():
                if status in (FINE, ComponentStatus.MAINTENANCE):
                    broken_since.pop(name, None)
                else:
                    broken_since.setdefault(name, world.now_s)
            for name, since_s in broken_since.items():
                covering = [i for i in world.incidents.unresolved if name in i.components]
                assert len(covering) <= 1
                if world.now_s - since_s >= RULES.blip_ms / 1_000:
                    assert len(covering) == 1, f"{name} is broken and nobody says so"
            for incident in world.incidents.kept.values():
                assert RANK(incident.impact) >= RANK(impacts.get(incident.id, Impact.NONE))
                impacts[incident.id] = incident.impact
                times = [update.at_ns for update in incident.updates]
                assert times == sorted(times, reverse=True)
                assert (incident.status is IncidentStatus.RESOLVED) == bool(incident.resolved_ns)
                assert incident.started_ns <= incident.created_ns <= incident.updated_ns
                if incident.resolved_ns == world.now_ns:
                    assert not set(incident.components) & set(broken_since)
