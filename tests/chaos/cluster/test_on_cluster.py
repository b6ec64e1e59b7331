"""An experiment on a Ray cluster of three nodes on this machine: a process is killed, then a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.experiment import library
from chaos.run.private import config_of
from chaos.run.record import EVENTS_FILE, VERDICT_FILE, Event, ExitCode, read_lines
from exchange.client import Client
from exchange.cluster import LocalExchange
from exchange.node_reviver import NodeReviver

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EXPERIMENT = """
title: A process is lost, then a node
environment: {nodes: 3, gateways: 3, journal: nats}
load: [{name: clients, behaviour: flow, clients: 4, per_s: 40}]
phases:
  - {name: steady, duration_s: 8}
  - name: loss
    duration_s: 30
    is_trigger: true
    faults:
      - {fault: kill-process, target: shard-0, at_s: 1}
      - {fault: kill-node, target: node-2, at_s: 6, for_s: 5}
  - {name: after, duration_s: 5}
# How fast it is says nothing here: three nodes share the cores of one machine.
invariants: [I1, I10]
service_levels: {amplification_max: null}
"""


@pytest.mark.timeout(240)
def test_an_experiment_on_a_cluster_outlives_what_it_kills(tmp_path: Path) -> None:
    file = tmp_path / "loss.yaml"
    file.write_text(EXPERIMENT)
    config = config_of(library.read(file).experiment.environment, tmp_path / "data")
    with LocalExchange(config) as exchange:
        assert exchange.nodes is not None
        exchange.wait(complete=True)
        addresses = [c.address for c in exchange.status().components if c.name.startswith("gateway")]
        exchange.disconnect()
        with Client(addresses, exchange.operator_key, timeout=10) as operator:
            for asset in ("BTC", "USDT"):
                operator.create_asset(asset, 8)
            operator.create_instrument("BTC-USDT", tick_size="0.01", lot_size="0.0001", max_open_orders=1_000_000)
        command = [sys.executable, "-m", "chaos.cli", "run", str(file), "--out", str(tmp_path / "out")]
        command += ["--ray", exchange.nodes.address, "--workers", "2"]
        command += ["--operator-key-file", str(config.data_dir.resolve() / "operator.key")]
        command += [word for address in addresses for word in ("--attach", address)]
        with NodeReviver(exchange.nodes):
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=200, env=os.environ.copy()
            )
    told = done.stdout + done.stderr
    assert done.returncode == ExitCode.HELD, told
    events = list(read_lines(tmp_path / "out" / EVENTS_FILE, Event))
    proofs = {event.name: event.detail for event in events if event.kind == "proof"}
    assert "is gone" in proofs["kill-process"], told
    assert "Ray has lost node-2" in proofs["kill-node"], told
    assert {event.name for event in events if event.what == "taken back"} == {"kill-process", "kill-node"}
    assert json.loads((tmp_path / "out" / VERDICT_FILE).read_text())["exit_code"] == ExitCode.HELD
