"""Faults under load, a few by default and two hundred in `make cluster-test`; afterwards every rule holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from chaos.campaign.campaign import Options, run_campaign, table
from chaos.worlds.world import LocalWorld
from chaos.worlds.worlds import SETTINGS, WORLDS, make_world
from exchange.config import ExchangeConfig

SEED = int(os.environ.get("FAULT_SEED", "1"))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_few_faults_under_load_break_no_rule(tmp_path: Path) -> None:
    config = ExchangeConfig(
        data_dir=tmp_path / "data", port=0, gateways=2, snapshot_every_commands=1_500, settings=SETTINGS
    )
    world = LocalWorld(config, supervisor_too=False, pause_s=(0.5, 1.0))
    options = Options(
        SEED,
        faults=6,
        commands_per_s=400.0,
        traders=4,
        pause_s_max=0.3,
        warm_up_s=1.0,
        doubles=0.3,
        outcome_s_max=60.0,
        naive_commands_max=500,
    )
    report = run_campaign(world, tmp_path, options)
    assert report.is_good, table(report)
    # What was promised was looked at.
    assert len(report.happened) == 6
    for what in ("I1 acknowledged commands found in the history", "I5 trades", "I7 updates of books"):
        assert report.findings.checked[what] > 100, table(report)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("name", os.environ.get("FAULT_WORLD", " ".join(WORLDS)).split())
def test_two_hundred_faults_under_load_break_no_rule(name: str, tmp_path: Path) -> None:
    """`FAULTS`, `FAULT_SEED`, `FAULT_WORLD` and `FAULT_RATE` say how many, which, to what, and at which load."""
    rate = float(os.environ.get("FAULT_RATE", "1000"))
    options = Options(SEED, faults=int(os.environ.get("FAULTS", "200")), commands_per_s=rate)
    report = run_campaign(make_world(name, tmp_path / "data"), tmp_path, options, say)
    print(table(report))
    assert report.is_good, table(report)
