"""The engine's enumerations; the numbers are those of `protos/exchange/v1/types.proto`.

A test holds the two side by side. Commands carry plain integers, as they come off the wire; each is checked by the
machine before it means anything.
"""

from enum import IntEnum


class Side(IntEnum):
    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    LIMIT = 1
    MARKET = 2


class TimeInForce(IntEnum):
    DEFAULT = 0
    GTC = 1
    IOC = 2
    FOK = 3
    GTD = 4


class SelfTradePrevention(IntEnum):
    DEFAULT = 0
    CANCEL_MAKER = 1
    CANCEL_TAKER = 2
    CANCEL_BOTH = 3


class OrderStatus(IntEnum):
    NONE = 0
    OPEN = 1
    FILLED = 2
    CANCELLED = 3
    REJECTED = 4
    PENDING_FUNDS = 5


class CloseReason(IntEnum):
    NONE = 0
    REQUESTED = 1
    NOT_FILLED = 2
    SELF_TRADE = 3
    EXPIRED = 4
    DEAD_MANS_SWITCH = 5
    DISCONNECTED = 6
    AMEND_FAILED = 7
    OPERATOR = 8


class Stage(IntEnum):
    REPLAYING = 1
    CANCEL_ONLY = 2
    POST_ONLY = 3
    LIMITED = 4
    OPEN = 5
    HALTED = 6


class RejectReason(IntEnum):
    NONE = 0

    MALFORMED = 100
    CLIENT_ORDER_ID_INVALID = 101
    SIDE_INVALID = 102
    ORDER_TYPE_INVALID = 103
    TIME_IN_FORCE_INVALID = 104
    PRICE_INVALID = 105
    QUANTITY_INVALID = 106
    EXPIRE_TIME_INVALID = 107
    POST_ONLY_INVALID = 108
    SELF_TRADE_PREVENTION_INVALID = 109
    CLIENT_ORDER_ID_REUSED = 110
    NOTHING_TO_AMEND = 111

    INSTRUMENT_UNKNOWN = 200
    PRICE_NOT_ON_TICK = 201
    QUANTITY_NOT_ON_LOT = 202
    QUANTITY_TOO_SMALL = 203
    QUANTITY_TOO_LARGE = 204
    PRICE_OUTSIDE_BAND = 205
    INSTRUMENT_EXISTS = 206
    INSTRUMENT_INVALID = 207

    TOO_MANY_OPEN_ORDERS = 300
    INSUFFICIENT_FUNDS = 301

    ORDER_UNKNOWN = 400
    ORDER_CLOSED = 401
    WOULD_TAKE = 402
    QUANTITY_BELOW_FILLED = 403
    ORDER_PENDING_FUNDS = 404

    STAGE_REPLAYING = 500
    STAGE_CANCEL_ONLY = 501
    STAGE_POST_ONLY = 502
    STAGE_LIMITED = 503
    STAGE_HALTED = 504

    DEADLINE_EXCEEDED = 600
    QUEUE_FULL = 601
    RATE_LIMITED = 602
    SHARD_UNAVAILABLE = 603
    JOURNAL_UNAVAILABLE = 604
    FUNDS_UNAVAILABLE = 605

    @property
    def is_passing(self) -> bool:
        """Whether it says something of the moment rather than of the order: the same order may be sent again."""
        return self >= RejectReason.STAGE_REPLAYING
