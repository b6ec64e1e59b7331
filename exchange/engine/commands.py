"""What a shard can be told to do.

Named tuples rather than dataclasses: they are made once per order on the hot path, and building a frozen dataclass
of this size costs five times as much. Enumerations travel as plain integers (see `words`).
"""

from typing import NamedTuple

from exchange.engine.channel import AnswerFunds, RecallFunds
from exchange.engine.instrument import Instrument


class PlaceOrder(NamedTuple):
    """Enter an order.

    `price` and `quantity` in units of the instrument's scales; `expire_time_ns` for GTD alone. `session` names the
    stream that the order lives and dies with, 0 for none; it is not part of the order's content.
    """

    account: int
    client_order_id: str
    instrument: str
    side: int
    type: int
    time_in_force: int
    price: int
    quantity: int
    post_only: bool = False
    self_trade_prevention: int = 0
    expire_time_ns: int = 0
    session: int = 0


class AmendOrder(NamedTuple):
    """Change price or size of an open order, named by `client_order_id` or else `order_id`; 0 leaves a value alone.

    `quantity` is the new total, filled part included; `open_quantity`, if given instead, what shall be open.
    """

    account: int
    instrument: str
    client_order_id: str
    order_id: int
    price: int
    quantity: int
    open_quantity: int = 0
    requeue: bool = False
    cancel_on_fail: bool = False


class CancelOrder(NamedTuple):
    """Cancel an open order, named by `client_order_id` or else `order_id`."""

    account: int
    instrument: str
    client_order_id: str
    order_id: int = 0


class CancelAll(NamedTuple):
    """Cancel the open orders of an account: of one instrument ("" all), of one side (0 both)."""

    account: int
    instrument: str = ""
    side: int = 0
    reason: int = 1


class CancelSessions(NamedTuple):
    """Cancel what the sessions `first <= session <= last` placed: their streams have ended."""

    first: int
    last: int


class CancelAllAfter(NamedTuple):
    """Arm the dead man's switch of an account at `trigger_time_ns`; 0 disarms it."""

    account: int
    trigger_time_ns: int


class Tick(NamedTuple):
    """Let timers fire that are due at the record's time."""


class SetStage(NamedTuple):
    """Move an instrument ("": all of the shard) to a stage; `orders_per_s` is the rate of new orders in `LIMITED`.

    Of the stages of an instrument and its shard both must let a command through. `next_stage_time_ns` tells people when
    the next stage is expected, 0 if nobody knows.
    """

    stage: int
    orders_per_s: int = 0
    reason: str = ""
    instrument: str = ""
    next_stage_time_ns: int = 0


class AddInstrument(NamedTuple):
    """Open a book. Adding the same instrument again changes nothing."""

    instrument: Instrument


Command = (
    PlaceOrder
    | AmendOrder
    | CancelOrder
    | CancelAll
    | CancelSessions
    | CancelAllAfter
    | Tick
    | SetStage
    | AddInstrument
    | AnswerFunds
    | RecallFunds
)
