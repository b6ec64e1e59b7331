"""`exchange account …`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.output import console, show, show_line
from exchange.client import BalanceUpdate, EntryResult

app = typer.Typer(
    help="What the key's account has, how it came and went, and sending it to another account.\n\n"
    "For example:\n\n"
    "    exchange account balances\n\n"
    "    exchange account entries USDT --limit 20\n\n"
    "    exchange account transfer 3 USDT 12.50 --reference rent-2027-01\n\n"
    "    exchange account follow --json\n\n"
    "An operator's key may name any account with --account. Money comes in and goes out by `exchange admin deposit` "
    "and `exchange admin withdraw`.",
    no_args_is_help=True,
)

BALANCE = ("asset", "available", "held", "total", "markets")
CHANGE = ("time_ns", "reason", "asset", "change", "instrument", "trade_id", "reference", "counterparty_id")
ENTRY = ("time_ns", "type", "asset", "change", "available", "counterparty_id", "reference")
FEE = ("instrument", "maker_fee_ppm", "taker_fee_ppm")
Account = Annotated[int, typer.Option("--account", help="Which account (for operators); the key's if not given.")]


@app.command()
def balances(
    account: Account = 0, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Show what the account has of each asset, in the ledger and in all markets together.

    What is available may be traded with, withdrawn or transferred now, wherever it is; the rest is held by open orders,
    in the markets shown.
    """
    with connect(address, key, data) as client:
        found = client.balances(account)
        show(found, BALANCE, json)
    _warn_of(found.unavailable_shards)


@app.command()
def entries(
    asset: Annotated[str, typer.Argument(help='An asset, such as "USDT"; all if none is named.')] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    account: Account = 0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """List deposits, withdrawals and transfers, newest first: `exchange account entries USDT --limit 20`.

    What was added (negative if it was taken), what then lay in the ledger apart from the markets, and under which
    reference. What trades changed, `exchange orders executions` and `exchange account follow` show.
    """
    with connect(address, key, data) as client:
        show(client.ledger_entries(account, asset, limit=limit), ENTRY, json)


@app.command()
def fees(
    account: Account = 0, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Show what trading costs, in 1/1,000,000 of price times quantity; a negative fee is paid to the account."""
    with connect(address, key, data) as client:
        show(client.fees(account), FEE, json)


@app.command()
def transfer(
    to: Annotated[int, typer.Argument(help="Number of the account that gets it.")],
    asset: Annotated[str, typer.Argument(help='Such as "USDT".')],
    amount: Annotated[str, typer.Argument(help='Such as "12.50".')],
    reference: Annotated[
        str, typer.Option(help="Yours, unique among the account's transfers; made up if not given.")
    ] = "",
    account: Account = 0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Send money to another account: `exchange account transfer 3 USDT 12.50 --reference rent-2027-01`.

    It happens once for each reference: after an error that leaves it open, send it again with the same one.

    Needs a key with the TRANSFER permission (`exchange admin key create 2 -p READ -p TRANSFER`).
    """
    with connect(address, key, data) as client:
        result = client.transfer(to, asset, amount, reference=reference or None, from_account_id=account)
        show_result(result, json)


@app.command()
def follow(
    after: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on after this: ledger=SEQUENCE or SHARD=SEQUENCE, as --json shows them; repeat it for each."
        ),
    ] = None,
    account: Account = 0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show the balances, then a line for each change of them, until interrupted.

    A change is a deposit, withdrawal or transfer, or what a trade brought and cost, with its fee.

    With --json a line for each update: its changes, and the sequences for --after.
    """
    position = _read_position(after or ())
    with connect(address, key, data) as client, client.stream_balances(account, position) as updates:
        for update in updates:
            _show_update(update, json)


def show_result(result: EntryResult, as_json: bool) -> None:
    """Print what became of a deposit, a withdrawal or a transfer."""
    if as_json:
        show([result], (), as_json)
        return
    show([result.entry], ENTRY, as_json)
    if result.duplicate:
        console.print("duplicate: the reference was known, nothing was done this time", highlight=False)


def _show_update(update: BalanceUpdate, as_json: bool) -> None:
    if as_json:
        show_line(update, (), as_json)
        return
    for balance in update.balances:
        show_line(balance, BALANCE, as_json)
    _warn_of(update.unavailable_shards)
    for change in update.changes:
        show_line(change, CHANGE, as_json)


def _warn_of(unavailable_shards: Sequence[str]) -> None:
    """Say whose money is missing in what was shown; on stderr, so that JSON stays JSON."""
    if unavailable_shards:
        typer.echo(f"not counted, because away: what the account has in {', '.join(unavailable_shards)}", err=True)


def _read_position(texts: Sequence[str]) -> dict[str, int]:
    position = {}
    for text in texts:
        source, _, sequence = text.partition("=")
        if not source or not sequence.isdecimal():
            raise typer.BadParameter(f"--after: expected ledger=SEQUENCE or SHARD=SEQUENCE, was {text!r}")
        position[source] = int(sequence)
    return position
