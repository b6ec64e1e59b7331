"""What the README shows runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exchange.client import Client, Permission
from exchange.cluster import LocalExchange

pytestmark = pytest.mark.cluster
README = Path(__file__).parents[2] / "README.md"


def test_the_sdk_example_runs_as_printed(exchange: LocalExchange) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
        account = operator.create_account("reader")
        key = operator.create_api_key(account.account_id, [Permission.READ, Permission.TRADE])
    environment = {**os.environ, "EVENKEEL_ADDRESS": exchange.address, "EVENKEEL_API_KEY": key.secret}
    done = subprocess.run(
        [sys.executable, "-c", example], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("OPEN ")
    assert done.stdout.splitlines()[1].startswith("60000.10 ")
