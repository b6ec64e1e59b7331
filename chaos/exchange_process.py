"""An exchange of its own for an experiment: `exchange up` as a process, in a directory that is gone afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exchange.client import Client, Permission

ASSET_SCALE = 8
RICH = "1000000000"
STOP_TIMEOUT_S = 60.0


class ExchangeNotStarted(RuntimeError):
    """`exchange up` ended before it served; the message has what it printed last."""

    code = "EXCHANGE_NOT_STARTED"


@dataclass(frozen=True, slots=True)
class RunningExchange:
    addresses: tuple[str, ...]
    operator_key: str


@contextmanager
def running_exchange(settings: str, options: Sequence[str] = ()) -> Iterator[RunningExchange]:
    """Start an exchange with these settings (TOML) and options of `exchange up`; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="evenkeel-chaos-") as directory:
        data = Path(directory) / "data"
        settings_path = Path(directory) / "settings.toml"
        settings_path.write_text(settings)
        command = [str(Path(sys.executable).with_name("exchange")), "up", "--data", str(data), "--port", "0"]
        with (Path(directory) / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "--settings", str(settings_path), *options], stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                addresses = _addresses(process, Path(directory) / "log")
                yield RunningExchange(addresses, (data / "operator.key").read_text().strip())
            finally:
                process.terminate()
                process.communicate(timeout=STOP_TIMEOUT_S)


def _addresses(process: subprocess.Popen[str], log: Path) -> tuple[str, ...]:
    """Read what it prints until it serves."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("operator's key"):
            return tuple(re.findall(r"^gateway-\d+ serves on (\S+)$", printed, re.MULTILINE))
    raise ExchangeNotStarted(f"expected an exchange that serves, found: {(printed + log.read_text())[-2000:]}")


def open_market(operator: Client, symbol: str, accounts: int) -> list[str]:
    """Create an instrument, and accounts that can trade on it as much as they like; return their keys."""
    for asset in symbol.split("-"):
        operator.create_asset(asset, ASSET_SCALE)
    operator.create_instrument(symbol, tick_size="0.01", lot_size="0.0001", max_open_orders=1_000_000)
    keys = []
    for number in range(accounts):
        account_id = operator.create_account(f"trader-{number}").account_id
        for asset in symbol.split("-"):
            operator.deposit(account_id, asset, RICH, reference=f"{account_id}-{asset}")
        keys.append(operator.create_api_key(account_id, [Permission.READ, Permission.TRADE]).secret)
    return keys
