"""Which exchange a command talks to, and with which key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exchange.client import Client

ADDRESS_DEFAULT = "127.0.0.1:7700"

Address = Annotated[
    str, typer.Option("--address", "-a", envvar="EVENKEEL_ADDRESS", help="host:port of a gateway; several with commas.")
]
Key = Annotated[str, typer.Option("--key", "-k", envvar="EVENKEEL_API_KEY", help="API key.", show_default=False)]
Data = Annotated[
    Path,
    typer.Option(
        "--data", "-d", envvar="EVENKEEL_DATA", help="Data directory: where its operator's key is looked for."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DATA_DEFAULT = Path("evenkeel-data")


def find_address(address: str, data: Path) -> list[str]:
    """Return the addresses that were given, else that of the exchange that runs on the data directory."""
    file = data / "address"
    if not address and file.exists():
        address = file.read_text().strip()
    return [part.strip() for part in (address or ADDRESS_DEFAULT).split(",")]


def find_key(key: str, data: Path) -> str | None:
    """Return the key that was given, else the operator's from the data directory, if it can be read."""
    file = data / "operator.key"
    if not key and file.exists():
        key = file.read_text().strip()
    return key or None


def connect(address: str, key: str, data: Path) -> Client:
    """Return a client for the command's options."""
    return Client(find_address(address, data), find_key(key, data), timeout=5.0)
