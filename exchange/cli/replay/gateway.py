"""`--exchange`: a recording through gRPC on a running exchange.

Commands go in batches over one Trade stream, under two accounts, one for each side. What came of them is put together
from the answers, the accounts' execution streams (trades) and the order book stream (best prices after each command).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from exchange.cli.errors import CommandFailed
from exchange.cli.replay.outcome import Answer, OrderRow, Outcome, TradeRow
from exchange.cli.replay.recording import Kind, Recording, ReplayCommand
from exchange.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    market_data_pb2,
    market_data_pb2_grpc,
    trading_pb2,
    trading_pb2_grpc,
    types_pb2,
)

BATCH_COMMANDS = 200
BATCHES_IN_FLIGHT = 6
COMMANDS_UNSEEN_MAX = 2_000
"""Commands that may be answered but not yet seen in the streams: less than a gateway keeps for a reader."""
_Metadata = tuple[tuple[str, str], ...]


class _Seen:
    """What the streams have shown so far, and a way to wait for more."""

    def __init__(self) -> None:
        self.makers: dict[int, tuple[str, int, int]] = {}
        self.takers: dict[int, tuple[str, int]] = {}
        self.cancelled: dict[int, int] = {}
        self.best: list[tuple[int, tuple[int, int, int, int]]] = []
        self.executed = 0
        self.book_sequence = 0
        self.fault = ""
        self._changed = asyncio.Event()

    def has_executed(self, sequence: int) -> bool:
        return self.executed >= sequence

    def has_both_sides(self) -> bool:
        return self.makers.keys() == self.takers.keys()

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until something was seen. Raises `CommandFailed` if the streams fail or go silent for a minute."""
        while not seen():
            if self.fault:
                raise CommandFailed("STREAM_FAILED", self.fault)
            try:
                async with asyncio.timeout(60):
                    await self._changed.wait()
            except TimeoutError:
                raise CommandFailed("STREAM_SILENT", f"waited a minute for {what}") from None


async def replay_exchange(
    recording: Recording, address: str, key: str, pace: Callable[[ReplayCommand], Any], progress: Callable[[int], None]
) -> Outcome:
    """Enter a recording on the exchange at `address` with an operator's key, in an instrument of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        operator = _bearer(key)
        symbol = await _create_instrument(channel, operator, recording)
        buyer = await _create_account(channel, operator, "replay-buyer")
        seller = await _create_account(channel, operator, "replay-seller")
        seen = _Seen()
        ready = [asyncio.get_running_loop().create_future() for _ in range(3)]
        tasks = [
            asyncio.create_task(_watch(seen, _executions(channel, buyer[1], symbol, seen, ready[0]))),
            asyncio.create_task(_watch(seen, _executions(channel, seller[1], symbol, seen, ready[1]))),
            asyncio.create_task(_watch(seen, _book(channel, symbol, seen, ready[2]))),
        ]
        try:
            await asyncio.wait_for(asyncio.gather(*ready), 30)
            accounts = {1: buyer[0], 2: seller[0]}
            outcome = Outcome()
            await _enter(channel, operator, recording, symbol, accounts, seen, outcome, pace, progress)
            last = max((a.sequence for a in outcome.answers if not a.rejected), default=0)
            await seen.until(partial(seen.has_executed, last), "the last execution")
            # The other account's stream may be behind: every trade must have shown both of its sides.
            await seen.until(seen.has_both_sides, "the other side of the last trades")
            await _read_end_state(channel, symbol, (buyer[1], seller[1]), outcome)
            await _flush_book(channel, operator, symbol, accounts, seen)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        outcome.best = seen.best
        outcome.cancelled = seen.cancelled
        outcome.trades = [
            TradeRow(seen.takers[trade_id][1], seen.takers[trade_id][0], maker, price, quantity)
            for trade_id, (maker, price, quantity) in sorted(seen.makers.items())
        ]
        return outcome


def _bearer(key: str) -> _Metadata:
    return (("authorization", f"Bearer {key}"),)


async def _create_instrument(channel: Any, operator: _Metadata, recording: Recording) -> str:
    symbol = f"REPLAY-{secrets.token_hex(4).upper()}"
    message = types_pb2.Instrument(
        symbol=symbol,
        base_asset="REPLAY",
        quote_asset="FLOW",
        price_scale=recording.price_scale,
        quantity_scale=recording.quantity_scale,
        max_open_orders=1_000_000,
    )
    request = admin_pb2.CreateInstrumentRequest(instrument=message)
    await admin_pb2_grpc.AdminServiceStub(channel).CreateInstrument(request, metadata=operator, timeout=10)
    return symbol


async def _create_account(channel: Any, operator: _Metadata, name: str) -> tuple[int, _Metadata]:
    """Return the account's id, and the credentials of a new key of it."""
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    answer = await stub.CreateAccount(
        admin_pb2.CreateAccountRequest(name=f"{name}-{secrets.token_hex(4)}"), metadata=operator, timeout=10
    )
    account = answer.account.account_id
    permissions = [admin_pb2.PERMISSION_READ, admin_pb2.PERMISSION_TRADE]
    request = admin_pb2.CreateApiKeyRequest(account_id=account, permissions=permissions)
    return account, _bearer((await stub.CreateApiKey(request, metadata=operator, timeout=10)).key)


