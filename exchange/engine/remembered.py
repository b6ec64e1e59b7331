"""Which orders a shard knows by name: the open ones, and for a while those that have closed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from exchange.engine.names import NameTable
from exchange.engine.orders import Order

NS_PER_S: Final = 1_000_000_000
CLOSED_KEPT_NS: Final = 600 * NS_PER_S
"""How long the client order id of a closed order is remembered ..."""
CLOSED_KEPT_NS_MIN: Final = 10 * NS_PER_S
"""... and how long even when there are more than the next figure: twice the longest request deadline."""
CLOSED_KEPT_MAX = 1_000_000  # tests set it, so it is not Final
_ID_CHUNK_BITS: Final = 6
_ID_MASK: Final = 63
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

    __slots__ = ("by_client_id", "chunks", "closed")

    def __init__(self, new_names: Callable[[], NameTable]) -> None:
        self.by_client_id: defaultdict[int, NameTable] = defaultdict(new_names)
        """By account, then client order id: open, closed and refused orders."""
        self.chunks: dict[int, _Chunk] = {}
        """By order id, 64 ids each: open and closed orders; a refused one has no order id.

        In one table of a million orders, the one order that makes it grow would wait for 100 ms. Larger chunks would
        take much for the few orders that stay when all around them have gone.
        """
        self.closed: deque[Order] = deque()

    def add(self, order: Order) -> None:
        """Enter an order under its names."""
        self.by_client_id[order.account].add(order.request.client_order_id, order)
        if order.is_named_by_id:
            self.add_id(order)

    def add_id(self, order: Order) -> None:
        """Enter an order under its id."""
        order_id = order.order_id
        chunk = self.chunks.get(order_id >> _ID_CHUNK_BITS)
        if chunk is None:
            chunk = self.chunks[order_id >> _ID_CHUNK_BITS] = _Chunk()
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
                chunk = self.chunks[order_id >> _ID_CHUNK_BITS]
                chunk.orders[order_id & _ID_MASK] = None
                chunk.count -= 1
                if not chunk.count:
                    del self.chunks[order_id >> _ID_CHUNK_BITS]

    def forget_name(self, order: Order) -> None:
        """Let the name of an order be used again."""
        self.by_client_id[order.account].remove(order.request.client_order_id)

    def of(self, account: int) -> list[Order]:
        """Return an account's orders, oldest first."""
        known = self.by_client_id.get(account)
        return sorted(known.orders(), key=_id_of) if known is not None else []

    def with_id(self, order_id: int) -> Order | None:
        """Return the order with an id, whosever it is."""
        chunk = self.chunks.get(order_id >> _ID_CHUNK_BITS)
        return chunk.orders[order_id & _ID_MASK] if chunk is not None else None

    def with_name(self, account: int, client_order_id: str) -> Order | None:
        """Return the order of an account with a client order id."""
        known = self.by_client_id.get(account)
        return known.find(client_order_id) if known is not None else None

    def find(self, account: int, symbol: str, client_order_id: str, order_id: int) -> Order | None:
        """Return an order of the account by client order id or else order id."""
        order = self.with_name(account, client_order_id) if client_order_id else self.with_id(order_id)
        return order if order is not None and order.account == account and order.request.instrument == symbol else None

    def counts(self) -> tuple[int, int]:
        """Return how many orders there are by client order id, and how many by id."""
        return sum(map(len, self.by_client_id.values())), sum(chunk.count for chunk in self.chunks.values())


def _id_of(order: Order) -> int:
    return order.order_id
