"""`evenkeel-status …`: prepare what the service needs, and run it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import typer

from exchange.client import Client, EvenkeelError
from status.history.export import export_history
from status.operators import HASHES_FILE, remember
from status.prepare import prepare as prepare_exchange
from status.service import HISTORY_FILE
from status.service import serve as serve_status
from status.settings import SettingsInvalid, read_settings

app = typer.Typer(
    help="The status service of Evenkeel: a page, an API and announcements that say what works.\n\n"
    "    evenkeel-status prepare --operator-key evenkeel-data/operator.key\n\n"
    "    evenkeel-status serve\n\n"
    "Operators tell it of maintenance, and add words to incidents, with `exchange status …`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", "-s", envvar="EVENKEEL_STATUS_SETTINGS", help="TOML; without: the defaults."),
]


@app.command()
def prepare(
    operator_key: Annotated[Path, typer.Option("--operator-key", help="File with an operator's key.")],
    settings: SettingsFile = None,
    amount: Annotated[str, typer.Option(help="Deposited of each asset that markets are quoted in.")] = "1000",
) -> None:
    """Create the account, the money and the key that the service looks at the exchange with.

    Again after markets were created that are quoted in another asset.
    """
    read = read_settings(settings)
    key = operator_key.read_text("utf-8").strip()
    with Client(read.exchange.addresses, key, timeout=10.0) as operator:
        prepare_exchange(operator, read.key_path(read.exchange.probe_key_file), amount, typer.echo)
    remember(read.data_path / HASHES_FILE, key)


@app.command()
def serve(settings: SettingsFile = None) -> None:
    """Watch the exchange and tell the public, until SIGTERM or Ctrl-C."""
    _log_to_stderr()
    asyncio.run(serve_status(read_settings(settings)))


@app.command()
def check(settings: SettingsFile = None) -> None:
    """Read the settings, and print all of them."""
    typer.echo(msgspec.toml.encode(read_settings(settings)).decode())


@app.command()
def export(settings: SettingsFile = None) -> None:
    """Print the history as JSON: components, incidents, maintenance, days, delays, blips, events."""
    read = read_settings(settings)
    typer.echo(msgspec.json.encode(export_history(read.data_path / HISTORY_FILE)).decode())


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or 1 with one line on stderr, 2 for wrong usage."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="evenkeel-status")
    except (SettingsInvalid, EvenkeelError, OSError, RuntimeError) as error:
        code = getattr(error, "code", None) or getattr(error, "reason_name", "") or type(error).__name__
        typer.echo(f"error {getattr(code, 'name', code)}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
