"""Recorded flows through the engine give, byte for byte, what independent engines gave."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from exchange.cli.replay.engine import replay_engine
from exchange.cli.replay.formats import read
from exchange.cli.replay.outcome import matched, write_files

FLOWS = Path(__file__).parents[2].parent / "shared" / "flows"
pytestmark = pytest.mark.skipif(not FLOWS.is_dir(), reason="the recorded flows are not here")


@pytest.mark.parametrize("name", ["f10k", "f100k", "r10k"])
def test_a_flow_gives_the_known_answer(name: str, tmp_path: Path) -> None:
    recording = read(FLOWS / f"{name}.csv.gz")
    outcome = replay_engine(recording, lambda _: None, lambda _: None)
    for path in write_files(str(tmp_path / name), recording, outcome):
        expected = gzip.decompress((FLOWS / f"{path.name}.gz").read_bytes()).decode()
        assert path.read_text().split() == expected.split(), path.name


def test_a_real_day_reproduces_its_trades() -> None:
    recording = read(FLOWS / "bitstamp-btcusd-2015-05-01.log.xz")
    outcome = replay_engine(recording, lambda _: None, lambda _: None)
    assert len(recording.trades) == 575
    assert matched(recording, outcome) >= 509
