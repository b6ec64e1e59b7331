"""`exchange up` as an operator meets it: it serves, SIGTERM stops it cleanly, a second start carries on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster
EXCHANGE = [sys.executable, "-c", "from exchange.cli import main; main()"]


@contextmanager
def up(data: Path) -> Iterator[subprocess.Popen[str]]:
    command = [*EXCHANGE, "up", "--data", str(data), "--port", "0", "--shards", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("operator's key"):
                    break
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=90)


def run(data: Path, *arguments: str, expect: int = 0) -> Any:
    done = subprocess.run(
        [*EXCHANGE, *arguments, "--data", str(data)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout) if "--json" in arguments and not expect else done.stderr


def test_an_exchange_serves_stops_cleanly_and_carries_on(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        run(tmp_path, "admin", "instrument", "create", "BTC-USDT")
        (result,) = run(tmp_path, "orders", "place", "BTC-USDT", "buy", "0.5", "60000.10", "--id", "first", "--json")
        assert result["status"] == "OPEN"
        states = {component["state"] for component in run(tmp_path, "status", "--json")}
        assert states == {"UP"}
        assert (tmp_path / "operator.key").stat().st_mode & 0o777 == 0o600
    assert process.returncode == 0
    with up(tmp_path):
        (order,) = run(tmp_path, "orders", "list", "--json")
        assert (order["client_order_id"], order["price"]) == ("first", "60000.10")
        assert run(tmp_path, "book", "BTC-USDT", "--json")["bids"] == [["60000.10", "0.5000"]]
        error = run(tmp_path, "orders", "place", "BTC-USDT", "buy", "0.00001", "1", expect=1)
        assert error.startswith("error ")
        assert "Traceback" not in error
        run(tmp_path, "orders", "place", "BTC-USDT", "sideways", "1", expect=2)
