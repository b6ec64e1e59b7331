"""A shard's whole state as nested tuples of integers and strings: for snapshots, and to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from exchange.engine import parking
from exchange.engine.book import Book
from exchange.engine.channel import HOUSE, Ask, Return, Seen
from exchange.engine.commands import AmendOrder, PlaceOrder
from exchange.engine.funds import Funds
from exchange.engine.instrument import Instrument
from exchange.engine.orders import Order, new_order
from exchange.engine.parking import Parked
from exchange.engine.rate import OrderRate
from exchange.engine.shard import Shard
from exchange.engine.stages import Gate, StageRow
from exchange.engine.words import TimeInForce

_GTD: Final = int(TimeInForce.GTD)


class BookState(NamedTuple):
    """A book; `orders` bids before asks, each side in priority order."""

    instrument: tuple[Any, ...]
    last_price: int
    trade_id: int
    orders: Sequence[tuple[Any, ...]]


class FundsState(NamedTuple):
    """A wallet is (account, [(asset, available, received, asking, dry until, seen)]); `idle` rows (account, due).

    Messages of the outbox are (is a return, its fields).
    """

    wallets: Sequence[tuple[int, Sequence[tuple[Any, ...]]]]
    outbox: Sequence[tuple[Any, ...]]
    next_n: int
    recalls_low: int
    recalls: Sequence[int]
    idle: Sequence[tuple[int, int]]


class ShardState(NamedTuple):
    """Everything that the next command may depend on. `closed` in the order of closing.

    What orders hold is not there: it follows from the orders. Parked commands are (sequence, is an amend, command,
    order or None, is a buy, deadline, part, message, refusal). Stages are (`StageRow`, allowance, time of that), the
    whole shard's first.
    """

    sequence: int
    time_ns: int
    stages: Sequence[tuple[Any, ...]]
    switches: Sequence[tuple[int, int]]
    funds: FundsState
    parked: Sequence[tuple[Any, ...]]
    books: Sequence[BookState]
    closed: Sequence[tuple[Any, ...]]


def state_of(shard: Shard) -> ShardState:
    """Return a copy of the state that shares nothing that changes."""
    return ShardState(
        shard.sequence,
        shard.time_ns,
        [_pack_gate(gate) for gate in (shard.stages.whole, *shard.stages.by_instrument.values())],
        sorted(shard.switches.items()),
        _pack_funds(shard.funds),
        [_pack_parked(parked) for parked in shard.parked.values()],
        [
            BookState(tuple(book.instrument), book.last_price, book.trade_id, [_pack(o) for o in book.orders()])
            for book in shard.books.values()
        ],
        [_pack(order) for order in shard.closed],
    )


def restore(state: ShardState, new_shard: Callable[[], Shard] = Shard) -> Shard:
    """Return a shard in this state; sequences may be tuples where `state_of` gave lists."""
    shard = new_shard()
    shard.sequence, shard.time_ns = state.sequence, state.time_ns
    for row, allowance, time_ns in state.stages:
        stage = StageRow(*row)
        shard.stages.put(Gate(stage, OrderRate(stage.orders_per_s, allowance, time_ns)))
    for account, time_ns in state.switches:
        shard.set_switch(account, time_ns)
    funds = FundsState(*state.funds)
    _unpack_funds(shard.funds, funds)
    open_orders: list[Order] = []
    for fields, last_price, trade_id, orders in state.books:
        instrument = Instrument(*fields)
        book = Book(instrument, shard.funds.purse(HOUSE, instrument.quote_asset))
        book.last_price, book.trade_id = last_price, trade_id
        shard.books[instrument.symbol] = book
        open_orders.extend(map(_unpack, orders))
    # Tables are iterated in the order in which they were filled: orders came to rest by priority, ids by order.
    for order in sorted(open_orders, key=lambda order: order.priority):
        order.trader = shard.trader_of(shard.books[order.request.instrument], order.account)
        shard.rest(shard.books[order.request.instrument], order)
    for row in state.parked:
        _unpack_parked(shard, row)
    # Resting and parking have taken from the purses what was taken already.
    for account, purses in funds.wallets:
        for asset, available, *_ in purses:
            shard.funds.purse(account, asset).available = available
    shard.closed.extend(map(_unpack, state.closed))
    parked_orders = [parked.order for parked in shard.parked.values() if parked.order is not None]
    for order in sorted(chain(open_orders, parked_orders, shard.closed), key=lambda order: order.order_id):
        shard.remembered.add(order)
    return shard


def _pack_gate(gate: Gate) -> tuple[Any, ...]:
    return tuple(gate.row), gate.rate.allowance, gate.rate.time_ns


def _pack(order: Order) -> tuple[Any, ...]:
    return (
        order.order_id,
        tuple(order.request),
        order.price,
        order.quantity,
        order.open,
        order.priority,
        order.create_time_ns,
        order.update_time_ns,
        order.close_reason,
        order.reject_reason,
        order.rested_filled,
    )


def _unpack(packed: Sequence[Any]) -> Order:
    (
        order_id,
        request,
        price,
        quantity,
        open_quantity,
        priority,
        create_time_ns,
        update_time_ns,
        close_reason,
        reject_reason,
        rested_filled,
    ) = packed
    request = PlaceOrder(*request)
    watched = request.session != 0 or request.time_in_force == _GTD
    order = new_order(order_id, request, None, price, quantity, create_time_ns, watched)
    order.open, order.priority = open_quantity, priority
    order.update_time_ns = update_time_ns
    order.close_reason, order.reject_reason = close_reason, reject_reason
    order.rested_filled = rested_filled
    return order


def _pack_funds(funds: Funds) -> FundsState:
    wallets = [
        (
            account,
            [(p.asset, p.available, p.received, p.asking, p.dry_until_ns, p.seen) for p in wallet.purses.values()],
        )
        for account, wallet in funds.wallets.items()
    ]
    outbox = [(isinstance(message, Return), *message) for message in funds.outbox.values()]
    idle = [(wallet.account, wallet.due_ns) for wallet in funds.idle]
    return FundsState(wallets, outbox, funds.next_n, funds.recalls.low, list(funds.recalls.numbers), idle)


def _unpack_funds(funds: Funds, state: FundsState) -> None:
    for account, purses in state.wallets:
        for asset, _, *fields in purses:
            purse = funds.purse(account, asset)
            purse.received, purse.asking, purse.dry_until_ns, purse.seen = fields
    for is_return, *message in state.outbox:
        funds.outbox[message[0]] = Return(*message) if is_return else Ask(*message)
    funds.next_n = state.next_n
    funds.recalls = Seen(state.recalls_low, list(state.recalls))
    for account, due_ns in state.idle:
        funds.watch(funds.wallet(account), due_ns)


def _pack_parked(parked: Parked) -> tuple[Any, ...]:
    return (
        parked.sequence,
        isinstance(parked.command, AmendOrder),
        tuple(parked.command),
        None if parked.order is None else _pack(parked.order),
        parked.is_buy,
        parked.deadline_ns,
        parked.part,
        parked.n,
        parked.refusal,
    )


def _unpack_parked(shard: Shard, row: Sequence[Any]) -> None:
    sequence, is_amend, fields, packed_order, is_buy, deadline_ns, part, n, refusal = row
    command = AmendOrder(*fields) if is_amend else PlaceOrder(*fields)
    trader = shard.trader_of(shard.books[command.instrument], command.account)
    parked = Parked(sequence, command, trader, is_buy, deadline_ns)
    parked.n, parked.refusal = n, refusal
    parked.bind(part)
    if packed_order is not None:
        parked.order = _unpack(packed_order)
        parked.order.trader, parked.order.parked = trader, True
    parking.enter(shard, parked)
    if n in shard.funds.outbox:
        shard.parked_by_message[n] = parked
