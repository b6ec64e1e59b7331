"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exchange import __version__
from exchange.cli import account, admin, config, maintenance, nats_options, orders, stages, status
from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect, find_address
from exchange.cli.output import show, show_line
from exchange.client import Client

app = typer.Typer(
    help="Evenkeel: an exchange that stays up through its own restarts.\n\n"
    "To try it: `exchange demo`. To use it, start one with `exchange up`, then, in another terminal:\n\n"
    "    exchange status\n\n"
    "    exchange admin asset create BTC --scale 8\n\n"
    "    exchange admin asset create USDT --scale 6\n\n"
    "    exchange admin instrument create BTC-USDT --tick 0.01 --lot 0.0001\n\n"
    "    exchange admin account create alice\n\n"
    "    exchange admin deposit 2 USDT 100000 --reference wire-1\n\n"
    "    export EVENKEEL_API_KEY=$(exchange admin key create 2)\n\n"
    "    exchange orders place BTC-USDT buy 0.5 60000.10\n\n"
    "    exchange book BTC-USDT\n\n"
    "    exchange account balances\n\n"
    "    exchange audit\n\n"
    "Commands find an exchange on this machine by its data directory (--data), any other by --address and --key. "
    "With --json they print JSON. What fails says so in one line on stderr and ends with 1, wrong usage with 2.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(orders.app, name="orders")
app.add_typer(account.app, name="account")
app.add_typer(admin.app, name="admin")
app.add_typer(maintenance.app, name="maintenance")
app.add_typer(config.app, name="config")
app.add_typer(stages.app, name="stage")
app.add_typer(status.app, name="status")
app.command()(stages.halt)
app.command()(stages.resume)


def _show_version(wanted: bool) -> None:
    if wanted:
        from exchange.compiled import described
        from exchange.engine import shard

        print(f"evenkeel {__version__}, engine {described(shard)}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version and build, and exit.")
    ] = False,
) -> None:
    """Options of the whole."""


Symbol = Annotated[str, typer.Argument(help='An instrument, such as "BTC-USDT".')]


RayAddress = Annotated[
    str,
    typer.Option(
        help="A Ray cluster that runs: HOST:PORT of its GCS, or `auto` on a machine of it. Without: one of its own."
    ),
]


@app.command()
def up(
    data: Data = DATA_DEFAULT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the first gateway; 0 takes a free one.")] = 7700,
    shards: Annotated[int, typer.Option(help="Shards; instruments are spread over them.")] = 2,
    gateways: Annotated[int, typer.Option(help="Gateways; each listens on a port of its own.")] = 1,
    same_port: Annotated[
        bool, typer.Option("--same-port", help="All gateways listen on --port: each is on a machine of its own.")
    ] = False,
    nodes: Annotated[int, typer.Option(help="Ray nodes to start here; of a cluster that runs, to wait for.")] = 1,
    journal: Annotated[
        str, typer.Option(help='"file", on one machine, or "nats": without --nats, three servers of its own here.')
    ] = "file",
    nats: nats_options.Servers = None,
    nats_monitoring: nats_options.Monitoring = None,
    nats_credentials: nats_options.Credentials = None,
    nats_ca: nats_options.CaFile = None,
    nats_certificate: nats_options.CertificateFile = None,
    nats_key: nats_options.KeyFile = None,
    standbys: Annotated[
        bool, typer.Option(help="A second process for each machine, which takes over when the first one is lost.")
    ] = True,
    ray_address: RayAddress = "",
    settings: Annotated[
        Path | None, typer.Option(help="TOML to start with for the first time; then `exchange config` changes them.")
    ] = None,
) -> None:
    """Start an exchange on this machine and serve until SIGTERM or Ctrl-C; or on a Ray cluster, where it stays.

    What it holds is in the data directory; starting again there carries on. The operator's key is in
    DATA/operator.key. On a cluster the directory is one of each machine, and the journals are in NATS.
    """
    from exchange.config import ExchangeConfig
    from exchange.settings_text import parse_settings

    exchange_config = ExchangeConfig(
        data_dir=data.absolute() if ray_address else data,
        host=host,
        port=port,
        shards=shards,
        gateways=gateways,
        same_port=same_port,
        nodes=nodes,
        journal=journal,
        nats=nats_options.settings_of(
            journal,
            nats,
            nats_monitoring,
            credentials=nats_credentials,
            ca=nats_ca,
            certificate=nats_certificate,
            key=nats_key,
        ),
        standbys=standbys,
        settings=parse_settings(config.read(settings) if settings is not None else ""),
    )
    if ray_address:
        from exchange.cli import on_cluster

        on_cluster.start(ray_address, exchange_config)
    else:
        from exchange.cli.up import serve

        serve(exchange_config)


