"""What a replay needs on a running exchange: an instrument of its own, two accounts with money, and their state."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from exchange.cli.errors import CommandFailed
from exchange.cli.replay.engine import OPEN_ORDERS_MAX
from exchange.cli.replay.outcome import LevelRow, OrderRow, Outcome
from exchange.cli.replay.recording import Recording
from exchange.engine.money import SCALE_MAX, format_amount
from exchange.v1 import (
    account_pb2,
    admin_pb2,
    admin_pb2_grpc,
    market_data_pb2,
    market_data_pb2_grpc,
    trading_pb2,
    trading_pb2_grpc,
    types_pb2,
)

Metadata = tuple[tuple[str, str], ...]
CALL_TIMEOUT_S = 10.0
PAGE_SIZE = 1_000
_UNITS_MAX = 10**27
"""A thousandth of what there can be of an asset, as replays share theirs."""
BUY, SELL = types_pb2.SIDE_BUY, types_pb2.SIDE_SELL


@dataclass(frozen=True, slots=True)
class Owner:
    """The account that enters one side, with a key of its own."""

    account: int
    key_id: str
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Market:
    """Where a recording is entered. `owners` by side; `operator` may enter for both."""

    channel: grpc.aio.Channel
    symbol: str
    operator: Metadata
    owners: dict[int, Owner]

    @property
    def accounts(self) -> dict[int, int]:
        return {side: owner.account for side, owner in self.owners.items()}


@asynccontextmanager
async def open_market(channel: grpc.aio.Channel, key: str, recording: Recording, symbol: str) -> AsyncIterator[Market]:
    """Create instrument, accounts and keys with an operator's key; revoke the keys at the end.

    The accounts are new each time, as client order ids are remembered for some minutes after their orders are closed: a
    recording that is entered twice would else be taken for a repeat of the first.
    """
    operator = bearer(key)
    admin = admin_pb2_grpc.AdminServiceStub(channel)
    assets = await _create_assets(admin, operator, recording)
    await _create_instrument(channel, operator, recording, symbol, assets)
    suffix = secrets.token_hex(4)
    owners: dict[int, Owner] = {}
    try:
        for side, name in ((BUY, f"replay-buyer-{suffix}"), (SELL, f"replay-seller-{suffix}")):
            owners[int(side)] = await _create_owner(admin, operator, name)
        market = Market(channel, symbol, operator, owners)
        await _fund(admin, market, recording, assets)
        yield market
    finally:
        for owner in owners.values():
            try:
                revoke = admin_pb2.RevokeApiKeyRequest(key_id=owner.key_id)
                await admin.RevokeApiKey(revoke, metadata=operator, timeout=CALL_TIMEOUT_S)
            except (grpc.aio.AioRpcError, asyncio.CancelledError):
                pass  # the exchange is away: the error that is being raised says so


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


def new_symbol() -> str:
    """Return the name of an instrument that is not there yet."""
    return f"REPLAY-{secrets.token_hex(4).upper()}"


async def _create_assets(
    admin: admin_pb2_grpc.AdminServiceAsyncStub, operator: Metadata, recording: Recording
) -> tuple[account_pb2.Asset, account_pb2.Asset]:
    """Return the base and the quote asset, which are of all replays with the same scales, so that few are made."""
    base_scale, quote_scale = recording.quantity_scale, recording.price_scale + recording.quantity_scale
    if quote_scale > SCALE_MAX:
        raise CommandFailed(
            "TOO_PRECISE", f"prices and quantities have {quote_scale} digits, an amount at most {SCALE_MAX}"
        )
    base = account_pb2.Asset(symbol=f"REPLAY{base_scale}", scale=base_scale)
    quote = account_pb2.Asset(symbol=f"FLOW{quote_scale}", scale=quote_scale)
    for asset in (base, quote):
        create = admin_pb2.CreateAssetRequest(asset=asset)
        await admin.CreateAsset(create, metadata=operator, timeout=CALL_TIMEOUT_S)
    return base, quote


def money_for(recording: Recording) -> tuple[int, int]:
    """Return how much of the base and of the quote asset the two sides are given, in units.

    A market takes half of it at once, which is twice what all orders of the recording together could hold, each at the
    highest price that there is: so none of them is refused for lack of money, and none has to wait for more.
    """
    quantity = sum(command.quantity for command in recording.commands) + 1
    price = max((command.price for command in recording.commands), default=0) + 1
    return min(4 * quantity, _UNITS_MAX), min(4 * quantity * price, _UNITS_MAX)


async def _fund(
    admin: admin_pb2_grpc.AdminServiceAsyncStub,
    market: Market,
    recording: Recording,
    assets: tuple[account_pb2.Asset, account_pb2.Asset],
) -> None:
    """Deposit what the sides sell and pay with, and have their market take it in before the recording begins."""
    for side, asset, units in zip((SELL, BUY), assets, money_for(recording), strict=True):
        owner = market.owners[int(side)]
        deposit = admin_pb2.DepositRequest(
            account_id=owner.account,
            asset=asset.symbol,
            amount=format_amount(units, asset.scale),
            reference=f"replay-{owner.key_id}",
        )
        await admin.Deposit(deposit, metadata=market.operator, timeout=CALL_TIMEOUT_S)
    trading = trading_pb2_grpc.TradingServiceStub(market.channel)
    call = trading.Trade(metadata=market.operator, timeout=CALL_TIMEOUT_S)
    for side in (BUY, SELL):
        name = f"begin-{secrets.token_hex(8)}"
        place = trading_pb2.PlaceOrderRequest(
            instrument=market.symbol,
            client_order_id=name,
            side=side,
            type=types_pb2.ORDER_TYPE_LIMIT,
            price=1,
            quantity=1,
            post_only=True,
        )
        cancel = trading_pb2.CancelOrderRequest(instrument=market.symbol, client_order_id=name)
        account = market.owners[int(side)].account
        for command in (trading_pb2.Command(place=place), trading_pb2.Command(cancel=cancel)):
            command.on_behalf_of = account
            # One at a time: an order that is cancelled while it waits does not wait for its money.
            await call.write(trading_pb2.TradeRequest(request_id=1, commands=[command]))
            answer = await call.read()
            if not isinstance(answer, trading_pb2.TradeResponse):
                raise CommandFailed("NO_ANSWER", "the exchange ended the stream before the first order was answered")
            (result,) = answer.results
            if result.outcome != types_pb2.OUTCOME_ACKNOWLEDGED:
                reason = types_pb2.RejectReason.Name(result.reject_reason)
                raise CommandFailed("NOT_ENTERED", f"the order that brings the money: {reason}")
    await call.done_writing()


async def _create_instrument(
    channel: grpc.aio.Channel,
    operator: Metadata,
    recording: Recording,
    symbol: str,
    assets: tuple[account_pb2.Asset, account_pb2.Asset],
) -> None:
    message = types_pb2.Instrument(
        symbol=symbol,
        base_asset=assets[0].symbol,
        quote_asset=assets[1].symbol,
        price_scale=recording.price_scale,
        quantity_scale=recording.quantity_scale,
        max_open_orders=OPEN_ORDERS_MAX,
    )
    request = admin_pb2.CreateInstrumentRequest(instrument=message)
    admin = admin_pb2_grpc.AdminServiceStub(channel)
    await admin.CreateInstrument(request, metadata=operator, timeout=CALL_TIMEOUT_S)
    market_data = market_data_pb2_grpc.MarketDataServiceStub(channel)
    wanted = market_data_pb2.GetTickerRequest(instrument=symbol)
    ticker = (await market_data.GetTicker(wanted, timeout=CALL_TIMEOUT_S)).ticker
    if ticker.last_price or ticker.bid_quantity or ticker.ask_quantity:
        raise CommandFailed("INSTRUMENT_IN_USE", f"expected an instrument that nobody has traded, was {symbol}")


async def _create_owner(admin: admin_pb2_grpc.AdminServiceAsyncStub, operator: Metadata, name: str) -> Owner:
    create = admin_pb2.CreateAccountRequest(name=name)
    account = (await admin.CreateAccount(create, metadata=operator, timeout=CALL_TIMEOUT_S)).account.account_id
    request = admin_pb2.CreateApiKeyRequest(account_id=account, permissions=[admin_pb2.PERMISSION_READ])
    created = await admin.CreateApiKey(request, metadata=operator, timeout=CALL_TIMEOUT_S)
    return Owner(account, created.api_key.key_id, bearer(created.key))


async def last_trade_id(market: Market) -> int:
    """Return the id of the instrument's last trade; 0 if there is none. They count from 1."""
    stub = market_data_pb2_grpc.MarketDataServiceStub(market.channel)
    request = market_data_pb2.ListTradesRequest(instrument=market.symbol, limit=1)
    trades = (await stub.ListTrades(request, timeout=CALL_TIMEOUT_S)).trades
    return trades[-1].trade_id if trades else 0


