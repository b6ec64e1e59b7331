"""`exchange config …`: the settings that change while the exchange runs, and their versions."""

from __future__ import annotations

import time
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.errors import CommandFailed
from exchange.cli.output import console, plain, show
from exchange.client import Client, EvenkeelError, RolloutState, SettingsVersion

app = typer.Typer(
    help="Settings that change while the exchange runs (needs an operator's key).\n\n"
    "    exchange config show --toml > settings.toml\n\n"
    "    exchange config diff settings.toml\n\n"
    "    exchange config apply settings.toml --reason 'calmer queues' --wait\n\n"
    "    exchange config revert --reason 'worse than before'\n\n"
    "New settings reach one process, then half of those that they concern, then all. Each step is watched, and all is "
    "taken back by itself if delays or refusals grow, or a process is lost.",
    no_args_is_help=True,
)
POLL_INTERVAL_S = 0.2
AWAY_S_MAX = 60.0
"""How long nobody may answer: a gateway and a supervisor that restart are away for seconds."""
_HISTORY = ("version", "begin_time_ns", "state", "by", "reason", "changes", "detail")

File = Annotated[Path, typer.Argument(help="Settings as TOML; what it does not name gets its default.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the history.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it has ended; with 1 if it was taken back.")]
Force = Annotated[bool, typer.Option("--force", help="Everywhere at once and unwatched: for an outage that they end.")]


@app.command("show")
def show_settings(
    toml: Annotated[bool, typer.Option("--toml", help="Only the settings that hold, as `apply` takes them.")] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show the settings that hold, who has them, and how far a rollout is."""
    with connect(address, key, data) as client:
        status = client.settings()
        if json:
            print(dumps(plain(status), indent=2))
            return
        print(status.applied.toml.strip())
        if toml:
            return
        parts = [c for c in client.status().components if c.settings_version]
    console.print()
    console.print(f"version {status.applied.version} holds", highlight=False)
    if status.newest.version != status.applied.version:
        _say(status.newest)
    for version in sorted({c.settings_version for c in parts}):
        names = ", ".join(c.name for c in parts if c.settings_version == version)
        console.print(f"version {version}: {names}", highlight=False)


@app.command()
def diff(file: File, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Show what a file would change, and who would have it in which step; nothing is done."""
    with connect(address, key, data) as client:
        checked = client.check_settings(read(file))
    if json:
        print(dumps(plain(checked), indent=2))
    elif not checked.changes:
        console.print("no change", highlight=False)
    else:
        show(checked.changes, ("name", "before", "after"), False)
        for number, step in enumerate(checked.steps, 1):
            console.print(f"step {number}: {', '.join(step)}", highlight=False)


@app.command()
def apply(
    file: File,
    reason: Reason,
    wait: Wait = False,
    force: Force = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Roll out settings, step by step. What is wrong is refused with the range and the reason."""
    toml = read(file)
    with connect(address, key, data) as client:
        begun = client.apply_settings(toml, reason=reason, force=force)
        _end(_follow(client, begun, json) if wait else begun, json)


@app.command()
def history(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """List the versions, oldest first: who asked for what, when and why, and what became of it."""
    with connect(address, key, data) as client:
        versions = client.settings_history()
    if json:
        print(dumps(plain(versions), indent=2))
    else:
        show([_Row(version) for version in versions], _HISTORY, False)


@app.command()
def revert(
    reason: Reason,
    version: Annotated[
        int,
        typer.Argument(
            help="Which comes again; without: what is being rolled out is taken back, else what held before comes."
        ),
    ] = 0,
    wait: Wait = False,
    force: Force = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Take back what is being rolled out, or roll out an earlier version."""
    with connect(address, key, data) as client:
        begun = client.revert_settings(version, reason=reason, force=force)
        if begun.state == RolloutState.REVERTED:
            # As asked.
            _print(begun, json)
            return
        _end(_follow(client, begun, json) if wait else begun, json)


def read(file: Path) -> str:
    """Return the text of a file with settings. Raises `CommandFailed`."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed("FILE_UNREADABLE", f"expected settings as TOML in {file}, found {error}") from error


def _follow(client: Client, begun: SettingsVersion, quiet: bool) -> SettingsVersion:
    """Tell each step as it begins, and return when all has ended."""
    newest, told = begun, 0
    heard_s = time.monotonic()
    while True:
        if newest.steps_begun > told and not quiet:
            told = newest.steps_begun
            names = ", ".join(newest.steps[told - 1])
            console.print(f"version {newest.version}: step {told}/{len(newest.steps)}: {names}", highlight=False)
        if newest.state != RolloutState.ROLLING:
            return newest
        time.sleep(POLL_INTERVAL_S)
        try:
            newest = next(v for v in client.settings_history() if v.version == begun.version)
        except EvenkeelError:
            if time.monotonic() - heard_s > AWAY_S_MAX:
                raise
            continue
        heard_s = time.monotonic()


def _end(version: SettingsVersion, json: bool) -> None:
    _print(version, json)
    if version.state == RolloutState.REVERTED:
        raise CommandFailed("SETTINGS_REVERTED", version.detail)


def _print(version: SettingsVersion, json: bool) -> None:
    if json:
        print(dumps(plain(version), indent=2))
    else:
        _say(version)


def _say(version: SettingsVersion) -> None:
    steps = f", step {version.steps_begun}/{len(version.steps)}" if version.state == RolloutState.ROLLING else ""
    detail = f": {version.detail}" if version.detail else ""
    console.print(f"version {version.version} {version.state.name}{steps}{detail}", highlight=False, markup=False)


class _Row:
    """A version as the table shows it."""

    def __init__(self, version: SettingsVersion) -> None:
        self.version = version.version
        self.begin_time_ns = version.begin_time_ns
        self.state = version.state
        self.by = version.key_id
        self.reason = version.reason
        self.changes = ", ".join(f"{c.name} {c.before} → {c.after}" for c in version.changes)
        self.detail = version.detail