@app.command()
def down(
    ray_address: RayAddress = "auto",
    workers: Annotated[
        bool, typer.Option("--workers", help="End Ray too, on all nodes but the one where this is called: the head.")
    ] = False,
) -> None:
    """Stop the exchange on a Ray cluster, cleanly. What it holds stays, and so does the cluster."""
    from exchange.cli import on_cluster

    on_cluster.stop(ray_address, stop_workers=workers)


@app.command()
def demo(
    seconds: Annotated[int, typer.Option(help="How long to trade.")] = 15,
) -> None:
    """Start an exchange, trade on it, kill -9 its shard in the middle, and check that nothing was lost."""
    from exchange.cli.demo import run

    raise typer.Exit(run(seconds))


@app.command()
def events(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show what happened to the components: losses, takeovers, maintenance (needs an operator's key).

    Since the supervisor became active, oldest first.
    """
    from exchange.cli.events import follow_events, show_events

    with connect(address, key, data) as client:
        (follow_events if follow else show_events)(client, limit, json)


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, for scripts.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 1.0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Watch the exchange live: stages, rates, delays, lags, gateways, instruments, events (needs an operator's key).

    Delays are the 99th percentiles of the last second. `busy` is the share of a machine's time that goes into commands,
    `journal` how long the record that is written has been under way, `credits` what may be under way to each shard.
    It goes on through restarts, also of the gateway that it looks through. Ctrl-C ends it.
    """
    from exchange.cli.top import Top, run, show_once

    if json and not once:
        raise typer.BadParameter("expected --once with --json")

    def connect_to(known: list[str]) -> Client:
        # Known from the last look, and as it is found now: a gateway that was replaced may be elsewhere.
        return connect(",".join(dict.fromkeys([*known, *find_address(address, data)])), key, data)

    watching = Top(connect_to)
    try:
        if once:
            show_once(watching, interval, json)
        else:
            run(watching, interval)
    finally:
        watching.close()


@app.command()
def audit(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Audit the books of ledger and shards now, while trading goes on (needs an operator's key).

    For each asset: deposits less withdrawals (supply), and where the money is: in the ledger, in escrow in the shards,
    under way between them. It also checks that no account has less than nothing, that open orders hold what they need,
    and that trades cost their fees. What is wrong comes with its evidence.

    `exchange audit` ends with 0 if the books balance, 1 if a rule is broken, 3 if nobody can say, as a machine is away
    or the audit failed. `exchange audit --json` has everything, the escrow of each shard too.
    """
    from exchange.cli.audit import run

    raise typer.Exit(run(lambda: connect(address, key, data), json))


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
    """Show an order book: `exchange book BTC-USDT --depth 5`, or as it changes, `exchange book BTC-USDT --follow`."""
    from exchange.cli.book import follow_book, show_book

    if depth < 0:
        raise typer.BadParameter(f"--depth: expected at least 0, was {depth}")
    with connect(address, key, data) as client:
        if follow:
            follow_book(client, symbol, depth, json)
        else:
            show_book(client.order_book(symbol, depth), depth, json)


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
    """Show the last trades of an instrument: `exchange trades BTC-USDT`, and new ones with --follow.

    With --follow a line each, oldest first.
    """
    columns = ("trade_id", "time_ns", "taker_side", "price", "quantity")
    with connect(address, key, data) as client:
        if not follow:
            show(client.trades(symbol, limit), columns, json)
            return
        for trade in client.trades(symbol, limit):
            show_line(trade, columns, json)
        with client.stream_trades(symbol) as stream:
            for trade in stream:
                show_line(trade, columns, json)


@app.command()
def replay(
    file: Annotated[
        Path, typer.Argument(help="A recording: flow CSV, Bitstamp log, or LOBSTER messages; .gz and .xz too.")
    ],
    engine: Annotated[bool, typer.Option("--engine", help="Straight through the shard machine.")] = False,
    exchange: Annotated[str, typer.Option("--exchange", help="Through gRPC on the exchange at HOST:PORT.")] = "",
    format: Annotated[str, typer.Option(help="flow, bitstamp or lobster; guessed if not given.")] = "",
    instrument: Annotated[
        str, typer.Option(help="Instrument to create for it; with --exchange, a name not used yet if not given.")
    ] = "",
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

    On an exchange it needs an operator's key, and trades an instrument of its own under two accounts of its own. --out
    writes PREFIX.trades.csv, PREFIX.results.csv (the fate of each command and the best prices after it),
    PREFIX.book.csv and PREFIX.orders.csv (what is left at the end).
    """
    from exchange.cli.replay import run

    run(
        file,
        engine=engine,
        address=exchange,
        format_name=format,
        instrument=instrument,
        out=out,
        speed=speed,
        key=key,
        data=data,
        as_json=json,
    )


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all if none is named.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Of `failover`: draw the time line of one into this SVG file.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure engine, gateways, journals, memory and failover, each beside its reference."""
    from exchange.cli.bench import run

    run(names or [], as_json=json, failover_path=figure)
