"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli import admin, orders
from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.output import console, show

app = typer.Typer(
    help="Evenkeel: an exchange that stays up through its own restarts.\n\n"
    "Start one with `exchange up`, then, in another terminal, `exchange status`, "
    "`exchange admin instrument create …`, `exchange orders place …`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(orders.app, name="orders")
app.add_typer(admin.app, name="admin")

Symbol = Annotated[str, typer.Argument(help='An instrument, such as "BTC-USDT".')]


@app.command()
def up(
    data: Data = DATA_DEFAULT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the first gateway; 0 takes a free one.")] = 7700,
    shards: Annotated[int, typer.Option(help="Shards; instruments are spread over them.")] = 2,
    gateways: Annotated[int, typer.Option(help="Gateways; each listens on a port of its own.")] = 1,
) -> None:
    """Start an exchange on this machine and serve until SIGTERM or Ctrl-C.

    What it holds is in the data directory; starting again there carries on. The operator's key is in
    DATA/operator.key.
    """
    from exchange.cli.up import serve
    from exchange.config import ExchangeConfig

    serve(ExchangeConfig(data_dir=data, host=host, port=port, shards=shards, gateways=gateways))


@app.command()
def demo(
    seconds: Annotated[int, typer.Option(help="How long to trade.")] = 15,
) -> None:
    """Start an exchange, trade on it, kill -9 its shard in the middle, and check that nothing was lost."""
    from exchange.cli.demo import run

    raise typer.Exit(run(seconds))


@app.command()
def status(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Show what runs where, in which state (needs an operator's key)."""
    with connect(address, key, data) as client:
        columns = ("name", "state", "stage", "pid", "epoch", "sequence", "open_orders", "restarts", "address", "detail")
        show(client.status().components, columns, json)


@app.command()
def instruments(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """List what is traded."""
    with connect(address, key, data) as client:
        columns = ("symbol", "tick_size", "lot_size", "min_quantity", "band_bps", "maker_fee_ppm", "taker_fee_ppm")
        show(client.instruments(), (*columns, "shard", "stage"), json)


@app.command()
def book(
    symbol: Symbol,
    depth: Annotated[int, typer.Option(help="Levels a side; 0: all.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing it as it changes.")] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show an order book: `exchange book BTC-USDT --depth 5`."""
    with connect(address, key, data) as client:
        if not follow:
            _show_book(client.order_book(symbol, depth), depth, json)
            return
        for state in client.stream_order_book(symbol, 50):
            if not json:
                console.clear()
            _show_book(state, depth, json)


def _show_book(state: Any, depth: int, as_json: bool) -> None:
    import json

    from rich.table import Table

    count = depth or None
    bids, asks = list(state.bids)[:count], list(state.asks)[:count]
    if as_json:
        sides = {"bids": bids, "asks": asks}
        levels = {side: [[format(x.price, "f"), format(x.quantity, "f")] for x in rows] for side, rows in sides.items()}
        print(json.dumps({"instrument": state.instrument.symbol, "sequence": state.sequence, **levels}))
        return
    table = Table("bid quantity", "bid", "ask", "ask quantity", title=f"{state.instrument.symbol} at {state.sequence}")
    for index in range(max(len(bids), len(asks))):
        bid = (format(bids[index].quantity, "f"), format(bids[index].price, "f")) if index < len(bids) else ("", "")
        ask = (format(asks[index].price, "f"), format(asks[index].quantity, "f")) if index < len(asks) else ("", "")
        table.add_row(*bid, *ask)
    console.print(table)


@app.command()
def trades(
    symbol: Symbol,
    limit: Annotated[int, typer.Option(help="The newest so many, at most 1,000.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show the last trades of an instrument."""
    columns = ("trade_id", "time_ns", "taker_side", "price", "quantity")
    with connect(address, key, data) as client:
        show(client.trades(symbol, limit), columns, json)
        if follow:
            for trade in client.stream_trades(symbol):
                show([trade], columns, json)


@app.command()
def replay(
    file: Annotated[
        Path, typer.Argument(help="A recording: flow CSV, Bitstamp log, or LOBSTER messages; .gz and .xz too.")
    ],
    engine: Annotated[bool, typer.Option("--engine", help="Straight through the shard machine.")] = False,
    exchange: Annotated[str, typer.Option("--exchange", help="Through gRPC on the exchange at HOST:PORT.")] = "",
    format: Annotated[str, typer.Option(help="flow, bitstamp or lobster; guessed if not given.")] = "",
    out: Annotated[str, typer.Option(help="Write PREFIX.{trades,results,book,orders}.csv.")] = "",
    speed: Annotated[
        float, typer.Option(help="Pace by the recorded times, so many times as fast; 0: no pacing.")
    ] = 0.0,
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Enter recorded order flow, and compare the trades with the recorded ones.

    `exchange replay flow.csv.gz --engine --out /tmp/flow` or `exchange replay day.log.xz --exchange 127.0.0.1:7700`.
    """
    from exchange.cli.replay import run

    run(
        file,
        engine=engine,
        address=exchange,
        format_name=format,
        out=out,
        speed=speed,
        key=key,
        data=data,
        as_json=json,
    )


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all if none is named.")] = None,
    json: Json = False,
) -> None:
    """Measure engine, session, unary, journal, replay, depth and memory, each beside its reference in the same run."""
    from exchange.cli.bench import run

    run(names or [], as_json=json)