async def _watch(seen: _Seen, stream: Any) -> None:
    try:
        await stream
    except grpc.aio.AioRpcError as error:
        seen.fault = f"{error.code().name}: {error.details()}"
        seen.changed()


async def _executions(channel: Any, metadata: _Metadata, symbol: str, seen: _Seen, ready: asyncio.Future[None]) -> None:
    stub = trading_pb2_grpc.TradingServiceStub(channel)
    async for response in stub.StreamExecutions(trading_pb2.StreamExecutionsRequest(), metadata=metadata):
        if response.start_sequences and not ready.done():
            ready.set_result(None)
        for e in response.executions:
            if e.instrument != symbol:
                continue
            if e.type == trading_pb2.EXECUTION_TYPE_TRADE:
                if e.liquidity == trading_pb2.LIQUIDITY_MAKER:
                    seen.makers[e.trade_id] = e.client_order_id, e.trade_price, e.trade_quantity
                else:
                    seen.takers[e.trade_id] = e.client_order_id, e.sequence
            elif e.type == trading_pb2.EXECUTION_TYPE_CLOSED:
                seen.cancelled[e.sequence] = e.quantity - e.filled_quantity
            seen.executed = max(seen.executed, e.sequence)
        seen.changed()


async def _book(channel: Any, symbol: str, seen: _Seen, ready: asyncio.Future[None]) -> None:
    stub = market_data_pb2_grpc.MarketDataServiceStub(channel)
    bid = ask = (0, 0)
    started = False
    async for response in stub.StreamOrderBook(market_data_pb2.StreamOrderBookRequest(instrument=symbol, depth=1)):
        for update in response.updates:
            if update.snapshot:
                if started:
                    seen.fault = "the order book stream left out changes: this reader was too slow"
                started, bid, ask = True, (0, 0), (0, 0)
            elif update.previous_sequence != seen.book_sequence:
                seen.fault = f"the order book stream has a gap after {seen.book_sequence}"
            bid = _first(update.bids, bid)
            ask = _first(update.asks, ask)
            seen.book_sequence = update.sequence
            seen.best.append((update.sequence, (*bid, *ask)))
        if not ready.done():
            ready.set_result(None)
        seen.changed()


def _first(levels: Any, before: tuple[int, int]) -> tuple[int, int]:
    """Return the best level after changes to a book of depth 1: the one that is there now, if any changed."""
    if not levels:
        return before
    return next(((level.price, level.quantity) for level in levels if level.quantity), (0, 0))


async def _enter(
    channel: Any,
    operator: _Metadata,
    recording: Recording,
    symbol: str,
    accounts: dict[int, int],
    seen: _Seen,
    outcome: Outcome,
    pace: Callable[[ReplayCommand], Any],
    progress: Callable[[int], None],
) -> None:
    """Send all commands and collect the answers."""
    stub = trading_pb2_grpc.TradingServiceStub(channel)
    call = stub.Trade(metadata=operator)
    sent_s: dict[int, float] = {}
    room = asyncio.Semaphore(BATCHES_IN_FLIGHT)
    sides: dict[str, int] = {}
    open_quantity: dict[str, int] = {}

    async def send() -> None:
        commands = recording.commands
        start = 0
        while start < len(commands):
            end = min(start + BATCH_COMMANDS, len(commands))
            request = trading_pb2.TradeRequest(request_id=start + 1, deadline_ms=5_000)
            for command in commands[start:end]:
                await pace(command)
                side = sides.setdefault(command.order, command.side or 1)
                request.commands.append(_encode(command, symbol, accounts[side], open_quantity))
            await room.acquire()
            sent_s[request.request_id] = time.perf_counter()
            await call.write(request)
            start = end
        await call.done_writing()

    started_s = time.perf_counter()
    sender = asyncio.create_task(_watch(seen, send()))
    async for response in call:
        outcome.latencies_ms.append((time.perf_counter() - sent_s.pop(response.request_id)) * 1_000)
        for result in response.results:
            if result.outcome == types_pb2.OUTCOME_UNKNOWN or result.reject_reason >= 500:
                name = types_pb2.RejectReason.Name(result.reject_reason)
                raise CommandFailed("NOT_ENTERED", f"{result.client_order_id}: {name}")
            outcome.answers.append(Answer(result.sequence, result.status, bool(result.reject_reason)))
        progress(len(outcome.answers))
        behind = next((a.sequence for a in reversed(outcome.answers[:-COMMANDS_UNSEEN_MAX]) if not a.rejected), 0)
        await seen.until(partial(seen.has_executed, behind), f"execution {behind}")
        room.release()
    outcome.seconds = time.perf_counter() - started_s
    await sender
    if len(outcome.answers) != len(recording.commands):
        raise CommandFailed(
            "NOT_ENTERED", f"{len(outcome.answers)} of {len(recording.commands)} commands were answered"
        )


