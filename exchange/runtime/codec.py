"""The shard's encodings: a client's bytes to commands, results to the client's answer, orders to the wire."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from google.protobuf.message import DecodeError

from exchange.engine.channel import Return
from exchange.engine.commands import AmendOrder, CancelAll, CancelOrder, Command, PlaceOrder, SetStage, Tick
from exchange.engine.events import Result
from exchange.engine.orders import Order
from exchange.engine.shard import Shard
from exchange.engine.stages import StageRow
from exchange.engine.state import BookState, ShardState, restore, state_of
from exchange.engine.words import OrderStatus, RejectReason, Stage
from exchange.runtime.feed import BookDump, ShardDump
from exchange.runtime.hosted_shard import new_shard
from exchange.runtime.messages import Segment, SegmentKind, pack, unpack
from exchange.runtime.rows import SHARD_COMMANDS, rows_segment, unpack_commands
from exchange.runtime.trade_wire import read_commands, write_results
from exchange.v1 import trading_pb2, types_pb2

_TRADE = int(SegmentKind.TRADE)
_REJECTED = types_pb2.OUTCOME_REJECTED
_PENDING = int(OrderStatus.PENDING_FUNDS)
_new = tuple.__new__


def decode_trade(segment: Segment) -> list[Command]:
    """Return the commands of a client's TradeRequest; none if it cannot be read, which the gateway has checked."""
    account, session = segment.account, segment.session
    plain = read_commands(segment.data, account, session)
    if plain is not None:
        return plain
    try:
        request = trading_pb2.TradeRequest.FromString(segment.data)
    except DecodeError:
        return []
    commands: list[Command] = []
    append = commands.append
    for item in request.commands:
        kind = item.WhichOneof("command")
        owner = item.on_behalf_of or account
        if kind == "place":
            m = item.place
            append(
                _new(
                    PlaceOrder,
                    (
                        owner,
                        m.client_order_id,
                        m.instrument,
                        m.side,
                        m.type,
                        m.time_in_force,
                        m.price,
                        m.quantity,
                        m.post_only,
                        m.self_trade_prevention,
                        m.expire_time_ns,
                        session,
                    ),
                )
            )
        elif kind == "cancel":
            c = item.cancel
            append(_new(CancelOrder, (owner, c.instrument, c.client_order_id, c.order_id)))
        elif kind == "amend":
            a = item.amend
            append(
                AmendOrder(
                    owner,
                    a.instrument,
                    a.client_order_id,
                    a.order_id,
                    a.price,
                    a.quantity,
                    a.open_quantity,
                    a.requeue,
                    a.cancel_on_fail,
                )
            )
        elif kind == "cancel_all":
            append(CancelAll(owner, item.cancel_all.instrument, item.cancel_all.side))
        else:
            # Of no kind: it takes its place, names nothing and is refused.
            append(CancelOrder(owner, "", ""))
    return commands


def encode_trade(segment: Segment, results: Sequence[Result]) -> bytes:
    """Return the TradeResponse to a client's TradeRequest."""
    return write_results(request_id_of(segment.data), results)


def request_id_of(data: bytes) -> int:
    """Return the request_id of a TradeRequest without reading the rest: it is the first field if it is set."""
    if not data or data[0] != 0x08:
        return 0
    value = shift = 0
    for byte in data[1:11]:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    return 0


def encode_order(order: Order) -> types_pb2.Order:
    """Return an order as its account sees it."""
    request = order.request
    status = order.status
    return types_pb2.Order(
        instrument=request.instrument,
        client_order_id=request.client_order_id,
        order_id=0 if order.reject_reason else order.order_id,
        side=request.side,  # type: ignore[arg-type]  # plain integers, checked by the engine
        type=request.type,  # type: ignore[arg-type]
        time_in_force=request.time_in_force,  # type: ignore[arg-type]
        price=order.price,
        quantity=order.quantity,
        filled_quantity=order.filled,
        open_quantity=order.open if status == OrderStatus.OPEN else 0,
        post_only=request.post_only,
        self_trade_prevention=request.self_trade_prevention,  # type: ignore[arg-type]
        status=int(status),  # type: ignore[arg-type]
        close_reason=order.close_reason,  # type: ignore[arg-type]
        create_time_ns=order.create_time_ns,
        update_time_ns=order.update_time_ns,
        expire_time_ns=request.expire_time_ns,
        priority=order.priority,
        reject_reason=order.reject_reason,  # type: ignore[arg-type]
    )


