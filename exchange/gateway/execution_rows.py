"""Executions as rows: what a shard's events say of each order in them.

NOTE: few executions are ever read, so a copy of a shard notes beside the events only what they do not say themselves,
and rows are made from the two when somebody asks. Making them all at once took a fifth of a gateway's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from exchange.engine.channel import HOUSE
from exchange.engine.events import EventKind
from exchange.engine.words import OrderStatus
from exchange.runtime.feed import EventRow, FeedBatch, unpack_batch
from exchange.runtime.messages import pack, unpack

_ACCEPTED: Final = int(EventKind.ACCEPTED)
_TRADED: Final = int(EventKind.TRADED)
_CLOSED: Final = int(EventKind.CLOSED)
_AMENDED: Final = int(EventKind.AMENDED)
_OF_ORDERS: Final = frozenset((_ACCEPTED, _TRADED, _CLOSED, _AMENDED))
_OPEN: Final = int(OrderStatus.OPEN)
_FILLED: Final = int(OrderStatus.FILLED)
_CANCELLED: Final = int(OrderStatus.CANCELLED)
_NEW: Final = 1
_TRADE: Final = 2
_AMEND: Final = 3
_CLOSE: Final = 4
OF_ORDERS: Final = frozenset((_NEW, _TRADE, _AMEND, _CLOSE))
"""Types of executions that the owner of the order is told."""
FEES: Final = 100
"""Type of a row that no client sees as an execution: what a trade brought the house."""
OF_MONEY: Final = frozenset((_TRADE, FEES))
"""Types that change what an account has."""
_MAKER: Final = 1
_TAKER: Final = 2
_NO_TRADE: Final = (0, 0, 0)

Execution = tuple[Any, ...]
"""(sequence, account, type, instrument, client order id, order id, side, status, price, quantity, filled, open,
close reason, trade id, trade price, trade quantity, liquidity, time in ns, fee in units of the quote asset), numbers
as in `trading.proto`."""


class ExecutionBatch:
    """The executions of a batch of the feed, some of whose events are of orders; `notes` has an item

    - for each trade: (terms of the taker, open quantity of the taker, terms of the maker, open quantity of the maker),
    - for each order closed, its terms; for each amended, its new ones.

    Terms are those that a row of `OrderAccepted` has. `data` is the batch as it came, empty if that is not there.
    """

    __slots__ = ("batch", "data", "notes")

    def __init__(self, batch: FeedBatch, data: bytes, notes: Sequence[Any]) -> None:
        self.batch = batch
        self.data = data
        self.notes = notes

    def packed(self) -> PackedExecutions:
        """Return the same in one piece, to be kept."""
        events = self.batch.events
        last_sequence: int = next(row[1] for row in reversed(events) if row[0] in _OF_ORDERS)
        return PackedExecutions(self.data or pack(self.batch), pack(self.notes), len(events), last_sequence)

    def rows(self) -> Iterator[Execution]:
        """Yield the executions in order; of a trade the taker's first, and at last what the house gets of it."""
        notes = iter(self.notes)
        time_ns = self.batch.time_ns
        for event in self.batch.events:
            kind, sequence = event[0], event[1]
            if kind == _ACCEPTED:
                yield _row(sequence, event, _NEW, _OPEN, event[-1], time_ns)
            elif kind == _TRADED:
                taker, taker_open, maker, maker_open = next(notes)
                maker_fee, taker_fee = event[8], event[9]
                trade = event[3], event[6], event[7]
                taker_status, maker_status = (_OPEN if left else _FILLED for left in (taker_open, maker_open))
                yield _row(sequence, taker, _TRADE, taker_status, taker_open, time_ns, taker_fee, trade, _TAKER)
                yield _row(sequence, maker, _TRADE, maker_status, maker_open, time_ns, maker_fee, trade, _MAKER)
                if maker_fee or taker_fee:
                    house = 0, sequence, event[2], 0, HOUSE, "", 0, 0, 0
                    yield _row(sequence, house, FEES, 0, 0, time_ns, -maker_fee - taker_fee, trade)
            elif kind == _CLOSED:
                reason, left = event[4], event[5]
                yield _row(sequence, next(notes), _CLOSE, _CANCELLED, left, time_ns, close_reason=reason)
            elif kind == _AMENDED:
                yield _row(sequence, next(notes), _AMEND, _OPEN, event[6], time_ns)


class PackedExecutions:
    """Executions that are kept: `events` counts those of their batch, `last_sequence` is that of the last execution.

    NOTE: hundreds of thousands are kept and few are read. As rows they were spread over all of the memory, and whatever
    was made in the place of the oldest was out of the cache: a gateway took half as long again for a command.
    """

    __slots__ = ("_data", "_notes", "events", "last_sequence")

    def __init__(self, data: bytes, notes: bytes, events: int, last_sequence: int) -> None:
        self._data = data
        self._notes = notes
        self.events = events
        self.last_sequence = last_sequence

    def rows(self) -> Iterator[Execution]:
        """Return what `ExecutionBatch.rows` does."""
        return ExecutionBatch(unpack_batch(self._data), self._data, unpack(self._notes)).rows()


def has_executions(events: Sequence[EventRow]) -> bool:
    """Whether any of the events is of an order."""
    return any(row[0] in _OF_ORDERS for row in events)


def _row(
    sequence: int,
    terms: EventRow,
    kind: int,
    status: int,
    left: int,
    time_ns: int,
    fee: int = 0,
    trade: tuple[int, int, int] = _NO_TRADE,
    liquidity: int = 0,
    *,
    close_reason: int = 0,
) -> Execution:
    _, _, symbol, order_id, account, client_order_id, side, price, quantity = terms
    return (
        sequence,
        account,
        kind,
        symbol,
        client_order_id,
        order_id,
        side,
        status,
        price,
        quantity,
        quantity - left,
        left if status == _OPEN else 0,
        close_reason,
        *trade,
        liquidity,
        time_ns,
        fee,
    )