def _encode(command: ReplayCommand, symbol: str, account: int, open_quantity: dict[str, int]) -> Any:
    order = command.order
    encoded = trading_pb2.Command(on_behalf_of=account)
    match command.kind:
        case Kind.NEW | Kind.MARKET:
            open_quantity[order] = command.quantity
            place = encoded.place
            place.instrument, place.client_order_id = symbol, order
            place.side = command.side  # type: ignore[assignment]
            place.type = types_pb2.ORDER_TYPE_LIMIT if command.kind == Kind.NEW else types_pb2.ORDER_TYPE_MARKET
            place.time_in_force = command.time_in_force  # type: ignore[assignment]
            place.price, place.quantity = command.price, command.quantity
        case Kind.CANCEL:
            encoded.cancel.instrument, encoded.cancel.client_order_id = symbol, order
        case Kind.REPLACE:
            amend = encoded.amend
            amend.instrument, amend.client_order_id = symbol, order
            amend.price, amend.open_quantity, amend.requeue = command.price, command.quantity, True
        case Kind.REDUCE:
            # The total shrinks by what is taken off, whatever has been filled meanwhile.
            open_quantity[order] = open_quantity.get(order, 0) - command.quantity
            amend = encoded.amend
            amend.instrument, amend.client_order_id = symbol, order
            amend.quantity, amend.cancel_on_fail = max(open_quantity[order], 1), True
    return encoded


async def _read_end_state(channel: Any, symbol: str, owners: tuple[_Metadata, ...], outcome: Outcome) -> None:
    market_data = market_data_pb2_grpc.MarketDataServiceStub(channel)
    request = market_data_pb2.GetOrderBookRequest(instrument=symbol)
    book = (await market_data.GetOrderBook(request, timeout=30)).book
    for side, levels in ((1, book.bids), (2, book.asks)):
        outcome.levels += [(side, level.price, level.quantity, level.orders) for level in levels]
    trading = trading_pb2_grpc.TradingServiceStub(channel)
    for metadata in owners:
        token = ""
        while True:
            page = trading_pb2.ListOrdersRequest(instrument=symbol, page_size=1_000, page_token=token)
            answer = await trading.ListOrders(page, metadata=metadata, timeout=30)
            outcome.orders += [
                OrderRow(o.side, o.price, o.priority, o.client_order_id, o.open_quantity) for o in answer.orders
            ]
            token = answer.next_page_token
            if not token:
                break


async def _flush_book(channel: Any, operator: _Metadata, symbol: str, accounts: dict[int, int], seen: _Seen) -> None:
    """Change the best price once more, and wait until the book stream shows that: then it has shown all before."""
    place = trading_pb2.PlaceOrderRequest(
        instrument=symbol,
        client_order_id="flush",
        side=types_pb2.SIDE_BUY,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=1,
        quantity=1,
    )
    cancel_all = trading_pb2.CancelAllOrdersRequest(instrument=symbol)
    commands = [trading_pb2.Command(cancel_all=cancel_all, on_behalf_of=account) for account in accounts.values()]
    commands.append(trading_pb2.Command(place=place, on_behalf_of=accounts[1]))
    call = trading_pb2_grpc.TradingServiceStub(channel).Trade(metadata=operator)
    await call.write(trading_pb2.TradeRequest(commands=commands, deadline_ms=5_000))
    await call.done_writing()
    response = await call.read()
    last = response.results[-1].sequence
    await seen.until(lambda: seen.book_sequence >= last, "the last change of the book")
