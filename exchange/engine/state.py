"""A shard's whole state as nested tuples of integers and strings: for snapshots, and to be hashed."""

from __future__ import annotations

from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

from exchange.engine.book import Book
from exchange.engine.commands import PlaceOrder
from exchange.engine.events import Result
from exchange.engine.instrument import Instrument
from exchange.engine.orders import Order
from exchange.engine.shard import Shard
from exchange.engine.words import OrderStatus

HASH_BYTES = 16


class BookState(NamedTuple):
    """A book; `orders` bids before asks, each side in priority order."""

    instrument: tuple[Any, ...]
    last_price: int
    trade_id: int
    orders: list[tuple[Any, ...]]


class ShardState(NamedTuple):
    """Everything that the next command may depend on. `closed` in the order of closing."""

    sequence: int
    time_ns: int
    stage: int
    orders_per_s: int
    allowance: int
    allowance_time_ns: int
    switches: list[tuple[int, int]]
    books: list[BookState]
    closed: list[tuple[Any, ...]]


def state_of(shard: Shard) -> ShardState:
    """Return a copy of the state that shares nothing that changes."""
    return ShardState(
        shard.sequence,
        shard.time_ns,
        shard.stage,
        shard.orders_per_s,
        shard.allowance,
        shard.allowance_time_ns,
        sorted(shard.switches.items()),
        [
            BookState(tuple(book.instrument), book.last_price, book.trade_id, [_pack(o) for o in book.orders()])
            for book in shard.books.values()
        ],
        [_pack(order) for order in shard.closed],
    )


def restore(state: ShardState) -> Shard:
    """Return a shard in this state; the parts may be lists where `state_of` gave tuples."""
    shard = Shard()
    (
        shard.sequence,
        shard.time_ns,
        shard.stage,
        shard.orders_per_s,
        shard.allowance,
        shard.allowance_time_ns,
        switches,
        books,
        closed,
    ) = state
    shard.switches = {account: time_ns for account, time_ns in switches}
    open_orders: list[Order] = []
    for book_state in books:
        instrument, last_price, trade_id, orders = book_state
        book = Book(Instrument(*instrument))
        book.last_price, book.trade_id = last_price, trade_id
        shard.books[book.instrument.symbol] = book
        for packed in orders:
            order = _unpack(packed)
            book.side_of(order).append(order)
            open_orders.append(order)
    shard.closed.extend(_unpack(packed) for packed in closed)
    # Tables are iterated in the order in which they were filled: orders came to rest by priority, ids by order.
    for order in sorted(open_orders, key=lambda order: order.priority):
        shard.index_open_order(order)
    for order in sorted(chain(open_orders, shard.closed), key=lambda order: order.order_id):
        request = order.request
        shard.orders_by_client_id.setdefault(request.account, {})[request.client_order_id] = order
    shard.rebuild_timers()
    return shard


def hash_of(shard: Shard) -> bytes:
    """Return the hash of the state: equal states, and no others, have equal hashes."""
    digest = blake2b(digest_size=HASH_BYTES)
    *head, books, closed = state_of(shard)
    digest.update(repr(head).encode())
    for instrument, last_price, trade_id, orders in books:
        digest.update(repr((instrument, last_price, trade_id, len(orders))).encode())
        for order in orders:
            digest.update(repr(order).encode())
    for order in closed:
        digest.update(repr(order).encode())
    return digest.digest()


def _pack(order: Order) -> tuple[Any, ...]:
    result = order.result
    assert result is not None
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
        (result.status, result.filled, result.close_reason),
    )


def _unpack(packed: tuple[Any, ...]) -> Order:
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
        (first_status, first_filled, first_close_reason),
    ) = packed
    order = Order(order_id, PlaceOrder(*request), price, create_time_ns)
    order.quantity, order.open, order.priority = quantity, open_quantity, priority
    order.update_time_ns = update_time_ns
    order.close_reason, order.reject_reason = close_reason, reject_reason
    order.result = Result(
        order_id,
        order.request.client_order_id,
        0 if reject_reason else order_id,
        first_status,
        first_filled,
        order.request.quantity - first_filled if first_status == OrderStatus.OPEN else 0,
        reject_reason,
        first_close_reason,
    )
    return order
