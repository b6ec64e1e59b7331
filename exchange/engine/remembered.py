"""Which orders a shard knows by name: the open ones, and for a while those that have closed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

from exchange.engine.commands import AmendOrder, CancelOrder, Command, PlaceOrder
from exchange.engine.names import IS_COMPILED, NameTable, new_name_table
from exchange.engine.orders import Order

NS_PER_S: Final = 1_000_000_000
CLOSED_KEPT_NS: Final = 600 * NS_PER_S
"""How long the client order id of a closed order is remembered ..."""
CLOSED_KEPT_NS_MIN: Final = 10 * NS_PER_S
"""... and how long even when there are more than the next figure: twice the longest request deadline."""
CLOSED_KEPT_MAX = 1_000_000  # tests set it, so it is not Final
_ID_CHUNK_BITS: Final = 10
_ID_MASK: Final = 1023
_FETCH_COMMANDS_MIN: Final = 8
_FETCH_CHUNKS_MIN = 64  # tests set it, so it is not Final
"""Fewer orders than these hold, some 50 MB, are in the processor's caches anyway."""
# Bounds what one command pays for forgetting; higher than what most commands can add.
_FORGET_PER_COMMAND: Final = 8


class _Chunk:
    """Orders by the low bits of their ids, and how many there are."""

    __slots__ = ("count", "orders")

    def __init__(self) -> None:
        self.count = 0
        self.orders: list[Order | None] = [None] * (_ID_MASK + 1)


class RememberedOrders:
    """Orders by name, and the closed ones in the order of closing."""

    __slots__ = ("_chunks", "by_client_id", "closed")

    def __init__(self) -> None:
        self.by_client_id: defaultdict[int, NameTable] = defaultdict(new_name_table)
        """By account, then client order id: open, closed and refused orders."""
        self._chunks: dict[int, _Chunk] = {}
        """By order id, 1,024 ids each: open and closed orders; a refused one has no order id.

        In one table of a million orders, the one order that makes it grow would wait for 100 ms.
        """
        self.closed: deque[Order] = deque()

    def add(self, order: Order) -> None:
        """Enter an order under its names."""
        name = order.request.client_order_id
        self.by_client_id[order.account].add(name, hash(name), order)
        if order.is_named_by_id:
            self.add_id(order)

    def add_id(self, order: Order) -> None:
        """Enter an order under its id."""
        order_id = order.order_id
        chunk = self._chunks.get(order_id >> _ID_CHUNK_BITS)
        if chunk is None:
            chunk = self._chunks[order_id >> _ID_CHUNK_BITS] = _Chunk()
        chunk.orders[order_id & _ID_MASK] = order
        chunk.count += 1

    def forget(self, time_ns: int, commands: int) -> None:
        """Drop the oldest closed orders that need not be remembered any longer, some for each of `commands`."""
        closed = self.closed
        for _ in range(commands * _FORGET_PER_COMMAND):
            if not closed:
                return
            age_ns = time_ns - closed[0].update_time_ns
            if age_ns <= CLOSED_KEPT_NS and (len(closed) <= CLOSED_KEPT_MAX or age_ns <= CLOSED_KEPT_NS_MIN):
                return
            order = closed.popleft()
            self.forget_name(order)
            if order.is_named_by_id:
                order_id = order.order_id
                chunk = self._chunks[order_id >> _ID_CHUNK_BITS]
                chunk.orders[order_id & _ID_MASK] = None
                chunk.count -= 1
                if not chunk.count:
                    del self._chunks[order_id >> _ID_CHUNK_BITS]

    def forget_name(self, order: Order) -> None:
        """Let the name of an order be used again."""
        name = order.request.client_order_id
        self.by_client_id[order.account].remove(name, hash(name))

    def of(self, account: int) -> list[Order]:
        """Return an account's orders, oldest first."""
        known = self.by_client_id.get(account)
        return sorted(known.orders(), key=_id_of) if known is not None else []

    def with_id(self, order_id: int) -> Order | None:
        """Return the order with an id, whosever it is."""
        chunk = self._chunks.get(order_id >> _ID_CHUNK_BITS)
        return chunk.orders[order_id & _ID_MASK] if chunk is not None else None

    def with_name(self, account: int, client_order_id: str) -> Order | None:
        """Return the order of an account with a client order id."""
        known = self.by_client_id.get(account)
        return known.find(client_order_id, hash(client_order_id)) if known is not None else None

    def find(self, account: int, symbol: str, client_order_id: str, order_id: int) -> Order | None:
        """Return an order of the account by client order id or else order id."""
        order = self.with_name(account, client_order_id) if client_order_id else self.with_id(order_id)
        return order if order is not None and order.account == account and order.request.instrument == symbol else None

    def counts(self) -> tuple[int, int]:
        """Return how many orders there are by client order id, and how many by id."""
        return sum(map(len, self.by_client_id.values())), sum(chunk.count for chunk in self._chunks.values())

    def fetch(self, batch: Sequence[Command]) -> int:
        """Have what a batch will need fetched from memory all at once, rather than one after the other as it is needed.

        Processors wait for memory only once they have gone some 400 instructions further, so that several wait at the
        same time for what a short loop reads (Chen and others, Improving Hash Join Performance through Prefetching,
        2004). Nothing is changed; what is returned says nothing, but lets no compiler leave a read out.
        """
        if not IS_COMPILED or len(batch) < _FETCH_COMMANDS_MIN or len(self._chunks) < _FETCH_CHUNKS_MIN:
            return 0
        tables: list[NameTable] = []
        hashes = vec[i64](capacity=i64(len(batch)))
        named = vec[i64](capacity=i64(len(batch)))
        orders: list[Order] = []
        by_client_id = self.by_client_id
        for command in batch:
            if type(command) is PlaceOrder:
                table = by_client_id.get(command[0])
                if table is not None:
                    tables.append(table)
                    hashes = append(hashes, hash(command[1]))
            elif type(command) is CancelOrder or type(command) is AmendOrder:
                name = command[2]
                table = by_client_id.get(command[0])
                if table is not None and name:
                    named = append(named, i64(len(tables)))
                    tables.append(table)
                    hashes = append(hashes, hash(name))
                elif not name:
                    order = self.with_id(command[3])
                    if order is not None:
                        orders.append(order)
        read: i64 = 0
        at: i64 = 0
        while at < len(hashes):
            read += tables[at].touch(hashes[at])
            at += 1
        for at in named:
            order = tables[at].guess(hashes[at])
            if order is not None:
                orders.append(order)
        for order in orders:
            read += order.own_place
            _level, _before, _after = order.level, order.previous, order.next
        return int(read)


def _id_of(order: Order) -> int:
    return order.order_id
