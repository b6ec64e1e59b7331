"""What a scrape shows, also while the supervisor is away, and that every alert rests on metrics that exist."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exchange.gateway.metrics import Seen, ShardSeen, render
from exchange.gateway.metrics_server import MetricsServer
from exchange.gateway.server import Gateway
from exchange.overload.classes import WorkClass
from exchange.overload.load import Load
from exchange.runtime.load_messages import gateway_load, machine_load
from exchange.runtime.peers import PeerUnavailable
from exchange.v1 import admin_pb2

ALERTS = Path(__file__).resolve().parents[2] / "deploy" / "alerts.yml"
LINK = {
    "delay_ms": {1: 0.5, 3: 40.0},
    "limit": 64,
    "queued": {3: 7},
    "rate": {3: 900.0},
    "refusing": 0.25,
    "shed": {3: {"queue": 4, "delay": 2}, 1: {"away": 1}},
}
GATEWAY = gateway_load({"requests": 70, "commands": 90, "rate_limited": 5, "links": {"shard-0": LINK}})
MACHINE = {
    "delay_ms": {1: 1.0, 3: 9.0},
    "admitted": 60,
    "done": 58,
    "late": 2,
    "shed": 3,
    "orders_per_s": 20.0,
    "capacity_per_s": 80.0,
    "utilisation": 0.25,
}


def status() -> admin_pb2.GetStatusResponse:
    told = admin_pb2.GetStatusResponse(
        audit_breaks=1, settings_version=3, rolling_version=4, rollout_state=admin_pb2.ROLLOUT_STATE_ROLLING
    )
    up, parked = admin_pb2.COMPONENT_STATE_UP, admin_pb2.COMPONENT_STATE_PARKED
    shard = told.components.add(name="shard-0", state=up, record=100, restarts=2)
    shard.machine_load.CopyFrom(machine_load(MACHINE, 1_500.0))
    told.components.add(name="shard-0-standby", state=up, record=97)
    told.components.add(name="gateway-1", state=parked)
    told.supervisors.add(name="supervisor-1", state=up)
    told.supervisors.add(name="supervisor-0", state=admin_pb2.COMPONENT_STATE_DOWN)
    return told


def scraped(text: bytes) -> dict[tuple[str, ...], float]:
    """Return the values by name and the labels' values, in the order of the labels' names."""
    return {
        (sample.name.removeprefix("evenkeel_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def everything() -> dict[tuple[str, ...], float]:
    return scraped(render(Seen("gateway-0", GATEWAY, {"shard-0": ShardSeen(4, 2, 900)}, status(), 0.5, True)))


def test_a_scrape_shows_the_gateway_its_links_its_shards_and_all_components() -> None:
    shown = everything()
    expected = {
        ("supervisor_up",): 1,
        ("supervisor_process_up", "supervisor-1"): 1,
        ("supervisor_process_up", "supervisor-0"): 0,
        ("status_age_seconds",): 0.5,
        ("audit_breaks",): 1,
        ("settings_version",): 3,
        ("rollout_under_way",): 1,
        ("rollout_reverted",): 0,
        ("shard_stage", "shard-0"): 4,
        ("shard_open", "shard-0"): 0,
        ("shard_epoch", "shard-0"): 2,
        ("shard_commands_total", "shard-0"): 900,
        ("component_up", "shard-0"): 1,
        ("component_up", "gateway-1"): 0,
        ("component_parked", "gateway-1"): 1,
        ("component_restarts_total", "shard-0"): 2,
        ("machine_utilisation", "shard-0"): 0.25,
        ("machine_late_commands_total", "shard-0"): 2,
        ("machine_delay_p99_seconds", "shard-0", "orders"): 0.009,
        ("journal_lag_seconds", "shard-0"): 1.5,
        ("standby_lag_records", "shard-0"): 3,
        ("gateway_commands_total", "gateway-0"): 90,
        ("gateway_rate_limited_commands_total", "gateway-0"): 5,
        ("link_credits", "gateway-0", "shard-0"): 64,
        ("link_refusing_ratio", "gateway-0", "shard-0"): 0.25,
        ("link_delay_p99_seconds", "gateway-0", "shard-0", "orders"): 0.04,
        ("link_served_per_second", "gateway-0", "shard-0", "orders"): 900,
        ("link_queued_commands", "gateway-0", "shard-0", "orders"): 7,
        ("link_shed_commands_total", "gateway-0", "shard-0", "queue", "orders"): 4,
        ("link_shed_commands_total", "gateway-0", "shard-0", "away", "cancels"): 1,
    }
    assert {name: shown.get(name) for name in expected} == expected


def test_the_loads_that_hosts_and_gateways_tell_can_be_shown() -> None:
    load = Load(5.0, lambda: 0.0)
    load.note_delay(WorkClass.ORDERS, 0.02)
    assert machine_load(load.plain(), 0.0).classes[0].p99_delay_ms == 20
    gateway = Gateway("gateway-0", 1, ["shard-0"], FakeSupervisor())  # type: ignore[arg-type]  # asked for nothing here
    assert [link.machine for link in gateway_load(gateway.load()).links] == ["shard-0", "ledger"]
    assert gateway.shards_seen().keys() == {"shard-0"}
    render(Seen("gateway-0", gateway_load(gateway.load()), gateway.shards_seen(), status(), 0.0, True))


def test_every_alert_rests_on_metrics_that_exist_and_says_what_to_do() -> None:
    known = {name for name, *_ in everything()}
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) > 5
    for rule in rules:
        named = set(re.findall(r"evenkeel_(\w+)", rule["expr"]))
        assert named
        assert named <= known, f"{rule['alert']}: no such metrics: {named - known}"
        assert rule["labels"]["severity"] in ("page", "notify")
        assert rule["annotations"].keys() == {"summary", "runbook"}


def test_labels_that_alerts_name_are_those_of_the_metrics() -> None:
    text = render(Seen("gateway-0", GATEWAY, {"shard-0": ShardSeen(5, 1, 1)}, status(), 0.0, True)).decode()
    for selector in re.findall(r"evenkeel_(\w+)\{([^}]*)\}", ALERTS.read_text()):
        name, matchers = selector
        for label in re.findall(r"(\w+)\s*[=!]", matchers):
            assert re.search(rf"^evenkeel_{name}\{{[^}}]*{label}=", text, re.MULTILINE), f"{name} has no label {label}"


class FakeSupervisor:
    def __init__(self) -> None:
        self.is_away = False
        self.hangs = False

    async def status(self) -> bytes:
        if self.is_away:
            raise PeerUnavailable("away")
        if self.hangs:
            await asyncio.Event().wait()
        return status().SerializeToString()


@asynccontextmanager
async def serving(supervisor: FakeSupervisor) -> AsyncIterator[MetricsServer]:
    server = MetricsServer("gateway-0", supervisor, lambda: GATEWAY, dict)  # type: ignore[arg-type]
    await server.start("127.0.0.1", 65_535)
    yield server
    await server.stop()


async def asked(port: int, request: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.split(b"\r\n")[0], body


@pytest.mark.parametrize("harm", ["is_away", "hangs"])
async def test_what_the_supervisor_told_last_is_shown_while_it_is_away_and_that_it_is(harm: str) -> None:
    supervisor = FakeSupervisor()
    async with serving(supervisor) as server:
        first, body = await asked(server.port, b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        assert first == b"HTTP/1.1 200 OK"
        assert scraped(body)["supervisor_up",] == 1
        setattr(supervisor, harm, True)
        shown = scraped((await asked(server.port, b"GET /metrics HTTP/1.1\r\n\r\n"))[1])
        assert shown["supervisor_up",] == 0
        assert shown["status_age_seconds",] > 0
        assert shown["component_up", "shard-0"] == 1
        assert shown["gateway_commands_total", "gateway-0"] == 90


async def test_nothing_else_is_served() -> None:
    async with serving(FakeSupervisor()) as server:
        assert (await asked(server.port, b"GET / HTTP/1.1\r\n\r\n"))[0] == b"HTTP/1.1 404 Not Found"
        assert (await asked(server.port, b"POST /metrics HTTP/1.1\r\n\r\n"))[0] == b"HTTP/1.1 405 Method Not Allowed"


async def test_a_port_that_is_taken_is_no_reason_not_to_serve() -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    server = MetricsServer("gateway-0", FakeSupervisor(), lambda: GATEWAY, dict)  # type: ignore[arg-type]
    await server.start("127.0.0.1", port - 100)
    assert server.port not in (0, port)
    await server.stop()
    taken.close()
