"""`exchange orders …`."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, TypeVar

import typer

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.output import show, show_line
from exchange.client import OrderType, SelfTradePrevention, Side, TimeInForce

app = typer.Typer(
    help="List, place, amend and cancel the orders of the key's account.\n\n"
    "For example:\n\n"
    "    exchange orders place BTC-USDT buy 0.5 60000.10 --id first\n\n"
    "    exchange orders amend BTC-USDT first --quantity 0.4\n\n"
    "    exchange orders cancel BTC-USDT first\n\n"
    "    exchange orders list --all --json\n\n"
    "The exit code is 1 for what was rejected; the table says why.",
    no_args_is_help=True,
)

E = TypeVar("E", bound=IntEnum)
RESULT = (
    "outcome",
    "client_order_id",
    "order_id",
    "status",
    "filled_quantity",
    "open_quantity",
    "reject_reason",
    "close_reason",
    "duplicate",
)
EXECUTION = (
    "time_ns",
    "type",
    "instrument",
    "client_order_id",
    "side",
    "status",
    "trade_price",
    "trade_quantity",
    "fee",
    "fee_asset",
    "liquidity",
    "open_quantity",
)
Instrument = Annotated[str, typer.Argument(help='An instrument, such as "BTC-USDT".')]
ClientOrderId = Annotated[str, typer.Option("--id", help="Client order id; made up if not given.")]


@app.command("list")
def list_orders(
    instrument: Annotated[str, typer.Argument(help="An instrument; all if none is named.")] = "",
    closed: Annotated[
        bool, typer.Option("--all", "--closed", help="Also those that were closed within the last minutes.")
    ] = False,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """List open orders, with --all the closed ones too."""
    columns = (
        "client_order_id",
        "instrument",
        "side",
        "price",
        "quantity",
        "filled_quantity",
        "status",
        "create_time_ns",
    )
    with connect(address, key, data) as client:
        show(client.list_orders(instrument, include_closed=closed, limit=limit), columns, json)


@app.command()
def executions(
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show what becomes of the account's orders from now on, trades with their fee, until interrupted."""
    with connect(address, key, data) as client, client.stream_executions() as stream:
        for execution in stream:
            show_line(execution, EXECUTION, json)


@app.command()
def place(
    instrument: Instrument,
    side: Annotated[str, typer.Argument(help="buy or sell")],
    quantity: Annotated[str, typer.Argument(help="How much of the base asset.")],
    price: Annotated[str, typer.Argument(help="Limit price; a market order has none.")] = "",
    tif: Annotated[str, typer.Option(help="GTC, IOC or FOK.")] = "",
    post_only: Annotated[bool, typer.Option("--post-only", help="Refuse it if it would trade at once.")] = False,
    stp: Annotated[str, typer.Option(help="CANCEL_MAKER, CANCEL_TAKER or CANCEL_BOTH.")] = "",
    client_order_id: ClientOrderId = "",
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Place an order, a limit order if it has a price, else a market order.

    `exchange orders place BTC-USDT buy 0.5 60000.10` or `exchange orders place BTC-USDT sell 0.5`.
    """
    if side.upper() not in ("BUY", "SELL"):
        raise typer.BadParameter(f"side: expected buy or sell, was {side!r}")
    with connect(address, key, data) as client:
        result = client.place_order(
            instrument,
            Side[side.upper()],
            quantity,
            price or None,
            order_type=OrderType.LIMIT if price else OrderType.MARKET,
            time_in_force=_named(TimeInForce, tif),
            post_only=post_only,
            self_trade_prevention=_named(SelfTradePrevention, stp),
            client_order_id=client_order_id or None,
        )
        show([result], RESULT, json)
        raise typer.Exit(int(result.rejected))


@app.command()
def amend(
    instrument: Instrument,
    client_order_id: str,
    price: Annotated[str, typer.Option(help="New price.")] = "",
    quantity: Annotated[str, typer.Option(help="New total size, filled part included.")] = "",
    cancel_on_fail: Annotated[
        bool, typer.Option("--cancel-on-fail", help="Cancel it if it cannot be amended.")
    ] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Amend an open order: `exchange orders amend BTC-USDT first --price 60000.20`.

    A smaller size alone keeps its place in the queue, anything else loses it.
    """
    with connect(address, key, data) as client:
        result = client.amend_order(
            instrument,
            client_order_id=client_order_id,
            price=price or None,
            quantity=quantity or None,
            cancel_on_fail=cancel_on_fail,
        )
        show([result], RESULT, json)
        raise typer.Exit(int(result.rejected))


@app.command()
def cancel(
    instrument: Instrument,
    client_order_id: str,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Cancel an open order."""
    with connect(address, key, data) as client:
        result = client.cancel_order(instrument, client_order_id=client_order_id)
        show([result], RESULT, json)
        raise typer.Exit(int(result.rejected))


@app.command()
def cancel_all(
    instrument: Annotated[str, typer.Argument(help="An instrument; everywhere if none is named.")] = "",
    side: Annotated[str, typer.Option(help="buy or sell; both if not given.")] = "",
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Cancel all open orders of the account."""
    with connect(address, key, data) as client:
        result = client.cancel_all_orders(instrument, _named(Side, side))
        show([result], ("cancelled_orders", "unavailable_shards"), json)


def _named(enum: type[E], name: str) -> E:
    """Return the member of that name, UNSPECIFIED for none; a usage error for any other."""
    try:
        return enum[name.upper() or "UNSPECIFIED"]
    except KeyError:
        names = ", ".join(member.name for member in enum if member.value)
        raise typer.BadParameter(f"expected one of {names}, was {name!r}") from None
