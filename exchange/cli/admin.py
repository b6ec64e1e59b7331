"""`exchange admin …`: needs an operator's key."""

from __future__ import annotations

from datetime import UTC, datetime
from json import dumps
from typing import Annotated

import typer

from exchange.cli.account import show_result
from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect
from exchange.cli.expiry import parse_expiry
from exchange.cli.output import plain, show
from exchange.client import AccountTier, Permission

app = typer.Typer(
    help="Instruments, assets, accounts, keys, and money in and out (needs an operator's key).\n\n"
    "On the machine of the exchange that key is found in its data directory; elsewhere give it with --key.\n\n"
    "    exchange admin asset create BTC --scale 8\n\n"
    "    exchange admin asset create USDT --scale 6\n\n"
    "    exchange admin instrument create BTC-USDT --tick 0.01 --lot 0.0001\n\n"
    "    exchange admin account create alice\n\n"
    "    exchange admin key create 2\n\n"
    "    exchange admin deposit 2 USDT 1000 --reference wire-17",
    no_args_is_help=True,
)
instrument = typer.Typer(help="What is traded.", no_args_is_help=True)
asset_app = typer.Typer(help="What accounts can hold.", no_args_is_help=True)
account = typer.Typer(help="Who trades.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(instrument, name="instrument")
app.add_typer(asset_app, name="asset")
app.add_typer(account, name="account")
app.add_typer(key_app, name="key")

ACCOUNT = ("account_id", "name", "tier", "create_time_ns")
INSTRUMENT = ("symbol", "tick_size", "lot_size", "min_quantity", "band_bps", "maker_fee_ppm", "taker_fee_ppm", "shard")
ASSET = ("symbol", "scale")
API_KEY = ("key_id", "account_id", "permissions", "revoked", "create_time_ns", "expire_time_ns", "allowed_ips")

AccountId = Annotated[int, typer.Argument(help="Its number, as `exchange admin account list` has it.")]
AssetSymbol = Annotated[str, typer.Argument(help='Such as "USDT".')]
Amount = Annotated[str, typer.Argument(help='Such as "12.50".')]


@instrument.command("create")
def create_instrument(
    symbol: Annotated[str, typer.Argument(help='Such as "BTC-USDT": base and quote asset are read from it.')],
    tick: Annotated[str, typer.Option(help="Smallest step of the price.")] = "0.01",
    lot: Annotated[str, typer.Option(help="Smallest step of the quantity.")] = "0.0001",
    max_quantity: Annotated[str, typer.Option(help="Largest order; without limit if not given.")] = "",
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
    """Open a market: `exchange admin instrument create BTC-USDT --tick 0.01 --lot 0.0001`.

    Both assets must exist: `exchange admin asset create USDT --scale 6`. Digits of the tick and of the lot are those of
    prices and quantities; tick times lot must not need more digits than the quote asset has.
    """
    with connect(address, key, data) as client:
        created = client.create_instrument(
            symbol,
            tick_size=tick,
            lot_size=lot,
            max_quantity=max_quantity or None,
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


@asset_app.command("create")
def create_asset(
    symbol: Annotated[str, typer.Argument(help='Such as "USDT".')],
    scale: Annotated[int, typer.Option(min=0, max=18, help="Digits after the point; they stay so for good.")] = 8,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Create an asset, or find the one that is there: `exchange admin asset create USDT --scale 6`."""
    with connect(address, key, data) as client:
        show([client.create_asset(symbol, scale)], ASSET, json)


@asset_app.command("list")
def list_assets(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """List what accounts can hold."""
    with connect(address, key, data) as client:
        show(client.assets(), ASSET, json)


@account.command("create")
def create_account(
    name: str, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Create an account, or find the one that has the name."""
    with connect(address, key, data) as client:
        show([client.create_account(name)], ACCOUNT, json)


@account.command("tier")
def set_tier(
    account_id: AccountId,
    tier: Annotated[str, typer.Argument(help="STANDARD, MAKER or UNLIMITED.")],
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Say how many orders an account may send: `exchange admin account tier 2 MAKER`."""
    known = [known.name for known in AccountTier if known]
    if tier.upper() not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}, was {tier}")
    with connect(address, key, data) as client:
        show([client.set_account_tier(account_id, AccountTier[tier.upper()])], ACCOUNT, json)


@account.command("list")
def list_accounts(address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """List accounts."""
    with connect(address, key, data) as client:
        show(client.list_accounts(), ACCOUNT, json)


@key_app.command("create")
def create_key(
    account_id: int,
    permission: Annotated[
        list[str] | None, typer.Option("--permission", "-p", help="READ, TRADE, TRANSFER, OPERATOR.")
    ] = None,
    expires: Annotated[
        str, typer.Option(help="When it ends: a date (2027-01-31, UTC) or a duration (12h, 30d); never if not given.")
    ] = "",
    allow_ip: Annotated[
        list[str] | None,
        typer.Option("--allow-ip", help="Where calls may come from: 192.0.2.7 or 10.0.0.0/8; repeat it for more."),
    ] = None,
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Create an API key, by default to read and trade. It is shown this once.

    `export EVENKEEL_API_KEY=$(exchange admin key create 2)`, or `exchange admin key create 2 -p READ` for less.

    `exchange admin key create 2 --expires 30d --allow-ip 192.0.2.7`: for a month, and from one address only.
    """
    try:
        permissions = [Permission[name.upper()] for name in permission or ("READ", "TRADE")]
    except KeyError as error:
        raise typer.BadParameter(f"permission: expected READ, TRADE, TRANSFER or OPERATOR, was {error}") from None
    expire_time = parse_expiry(expires, datetime.now(UTC)) if expires else None
    with connect(address, key, data) as client:
        created = client.create_api_key(account_id, permissions, expire_time=expire_time, allowed_ips=allow_ip or ())
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
def deposit(
    account_id: AccountId,
    asset: AssetSymbol,
    amount: Amount,
    reference: Annotated[str, typer.Option(help="What brought it, unique among deposits.")],
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Give an account money that came in: `exchange admin deposit 2 USDT 1000 --reference wire-17`.

    It happens once for each reference: after an error that leaves it open, send it again with the same one.
    """
    with connect(address, key, data) as client:
        show_result(client.deposit(account_id, asset, amount, reference=reference), json)


@app.command()
def withdraw(
    account_id: AccountId,
    asset: AssetSymbol,
    amount: Amount,
    reference: Annotated[str, typer.Option(help="What takes it, unique among withdrawals.")],
    address: Address = "",
    key: Key = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Take money that goes out, if the account has it: `exchange admin withdraw 2 USDT 50 --reference payout-9`.

    It happens once for each reference: after an error that leaves it open, send it again with the same one.
    """
    with connect(address, key, data) as client:
        show_result(client.withdraw(account_id, asset, amount, reference=reference), json)
