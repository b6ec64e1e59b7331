"""A client that others wrote for Statuspage reads ours, given nothing but the address."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from status.web.server import server
from tests.status.web import scenes
from tests.status.web.scenes import FakePublisher

checker = pytest.importorskip(
    "statuspage_prometheus_exporter.service_checker", reason="pip install statuspage-prometheus-exporter"
)


@pytest.mark.slow
async def test_statuspage_prometheus_exporter_reads_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it keeps what it read in files
    monkeypatch.setattr(checker, "load_service_response", lambda _key: None)
    listening = socket.create_server(("127.0.0.1", 0))
    publisher = FakePublisher(scenes.incident())
    running = server(publisher, "127.0.0.1", 0)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v2/summary.json"
        config = {"name": "Evenkeel", "url": url}
        read = await asyncio.to_thread(checker.check_status_page_service, "evenkeel", config)
        assert read["success"] is True
        assert read["raw_status"] == "critical"
        assert [i["name"] for i in read["incident_metadata"]] == ["BTC-USDT and ETH-USDT recover from a restart"]
        assert read["incident_metadata"][0]["shortlink"] == "https://status.example.com/incidents/inc-1"
        states = {c["name"]: c["status"] for c in read["component_metadata"]}
        assert states["BTC-USDT trading"] == "major_outage"
        assert states["Accounts and funds"] == "operational"
        publisher.publish(scenes.changed(scenes.maintenance()))
        read = await asyncio.to_thread(checker.check_status_page_service, "evenkeel", config)
        assert [m["id"] for m in read["maintenance_metadata"]] == ["mnt-2", "mnt-1"]
    finally:
        running.should_exit = True
        await task
