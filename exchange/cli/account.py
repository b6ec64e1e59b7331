"""`exchange account …`."""

from __future__ import annotations

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

BALANCE = ("asset", "available")
ENTRY = ("time_ns", "type", "asset", "change", "available", "counterparty_id", "reference")
FEE = ("instrument", "maker_fee_ppm", "taker_fee_ppm")
Account = Annotated[int, typer.Option("--account", help="Which account (for operators); the key's if not given.")]


@app.command()
def balances(
    account: Account = 0, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Show what the account has of each asset."""
    with connect(address, key, data) as client:
        show(client.balances(account), BALANCE, json)


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
    """List every change of the account's balances, newest first: `exchange account entries USDT --limit 20`.

    What was added (negative if it was taken), what was available afterwards, and under which reference.
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
        int | None, typer.Option(help="Go on after this sequence of the ledger, as --json shows it.")
    ] = None,
    account: Account = 0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show the balances, then a line for each change of them, until interrupted.

    With --json a line for each update: balances that changed, the entries that did it, and a sequence for --after.
    """
    with connect(address, key, data) as client, client.stream_balances(account, after) as updates:
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
    if not update.entries:
        for balance in update.balances:
            show_line(balance, BALANCE, as_json)
    for entry in update.entries:
        show_line(entry, ENTRY, as_json)
