"""Which orders a shard knows by name: the open ones, and for a while those that have closed."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, Final

from exchange.engine.orders import Order

NS_PER_S: Final = 1_000_000_000
CLOSED_KEPT_NS: Final = 600 * NS_PER_S
"""How long the client order id of a closed order is remembered ..."""
CLOSED_KEPT_NS_MIN: Final = 10 * NS_PER_S
"""... and how long even when there are more than the next figure: twice the longest request deadline."""
CLOSED_KEPT_MAX = 1_000_000  # tests set it, so it is not Final
ID_CHUNK_BITS: Final = 10
# Bounds what one command pays for forgetting; higher than what most commands can add.
_FORGET_PER_COMMAND: Final = 8
_NO_ORDER: Final = Order()


def _names() -> dict[str, Order]:
    """Return a table for names that keeps their hashes.

    NOTE: Python's tables do not, as long as no key was anything but a string: then each collision fetches a name from
    memory that is another one's. Where there are a million that is 130 ns of each look-up.
    """
    names: dict[Any, Order] = {None: _NO_ORDER}
    del names[None]
    return names


class RememberedOrders:
    """Orders by name, and the closed ones in the order of closing."""

    __slots__ = ("by_client_id", "by_id", "closed")

    def __init__(self) -> None:
        self.by_client_id: defaultdict[int, dict[str, Order]] = defaultdict(_names)
        """By account, then client order id: open, closed and refused orders, oldest first."""
        self.by_id: defaultdict[int, dict[int, Order]] = defaultdict(dict)
        """By order id, in chunks of 1,024 ids: open and closed orders; a refused one has no order id.

        In one table of a million orders, the one order that makes it grow would wait for 100 ms.
        """
        self.closed: deque[Order] = deque()

    def add(self, order: Order) -> None:
        """Enter an order under its names."""
        self.by_client_id[order.account][order.request.client_order_id] = order
        if order.is_named_by_id:
            order_id = order.order_id
            self.by_id[order_id >> ID_CHUNK_BITS][order_id] = order

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
            del self.by_client_id[order.account][order.request.client_order_id]
            if order.is_named_by_id:
                chunk = self.by_id[order.order_id >> ID_CHUNK_BITS]
                del chunk[order.order_id]
                if not chunk:
                    del self.by_id[order.order_id >> ID_CHUNK_BITS]

    def forget_name(self, order: Order) -> None:
        """Let the name of an order that never was in a book be used again."""
        del self.by_client_id[order.account][order.request.client_order_id]

    def with_id(self, order_id: int) -> Order | None:
        """Return the order with an id, whosever it is."""
        chunk = self.by_id.get(order_id >> ID_CHUNK_BITS)
        return chunk.get(order_id) if chunk is not None else None

    def find(self, account: int, symbol: str, client_order_id: str, order_id: int) -> Order | None:
        """Return an order of the account by client order id or else order id."""
        if client_order_id:
            order = self.by_client_id.get(account, {}).get(client_order_id)
        else:
            order = self.with_id(order_id)
        return order if order is not None and order.account == account and order.request.instrument == symbol else None
