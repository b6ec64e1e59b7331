"""`exchange up` as an operator meets it: it serves, SIGTERM stops it cleanly, a second start carries on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from exchange.cli.replay.formats.flow import HEADER
from exchange.runtime.nats_servers import NatsServers
from tests.runtime.certificates import make_certificates, tls_of_server

pytestmark = pytest.mark.cluster
README = Path(__file__).parents[2] / "README.md"
EXCHANGE = [sys.executable, "-c", "from exchange.cli import main; main()"]


@contextmanager
def up(data: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*EXCHANGE, "up", "--data", str(data), "--port", "0", "--shards", "1", *options]
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


def call(data: Path, arguments: tuple[str, ...], expect: int, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EXCHANGE, *arguments, "--data", str(data)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done


def run(data: Path, *arguments: str, expect: int = 0) -> Any:
    done = call(data, arguments, expect)
    return json.loads(done.stdout) if "--json" in arguments and not expect else done.stderr


def output(data: Path, *arguments: str, expect: int = 0) -> str:
    return call(data, arguments, expect).stdout


def test_the_way_of_a_newcomer_in_the_readme_works_as_printed(tmp_path: Path) -> None:
    (block,) = re.findall(r"```\n(\.venv/bin/exchange up &\n.*?)```", README.read_text(), re.DOTALL)
    environment: dict[str, str] = {}
    shown: list[str] = []
    with up(tmp_path):
        for line in block.splitlines()[1:]:
            secret = re.fullmatch(r"export (\w+)=\$\((.*)\)", line)
            words = shlex.split(secret[2] if secret else line)
            assert words[0] == ".venv/bin/exchange"
            done = call(tmp_path, tuple(words[1:]), 0, COLUMNS="200", **environment)
            if secret:
                environment[secret[1]] = done.stdout.strip()
            shown.append(done.stdout)
    assert "OPEN" in shown[-3]
    # The order holds its price, and the fee of a taker on top.
    for cell in ("69969.949950", "30030.050050", "100000.000000", "BTC-USDT"):
        assert cell in shown[-2]
    assert "60000.10" in shown[-1]


def test_an_exchange_serves_stops_cleanly_and_carries_on(tmp_path: Path) -> None:
    with up(tmp_path) as process:
        error = run(tmp_path, "admin", "instrument", "create", "BTC-USDT", expect=1)
        assert error.startswith("error ASSET_UNKNOWN: expected an asset that exists, was 'BTC'")
        assert "`exchange admin asset create` makes one" in error
        run(tmp_path, "admin", "asset", "create", "BTC", "--scale", "8")
        run(tmp_path, "admin", "asset", "create", "USDT", "--scale", "6")
        run(tmp_path, "admin", "instrument", "create", "BTC-USDT")
        (refused,) = json.loads(
            output(tmp_path, "orders", "place", "BTC-USDT", "buy", "0.5", "60000.10", "--json", expect=1)
        )
        assert refused["reject_reason"] == "INSUFFICIENT_FUNDS"
        run(tmp_path, "admin", "deposit", "1", "USDT", "50000", "--reference", "wire-1")
        (result,) = run(tmp_path, "orders", "place", "BTC-USDT", "buy", "0.5", "60000.10", "--id", "first", "--json")
        assert result["status"] == "OPEN"
        states = {component["state"] for component in run(tmp_path, "status", "--json")}
        assert states == {"UP"}
        assert (tmp_path / "operator.key").stat().st_mode & 0o777 == 0o600
    assert process.returncode == 0
    with up(tmp_path):
        # The operator's account is the house's too, which has 0 of all that was ever traded.
        (balance,) = [b for b in run(tmp_path, "account", "balances", "--json") if b["asset"] == "USDT"]
        assert (balance["available"], balance["held"]) == ("19999.950000", "30000.050000")
        assert balance["markets"] == {"BTC-USDT": "30000.050000"}
        (order,) = run(tmp_path, "orders", "list", "--json")
        assert (order["client_order_id"], order["price"]) == ("first", "60000.10")
        assert run(tmp_path, "book", "BTC-USDT", "--json")["bids"] == [["60000.10", "0.5000"]]
        error = run(tmp_path, "orders", "place", "BTC-USDT", "buy", "0.00001", "1", expect=1)
        assert error.startswith("error ")
        assert "Traceback" not in error
        run(tmp_path, "orders", "place", "BTC-USDT", "sideways", "1", expect=2)


def test_a_recording_ends_the_same_through_the_exchange_and_through_the_engine(tmp_path: Path) -> None:
    # Long enough that messages would wait if they were sent without waiting for answers: then cancels go first.
    random = Random(7)
    lines = [HEADER]
    for number in range(1, 8_001):
        order = random.randint(max(number - 40, 1), number)
        price, quantity = random.randint(990, 1_010), random.randint(1, 50)
        command = random.choices(("NEW", "CANCEL", "REPLACE", "MARKET"), (60, 30, 6, 4))[0]
        fields = {
            "NEW": f"{number},{random.choice('BS')},{price},{quantity},GTC",
            "CANCEL": f"{order},,,,",
            "REPLACE": f"{order},,{price},{quantity},",
            "MARKET": f"{number},{random.choice('BS')},,{quantity},",
        }[command]
        lines.append(f"{number},{command},{fields}")
    recording = tmp_path / "flow.csv"
    recording.write_text("\n".join(lines) + "\n")
    data = tmp_path / "exchange"
    with up(data):
        address = (data / "address").read_text().strip()
        run(data, "replay", str(recording), "--engine", "--out", str(tmp_path / "engine"), "--json")
        run(data, "replay", str(recording), "--exchange", address, "--out", str(tmp_path / "exchange"), "--json")
    for part in ("trades", "results", "book", "orders"):
        expected = (tmp_path / f"engine.{part}.csv").read_text()
        assert expected.count("\n") > 5, part
        assert (tmp_path / f"exchange.{part}.csv").read_text() == expected, part


@pytest.mark.slow
def test_journals_on_servers_with_tls_are_reached_from_the_command_line(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    data = tmp_path / "exchange"
    with NatsServers.start(tmp_path / "nats", servers=1, configuration=tls_of_server(files)) as servers:
        options = ["--journal", "nats", "--no-standbys", "--nats-monitoring", servers.monitoring_urls[0]]
        options += ["--nats", servers.urls[0].replace("nats:", "tls:"), "--nats-ca", str(files / "ca.pem")]
        options += ["--nats-certificate", str(files / "node.pem"), "--nats-key", str(files / "node.key")]
        with up(data, *options):
            run(data, "admin", "asset", "create", "BTC", "--scale", "8")
            (asset,) = run(data, "admin", "asset", "list", "--json")
    assert (asset["symbol"], asset["scale"]) == ("BTC", 8)