class ShardType:
    """A shard. Queries: ("find", account, instrument, client_order_id, order_id) and
    ("list", account, instrument, include_closed, after_order_id, limit), answered by packed lists of Order messages;
    ("escrow", account) by (sequence, rows of `escrow_of`); ("money",) by `money_of`, for the auditor.
    """

    name = "shard"
    version = Shard.VERSION

    def new(self) -> Shard:
        return new_shard()

    def decode(self, segment: Segment) -> list[Any]:
        if segment.kind == _TRADE:
            return decode_trade(segment)
        return unpack_commands(segment.data, SHARD_COMMANDS)

    def encode(self, segment: Segment, results: Sequence[Any]) -> bytes:
        return encode_trade(segment, results) if segment.kind == _TRADE else pack(results)

    def waits(self, results: Sequence[Any]) -> bool:
        return any(result[3] == _PENDING for result in results)

    def tick(self) -> Segment | None:
        return rows_segment([Tick()])

    def first_segment(self) -> Segment | None:
        # Timers that ran out while the shard was away fire together, before anybody is let in.
        return rows_segment([SetStage(int(Stage.CANCEL_ONLY), 0, "start"), Tick()])

    def pack_state(self, machine: Shard) -> bytes:
        return pack(state_of(machine))

    def unpack_state(self, data: bytes) -> Shard:
        state = ShardState(*unpack(data))
        return restore(state._replace(books=[BookState(*book) for book in state.books]), new_shard)

    def dump(self, machine: Shard, epoch: int) -> bytes:
        books = [
            BookDump(
                tuple(book.instrument),
                book.last_price,
                book.trade_id,
                [
                    (o.order_id, r.account, r.client_order_id, r.side, o.price, o.quantity, o.open)
                    for o in book.orders()
                    for r in (o.request,)
                ],
            )
            for book in machine.books.values()
        ]
        return pack(ShardDump(epoch, machine.sequence, machine.time_ns, machine.stages.rows(), books))

    def query(self, machine: Shard, request: bytes) -> bytes:
        match unpack(request):
            case ("find", account, instrument, client_order_id, order_id):
                found = machine.find(account, instrument, client_order_id, order_id)
                orders = [] if found is None else [found]
            case ("list", account, instrument, include_closed, after_order_id, limit):
                known = machine.remembered.of(account)
                matching = (
                    order
                    for order in known
                    if order.order_id > after_order_id
                    and (order.level is not None or include_closed)
                    and (not instrument or order.request.instrument == instrument)
                )
                orders = list(islice(matching, limit))
            case ("escrow", account):
                return pack((machine.sequence, escrow_of(machine, account)))
            case ("money",):
                return pack(money_of(machine))
            case other:
                raise ValueError(f"unknown query {other[0]!r}")
        return pack([encode_order(order).SerializeToString() for order in orders])


def escrow_of(shard: Shard, account: int) -> list[tuple[Any, ...]]:
    """Return an account's money here: (asset, available, received from the ledger, [(instrument, held)])."""
    wallet = shard.funds.wallets.get(account)
    if wallet is None:
        return []
    held: dict[str, list[tuple[str, int]]] = {asset: [] for asset in wallet.purses}
    for symbol, book in shard.books.items():
        trader = book.traders.get(account)
        if trader is not None:
            held[trader.base.asset].append((symbol, trader.base_held))
            held[trader.quote.asset].append((symbol, trader.quote_held))
    return [(p.asset, p.available, p.received, held[p.asset]) for p in wallet.purses.values()]


def money_of(shard: Shard) -> tuple[Any, ...]:
    """Return all money here: (sequence, purses as (account, asset, available, received), holds as (instrument,
    account, base held, quote held), what parked commands hold of it as (instrument, account, is a buy, part), outbox as
    (is a return, its fields), the number that the next message will have).
    """
    purses = [
        (p.account, p.asset, p.available, p.received)
        for wallet in shard.funds.wallets.values()
        for p in wallet.purses.values()
    ]
    holds = [
        (symbol, trader.account, trader.base_held, trader.quote_held)
        for symbol, book in shard.books.items()
        for trader in book.traders.values()
    ]
    parked = [(p.command.instrument, p.trader.account, p.is_buy, p.part) for p in shard.parked.values()]
    outbox = [(isinstance(message, Return), *message) for message in shard.funds.outbox.values()]
    return shard.sequence, purses, holds, parked, outbox, shard.funds.next_n


def unpack_dump(data: bytes) -> ShardDump:
    """Return a shard's dump from its packed form."""
    epoch, sequence, time_ns, stages, books = unpack(data)
    return ShardDump(epoch, sequence, time_ns, [StageRow(*row) for row in stages], [BookDump(*book) for book in books])


def reject_all(data: bytes, reason: RejectReason, *, retry_after_ms: int = 0) -> bytes:
    """Return the TradeResponse that refuses every command of a TradeRequest, none of which was executed."""
    return _answer_all(data, _REJECTED, int(reason), retry_after_ms)


def unknown_all(data: bytes) -> bytes:
    """Return the TradeResponse that leaves the outcome of every command of a TradeRequest open."""
    return _answer_all(data, 3, 0, 0)


def _answer_all(data: bytes, outcome: int, reason: int, retry_after_ms: int) -> bytes:
    request = trading_pb2.TradeRequest.FromString(data)
    response = trading_pb2.TradeResponse(request_id=request.request_id)
    for item in request.commands:
        kind = item.WhichOneof("command")
        named = getattr(item, kind) if kind else None
        response.results.add(
            outcome=outcome,
            client_order_id=getattr(named, "client_order_id", ""),
            status=int(OrderStatus.REJECTED) if reason else 0,
            reject_reason=reason,
            retry_after_ms=retry_after_ms,
        )
    return response.SerializeToString()
