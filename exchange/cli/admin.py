"""`exchange admin …`: needs an operator's key."""

from __future__ import annotations

from json import dumps
from typing import Annotated

import typer

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.output import plain, show
from exchange.client import Permission, Stage

app = typer.Typer(
    help="Instruments, accounts, keys and stages (needs an operator's key).\n\n"
    "On the machine of the exchange that key is found in its data directory; elsewhere give it with --key.\n\n"
    "    exchange admin instrument create BTC-USDT --tick 0.01 --lot 0.0001\n\n"
    "    exchange admin account create alice\n\n"
    "    exchange admin key create 2",
    no_args_is_help=True,
)
instrument = typer.Typer(help="What is traded.", no_args_is_help=True)
account = typer.Typer(help="Who trades.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(instrument, name="instrument")
app.add_typer(account, name="account")
app.add_typer(key_app, name="key")

ACCOUNT = ("account_id", "name", "create_time_ns")
INSTRUMENT = ("symbol", "tick_size", "lot_size", "min_quantity", "band_bps", "maker_fee_ppm", "taker_fee_ppm", "shard")
API_KEY = ("key_id", "account_id", "permissions", "revoked", "create_time_ns")


@instrument.command("create")
def create_instrument(
    symbol: Annotated[str, typer.Argument(help='Such as "BTC-USDT": base and quote asset are read from it.')],
    tick: Annotated[str, typer.Option(help="Smallest step of the price.")] = "0.01",
    lot: Annotated[str, typer.Option(help="Smallest step of the quantity.")] = "0.0001",
    max_quantity: Annotated[str, typer.Option(help="Largest order.")] = "1000000",
    quote_scale: Annotated[int, typer.Option(help="Digits of amounts of the quote asset.")] = 8,
    band_bps: Annotated[int, typer.Option(help="Price band around the last trade, in 1/10,000; 0: none.")] = 0,
    reference: Annotated[str, typer.Option(help="Centre of the band before the first trade.")] = "",
    maker_fee_ppm: Annotated[int, typer.Option(help="In 1/1,000,000; negative: a rebate.")] = 0,
    taker_fee_ppm: Annotated[int, typer.Option(help="In 1/1,000,000.")] = 0,
    shard: Annotated[str, typer.Option(help="Where; the emptiest if not given.")] = "",
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Open a market: `exchange admin instrument create BTC-USDT --tick 0.01 --lot 0.0001`."""
    base, _, quote = symbol.partition("-")
    with connect(address, key, data) as client:
        created = client.create_instrument(
            symbol,
            base_asset=base,
            quote_asset=quote,
            tick_size=tick,
            lot_size=lot,
            max_quantity=max_quantity,
            quote_scale=quote_scale,
            band_bps=band_bps,
            reference_price=reference or None,
            maker_fee_ppm=maker_fee_ppm,
            taker_fee_ppm=taker_fee_ppm,
            shard=shard,
        )
        show([created], INSTRUMENT, json)


@instrument.command("list")
def list_instruments(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """List what is traded."""
    with connect(address, key, data) as client:
        show(client.instruments(), (*INSTRUMENT, "stage"), json)


@account.command("create")
def create_account(
    name: str, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Create an account, or find the one that has the name."""
    with connect(address, key, data) as client:
        show([client.create_account(name)], ACCOUNT, json)


@account.command("list")
def list_accounts(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """List accounts."""
    with connect(address, key, data) as client:
        show(client.list_accounts(), ACCOUNT, json)


@key_app.command("create")
def create_key(
    account_id: int,
    permission: Annotated[list[str] | None, typer.Option("--permission", "-p", help="READ, TRADE, OPERATOR.")] = None,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Create an API key, by default to read and trade. It is shown this once.

    `export EVENKEEL_API_KEY=$(exchange admin key create 2)`, or `exchange admin key create 2 -p READ` for less.
    """
    try:
        permissions = [Permission[name.upper()] for name in permission or ("READ", "TRADE")]
    except KeyError as error:
        raise typer.BadParameter(f"permission: expected READ, TRADE, TRANSFER or OPERATOR, was {error}") from None
    with connect(address, key, data) as client:
        created = client.create_api_key(account_id, permissions)
    if json:
        print(dumps({**plain(created.api_key), "key": created.secret}, indent=2))
    else:
        print(created.secret)


@key_app.command("list")
def list_keys(
    account_id: Annotated[int, typer.Argument(help="0: of all accounts.")] = 0,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """List API keys, without their secrets."""
    with connect(address, key, data) as client:
        show(client.list_api_keys(account_id), API_KEY, json)


@key_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="As `exchange admin key list` shows it.")],
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Revoke an API key."""
    with connect(address, key, data) as client:
        client.revoke_api_key(key_id)
    print(dumps({"key_id": key_id, "revoked": True}) if json else f"revoked: {key_id}")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="CANCEL_ONLY, POST_ONLY, LIMITED, OPEN or HALTED.")],
    shard: Annotated[str, typer.Option(help="Which; all if not given.")] = "",
    orders_per_s: Annotated[int, typer.Option(help="With LIMITED: new orders per second.")] = 0,
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.")] = "",
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Hold shards at a stage, through restarts too, until they are told OPEN.

    `exchange admin stage CANCEL_ONLY --reason "drill"`, and `exchange admin stage OPEN` to go on.
    """
    try:
        wanted = Stage[name.upper()]
    except KeyError:
        raise typer.BadParameter(f"expected CANCEL_ONLY, POST_ONLY, LIMITED, OPEN or HALTED, was {name!r}") from None
    with connect(address, key, data) as client:
        shards = client.set_stage(wanted, shard=shard, orders_per_s=orders_per_s, reason=reason)
    print(dumps({"stage": wanted.name, "shards": shards}) if json else f"{wanted.name}: {' '.join(shards)}")
