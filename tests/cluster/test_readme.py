"""What the README shows runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exchange.client import Client
from exchange.cluster import LocalExchange
from tests.cluster.money import open_rich_account

pytestmark = pytest.mark.cluster
README = Path(__file__).parents[2] / "README.md"
ORDERS, MONEY = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def run(example: str, directory: Path, **environment: str) -> list[str]:
    """Run an example as a program of its own and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(README.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_example_of_orders_runs_as_printed(exchange: LocalExchange, tmp_path: Path) -> None:
    with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
        _, secret = open_rich_account(operator, "reader", {"USDT": "100000"})
    lines = run(ORDERS, tmp_path, EVENKEEL_ADDRESS=exchange.address, EVENKEEL_API_KEY=secret)
    assert lines[0].startswith("OPEN ")
    assert lines[1] == "69999.950000 available, 30000.050000 held"
    assert lines[2].startswith("60000.10 ")


def test_the_example_of_money_runs_as_printed(exchange: LocalExchange, tmp_path: Path) -> None:
    (tmp_path / "evenkeel-data").mkdir()
    (tmp_path / "evenkeel-data" / "operator.key").write_text(exchange.operator_key)
    assert run(MONEY, tmp_path, EVENKEEL_ADDRESS=exchange.address) == ["987.500000 12.500000"]
