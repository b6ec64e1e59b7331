"""A shard's whole state as nested tuples of integers and strings: for snapshots, and to be hashed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

from exchange.engine.book import Book
from exchange.engine.commands import PlaceOrder
from exchange.engine.instrument import Instrument
from exchange.engine.orders import Order, new_order
from exchange.engine.rate import OrderRate
from exchange.engine.shard import Shard
from exchange.engine.words import TimeInForce

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
        shard.rate.orders_per_s,
        shard.rate.allowance,
        shard.rate.time_ns,
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
    shard.sequence, shard.time_ns, shard.stage, orders_per_s, allowance, allowance_time_ns, switches, books, closed = (
        state
    )
    shard.rate = OrderRate(orders_per_s, allowance, allowance_time_ns)
    for account, time_ns in switches:
        shard.set_switch(account, time_ns)
    open_orders: list[Order] = []
    for instrument, last_price, trade_id, orders in books:
        book = Book(Instrument(*instrument))
        book.last_price, book.trade_id = last_price, trade_id
        shard.books[book.instrument.symbol] = book
        open_orders.extend(map(_unpack, orders))
    # Tables are iterated in the order in which they were filled: orders came to rest by priority, ids by order.
    for order in sorted(open_orders, key=lambda order: order.priority):
        shard.rest(order)
    shard.closed.extend(map(_unpack, closed))
    for order in sorted(chain(open_orders, shard.closed), key=lambda order: order.order_id):
        shard.remembered.add(order)
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
    watched = request.session != 0 or request.time_in_force == TimeInForce.GTD
    order = new_order(order_id, request, request.account, price, quantity, create_time_ns, watched)
    order.open, order.priority = open_quantity, priority
    order.update_time_ns = update_time_ns
    order.close_reason, order.reject_reason = close_reason, reject_reason
    order.rested_filled = rested_filled
    return order
