"""What a shard tells the world, in order: enough for a reader to keep its own copy of every open order.

Each event starts with its kind and the sequence of the command that caused it. A shard makes events as bare tuples, as
a feed carries them: that takes a third of the time of making their classes; `event_of` gives a row its class. A
command's events stand together. An accepted order that is neither filled by the trades that follow nor closed rests in
the book from then on, behind all others at its price; so does an amended order that lost its place.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from exchange.engine.instrument import Instrument


class EventKind(IntEnum):
    ACCEPTED = 1
    TRADED = 2
    CLOSED = 3
    AMENDED = 4
    STAGE = 5
    INSTRUMENT = 6
    ESCROW = 7
    RESOLVED = 8


class OrderAccepted(NamedTuple):
    """A new order: its id is the sequence of its command."""

    kind: int
    sequence: int
    instrument: str
    order_id: int
    account: int
    client_order_id: str
    side: int
    price: int
    quantity: int


class OrderTraded(NamedTuple):
    """One maker and one taker, at the maker's price. `trade_id` counts 1, 2, 3 ... in the instrument.

    Fees in units of the quote asset; a negative one was paid to the maker.
    """

    kind: int
    sequence: int
    instrument: str
    trade_id: int
    maker_order_id: int
    taker_order_id: int
    price: int
    quantity: int
    maker_fee: int
    taker_fee: int


class OrderClosed(NamedTuple):
    """Closed with `quantity` left unfilled. An order that is filled says so by its trades."""

    kind: int
    sequence: int
    instrument: str
    order_id: int
    reason: int
    quantity: int


class OrderAmended(NamedTuple):
    """New price and total size; with `kept_place` false the order leaves its place before it trades or rests."""

    kind: int
    sequence: int
    instrument: str
    order_id: int
    price: int
    quantity: int
    open_quantity: int
    kept_place: bool


class StageChanged(NamedTuple):
    """An instrument's stage ("": the whole shard's), as it is from now on; see `StageRow`."""

    kind: int
    sequence: int
    instrument: str
    stage: int
    orders_per_s: int
    reason: str
    since_ns: int
    next_stage_time_ns: int


class InstrumentAdded(NamedTuple):
    kind: int
    sequence: int
    instrument: Instrument


class EscrowChanged(NamedTuple):
    """An account's escrow got more (`change` > 0) from the ledger, or less: with the message `n` to the ledger."""

    kind: int
    sequence: int
    account: int
    asset: str
    change: int
    n: int


class ParkedResolved(NamedTuple):
    """What became of a command that waited for money, `parked_sequence`; the rest is as in its `Result`.

    An order of which this says neither OPEN nor FILLED, and of which nothing was said before, never was in a book.
    """

    kind: int
    sequence: int
    instrument: str
    account: int
    parked_sequence: int
    client_order_id: str
    order_id: int
    status: int
    filled: int
    open: int
    reject_reason: int
    close_reason: int


Event = (
    OrderAccepted
    | OrderTraded
    | OrderClosed
    | OrderAmended
    | StageChanged
    | InstrumentAdded
    | EscrowChanged
    | ParkedResolved
)

EventRow = tuple[Any, ...]
"""An event as a bare tuple of its fields."""

_CLASSES: dict[int, Callable[[EventRow], Event]] = {
    EventKind.ACCEPTED: OrderAccepted._make,
    EventKind.TRADED: OrderTraded._make,
    EventKind.CLOSED: OrderClosed._make,
    EventKind.AMENDED: OrderAmended._make,
    EventKind.STAGE: StageChanged._make,
    EventKind.INSTRUMENT: InstrumentAdded._make,
    EventKind.ESCROW: EscrowChanged._make,
    EventKind.RESOLVED: ParkedResolved._make,
}


def event_of(row: EventRow) -> Event:
    """Return a row as an event with named fields."""
    return _CLASSES[row[0]](row)


class Result(NamedTuple):
    """The answer to one command. `reject_reason` 0: it was applied, or with the status PENDING_FUNDS will be answered
    by an event that names this `sequence`."""

    sequence: int
    client_order_id: str
    order_id: int
    status: int
    filled: int
    open: int
    reject_reason: int = 0
    close_reason: int = 0
    duplicate: bool = False
    cancelled_orders: int = 0