async def read_end_state(market: Market, outcome: Outcome) -> None:
    """Read the whole book and all open orders into the outcome."""
    stub = market_data_pb2_grpc.MarketDataServiceStub(market.channel)
    wanted = market_data_pb2.GetOrderBookRequest(instrument=market.symbol)
    book = (await stub.GetOrderBook(wanted, timeout=CALL_TIMEOUT_S)).book
    for side, levels in ((BUY, book.bids), (SELL, book.asks)):
        outcome.levels += [LevelRow(int(side), level.price, level.quantity, level.orders) for level in levels]
    trading = trading_pb2_grpc.TradingServiceStub(market.channel)
    for owner in market.owners.values():
        request = trading_pb2.ListOrdersRequest(instrument=market.symbol, page_size=PAGE_SIZE)
        while True:
            page = await trading.ListOrders(request, metadata=owner.metadata, timeout=CALL_TIMEOUT_S)
            outcome.orders += [
                OrderRow(int(o.side), o.price, o.priority, o.client_order_id, o.open_quantity) for o in page.orders
            ]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token


async def mark_end(market: Market, outcome: Outcome) -> int:
    """Change a best price and change it back; return the sequence of the first change.

    An order book stream that has come to it has shown everything before. The book stays as the recording left it.
    """
    bids = [level for level in outcome.levels if level.side == BUY]
    best = (bids or outcome.levels)[:1]
    side, price = (best[0].side, best[0].price) if best else (int(BUY), 1)
    name = f"end-{secrets.token_hex(8)}"
    account = market.owners[side].account
    place = trading_pb2.PlaceOrderRequest(
        instrument=market.symbol,
        client_order_id=name,
        side=side,  # type: ignore[arg-type]  # one of the two
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=price,
        quantity=1,
        post_only=True,
    )
    cancel = trading_pb2.CancelOrderRequest(instrument=market.symbol, client_order_id=name)
    commands = [
        trading_pb2.Command(place=place, on_behalf_of=account),
        trading_pb2.Command(cancel=cancel, on_behalf_of=account),
    ]
    call = trading_pb2_grpc.TradingServiceStub(market.channel).Trade(metadata=market.operator, timeout=CALL_TIMEOUT_S)
    await call.write(trading_pb2.TradeRequest(request_id=1, commands=commands))
    await call.done_writing()
    async for response in call:
        placed = response.results[0]
        if placed.outcome != types_pb2.OUTCOME_ACKNOWLEDGED:
            reason = types_pb2.RejectReason.Name(placed.reject_reason)
            raise CommandFailed("NOT_ENTERED", f"the order that marks the end: {reason}")
        return placed.sequence
    raise CommandFailed("NO_ANSWER", "the exchange ended the stream before the order that marks the end was answered")
