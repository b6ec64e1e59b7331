"""The shard machine as hosts run it: what it does is the same, but it does not wait for memory order by order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

from exchange.engine.commands import AmendOrder, CancelOrder, Command, PlaceOrder
from exchange.engine.orders import Order
from exchange.engine.shard import Applied, Shard
from exchange.runtime.hashed_names import HashedNames

_COMMANDS_MIN: Final = 8
_CHUNKS_MIN = 1_024  # tests set it, so it is not Final
"""Fewer orders than these hold, some 50 MB, are in the processor's caches anyway."""


class HostedShard(Shard):
    """A shard that finds orders by `HashedNames`, and fetches what a batch needs before it does any of it."""

    def __init__(self) -> None:
        super().__init__(HashedNames)

    def apply(self, time_ns: int, batch: Sequence[Command]) -> Applied:
        if len(batch) >= _COMMANDS_MIN and len(self.remembered.chunks) >= _CHUNKS_MIN:
            self.fetch(batch)
        return super().apply(time_ns, batch)

    def fetch(self, batch: Sequence[Command]) -> int:
        """Have what a batch will need fetched from memory all at once, rather than one after the other as it is needed.

        A processor does not wait for memory until it has gone some 400 instructions further, so that what a short loop
        reads is on its way all at the same time (Chen and others, Improving Hash Join Performance through Prefetching,
        2004). Nothing is changed; what is returned says nothing, but lets no compiler leave out a read.
        """
        tables: list[HashedNames] = []
        hashes = vec[i64](capacity=i64(len(batch)))
        named = vec[i64](capacity=i64(len(batch)))
        """Where the names of orders are that must be there."""
        orders: list[Order] = []
        by_client_id = self.remembered.by_client_id
        for command in batch:
            if type(command) is PlaceOrder:
                table = by_client_id.get(command[0])
                if isinstance(table, HashedNames):
                    tables.append(table)
                    hashes = append(hashes, hash(command[1]))
            elif type(command) is CancelOrder or type(command) is AmendOrder:
                name = command[2]
                table = by_client_id.get(command[0])
                if isinstance(table, HashedNames) and name:
                    named = append(named, i64(len(tables)))
                    tables.append(table)
                    hashes = append(hashes, hash(name))
                elif not name:
                    order = self.remembered.with_id(command[3])
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
            level, trader, _before, _after = order.level, order.trader, order.previous, order.next
            if level is not None and trader is not None:
                _itself = trader.orders[order.own_place]
        return int(read)


new_shard: Final[Callable[[], Shard]] = Shard if hasattr(HostedShard.fetch, "__code__") else HostedShard
"""Without compiled modules Python's own tables are faster, and loops too long for anything to be fetched early."""
