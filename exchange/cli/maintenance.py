"""`exchange maintenance …`: restarts one part after the other, and empties nodes, while trading goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from json import dumps
from typing import Annotated

import typer

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.errors import CommandFailed
from exchange.cli.output import console, plain, show
from exchange.client import (
    Client,
    EvenkeelError,
    Maintenance,
    MaintenanceKind,
    MaintenanceState,
    MaintenanceStep,
)

app = typer.Typer(
    help="Planned restarts and repairs, while trading goes on (needs an operator's key).\n\n"
    "    exchange maintenance restart --all\n\n"
    "    exchange maintenance restart --shard shard-0\n\n"
    "    exchange maintenance drain --node node-1\n\n"
    "    exchange maintenance undrain --node node-1\n\n"
    "    exchange maintenance unpark gateway-0\n\n"
    "What is not safe now is refused with the reason; --force does it all the same.",
    no_args_is_help=True,
)
POLL_INTERVAL_S = 0.2
AWAY_S_MAX = 60.0
"""How long nobody may answer: a gateway and a supervisor that restart are away for seconds."""
_STEP = ("component", "action", "state", "seconds", "detail")
_ENDED = (MaintenanceState.DONE, MaintenanceState.FAILED, MaintenanceState.UNFINISHED)

NodeName = Annotated[str, typer.Option("--node", help="A node, as `exchange status` names it.")]
Force = Annotated[bool, typer.Option("--force", help="Also if that is not safe now.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for the end: `exchange maintenance show` has it.")]


@app.command()
def restart(
    node: NodeName = "",
    shard: Annotated[str, typer.Option("--shard", help="A shard, or `ledger`.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything, the supervisors too.")] = False,
    force: Force = False,
    detach: Detach = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Replace processes by new ones, one at a time: each is healthy before the next one's turn.

    A standby is restarted first and then takes over from its primary, which loses no order. Gateways finish what they
    took and send their clients to the others.
    """
    if sum(map(bool, (node, shard, everything))) != 1:
        raise typer.BadParameter("expected one of --node, --shard and --all")
    _run(MaintenanceKind.RESTART, node, shard, force, detach, address, key, data, json)


@app.command()
def drain(
    node: NodeName,
    force: Force = False,
    detach: Detach = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Move everything off a node for its repair, and start nothing there until `exchange maintenance undrain`."""
    _run(MaintenanceKind.DRAIN, node, "", force, detach, address, key, data, json)


@app.command()
def undrain(
    node: NodeName, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Let things be started on a node again. Its gateway comes back at once."""
    _run(MaintenanceKind.UNDRAIN, node, "", False, False, address, key, data, json)


@app.command()
def unpark(
    component: Annotated[str, typer.Argument(help="As `exchange status` names it.")],
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
) -> None:
    """Start a component again that was parked, because it was lost again and again."""
    with connect(address, key, data) as client:
        client.unpark(component)
    console.print(f"{component}: to be started again")


@app.command("show")
def show_newest(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Show how far maintenance is, or how the last one ended, and which nodes are drained."""
    with connect(address, key, data) as client:
        status = client.maintenance()
    if json:
        print(dumps(plain(status), indent=2))
        return
    if status.newest is None:
        console.print("no maintenance yet", highlight=False)
    else:
        _show(status.newest)
    if status.drained_nodes:
        console.print(f"drained: {' '.join(status.drained_nodes)}", highlight=False)


def _run(
    kind: MaintenanceKind,
    node: str,
    shard: str,
    force: bool,
    detach: bool,
    address: str,
    key: str,
    data: Data,
    json: bool,
) -> None:
    with connect(address, key, data) as client:
        # Asked ahead: the gateway that we talk to may itself be restarted.
        addresses = _addresses(client)
        begun = client.start_maintenance(kind, node=node, shard=shard, force=force)
    if detach:
        _print_end(begun, json)
        return
    with connect(",".join(addresses) or address, key, data) as client:
        ended = follow(client, begun, lambda step: None if json else _say(step))
    _print_end(ended, json)
    if ended.state != MaintenanceState.DONE:
        raise CommandFailed(f"MAINTENANCE_{ended.state.name}", ended.detail)


def _addresses(client: Client) -> list[str]:
    components = client.status().components
    gateways = [c.address for c in components if c.address]
    # The one that works for us comes first.
    return sorted(gateways, key=lambda listed: listed != client.address)


def follow(client: Client, begun: Maintenance, say: Callable[[MaintenanceStep], None]) -> Maintenance:
    """Tell each step as it ends, and return when all have."""
    told = 0
    newest = begun
    heard_s = time.monotonic()
    while True:
        for step in newest.steps[told:]:
            if step.state not in _ENDED:
                break
            say(step)
            told += 1
        if newest.state in _ENDED:
            return newest
        time.sleep(POLL_INTERVAL_S)
        try:
            found = client.maintenance().newest
        except EvenkeelError:
            if time.monotonic() - heard_s > AWAY_S_MAX:
                raise
            continue
        heard_s = time.monotonic()
        if found is None or found.begin_time_ns != begun.begin_time_ns:
            raise CommandFailed("MAINTENANCE_REPLACED", "another one was begun: `exchange maintenance show` has it")
        newest = found


def _say(step: MaintenanceStep) -> None:
    line = f"{step.component}: {_action(step)} {step.state.name} in {_seconds(step)} s {step.detail}"
    console.print(line.strip(), highlight=False, markup=False)


def _print_end(maintenance: Maintenance, json: bool) -> None:
    if json:
        print(dumps(plain(maintenance), indent=2))
    else:
        _show(maintenance)


def _show(maintenance: Maintenance) -> None:
    what = maintenance.node or maintenance.shard or "all"
    title = f"{maintenance.kind.name.lower()} {what}: {maintenance.state.name} {maintenance.detail}".strip()
    if not maintenance.steps:
        console.print(title, highlight=False, markup=False)
        return
    show([_Row(step) for step in maintenance.steps], _STEP, False, title)


class _Row:
    """A step as the table shows it."""

    def __init__(self, step: MaintenanceStep) -> None:
        self.component = step.component
        self.action = _action(step)
        self.state = step.state
        self.seconds = _seconds(step)
        self.detail = step.detail


def _action(step: MaintenanceStep) -> str:
    return step.action.name.lower().replace("_", " ")


def _seconds(step: MaintenanceStep) -> str:
    return f"{(step.end_time_ns - step.begin_time_ns) / 1e9:.1f}" if step.end_time_ns else ""
