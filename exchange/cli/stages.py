"""`exchange halt`, `exchange resume` and `exchange stage …`: what markets let through, by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import dumps
from typing import Annotated

import typer

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.output import show
from exchange.client import Component, Stage

app = typer.Typer(
    help="In which stage shards are, and to hold them there (needs an operator's key).\n\n"
    "    exchange stage show\n\n"
    '    exchange stage hold POST_ONLY --shard shard-0 --reason "maker incident"\n\n'
    '    exchange resume --shard shard-0 --reason "solved"\n\n'
    "What is held stays held through restarts, until `exchange resume`.",
    no_args_is_help=True,
)
_HELD_AT = (Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.HALTED)
_COLUMNS = ("name", "stage", "since_time_ns", "next_stage_time_ns", "orders_per_s", "reason")

Instrument = Annotated[str, typer.Option("--instrument", "-i", help='One instrument alone, such as "BTC-USDT".')]
Shard = Annotated[str, typer.Option("--shard", help="One shard with all its instruments.")]
Everywhere = Annotated[bool, typer.Option("--all", help="Every shard.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept in the journal, and told to those who trade.")]


def halt(
    reason: Reason,
    instrument: Instrument = "",
    shard: Shard = "",
    everywhere: Everywhere = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Stop everything in an instrument, a shard or everywhere, cancels too, until `exchange resume`.

    `exchange halt -i BTC-USDT --reason "wrong tick size"`. To stop trading and let people cancel:
    `exchange stage hold CANCEL_ONLY`.
    """
    _check_target(instrument, shard, everywhere)
    with connect(address, key, data) as client:
        names = client.hold_stage(Stage.HALTED, instrument=instrument, shard=shard, reason=reason)
    _say("HALTED", names, json)


def resume(
    reason: Reason,
    instrument: Instrument = "",
    shard: Shard = "",
    everywhere: Everywhere = False,
    at_once: Annotated[bool, typer.Option("--at-once", help="Open now, not stage by stage.")] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """End a halt or a hold: a shard opens stage by stage, an instrument is as its shard is again."""
    _check_target(instrument, shard, everywhere)
    with connect(address, key, data) as client:
        names = client.resume(instrument=instrument, shard=shard, reason=reason, at_once=at_once)
    _say("RESUMED", names, json)


@app.command("show")
def show_stages(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Show the stage of each shard, why it is in it, and when the next one is expected."""
    with connect(address, key, data) as client:
        show(_rows(client.status().components), _COLUMNS, json)


@app.command()
def hold(
    name: Annotated[str, typer.Argument(help="CANCEL_ONLY, POST_ONLY, LIMITED or HALTED.")],
    reason: Reason,
    instrument: Instrument = "",
    shard: Shard = "",
    everywhere: Everywhere = False,
    orders_per_s: Annotated[int, typer.Option(help="With LIMITED: new orders per second.")] = 0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Hold an instrument, a shard or everything at a stage, through restarts too, until `exchange resume`."""
    wanted = next((stage for stage in _HELD_AT if stage.name == name.upper()), None)
    if wanted is None:
        raise typer.BadParameter(f"expected one of {', '.join(stage.name for stage in _HELD_AT)}, was {name!r}")
    _check_target(instrument, shard, everywhere)
    with connect(address, key, data) as client:
        names = client.hold_stage(wanted, instrument=instrument, shard=shard, orders_per_s=orders_per_s, reason=reason)
    _say(wanted.name, names, json)


@app.command()
def skip(
    reason: Reason,
    shard: Shard = "",
    everywhere: Everywhere = False,
    at_once: Annotated[bool, typer.Option("--at-once", help="Open now, not only the next stage.")] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Have a shard that reopens go to its next stage now, whatever is measured."""
    _check_target("", shard, everywhere)
    with connect(address, key, data) as client:
        names = client.skip_stage(shard=shard, reason=reason, at_once=at_once)
    _say("SKIPPED", names, json)


def _check_target(instrument: str, shard: str, everywhere: bool) -> None:
    if sum(map(bool, (instrument, shard, everywhere))) != 1:
        raise typer.BadParameter("expected one of --instrument, --shard and --all")


def _say(what: str, names: Sequence[str], json: bool) -> None:
    print(dumps({"stage": what, "names": list(names)}) if json else f"{what}: {' '.join(names)}")


@dataclass(frozen=True, slots=True)
class _Row:
    """The stage of a shard, or of an instrument that is held by itself."""

    name: str
    stage: Stage
    since_time_ns: int
    next_stage_time_ns: int
    orders_per_s: int
    reason: str


def _rows(components: Iterable[Component]) -> list[_Row]:
    rows = []
    for c in components:
        if c.stage != Stage.UNSPECIFIED:
            times = c.stage_time_ns, c.next_stage_time_ns
            rows.append(_Row(c.name, c.stage, *times, c.stage_orders_per_s, c.stage_reason))
        rows += [_Row(h.instrument, h.stage, h.time_ns, 0, h.orders_per_s, h.reason) for h in c.instrument_stages]
    return rows
