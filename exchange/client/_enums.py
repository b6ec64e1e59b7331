"""The words of the protocol as Python enums: the same numbers, the names without their prefix."""

from enum import IntEnum


class _ProtocolEnum(IntEnum):
    """An enum that outlives its exchange: a number that a newer exchange sends is kept, not an error."""

    @classmethod
    def _missing_(cls, value: object) -> "_ProtocolEnum | None":
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNRECOGNISED_{value}"
        member._value_ = value
        return member


class Side(_ProtocolEnum):
    UNSPECIFIED = 0
    BUY = 1
    SELL = 2


class OrderType(_ProtocolEnum):
    UNSPECIFIED = 0
    LIMIT = 1
    MARKET = 2
    """Takes what the book holds up to the edge of the price band, and never rests."""


class TimeInForce(_ProtocolEnum):
    UNSPECIFIED = 0
    """GTC for a limit order, IOC for a market order."""
    GTC = 1
    """Good till cancelled."""
    IOC = 2
    """Immediate or cancel: what does not trade at once is cancelled."""
    FOK = 3
    """Fill or kill: trades whole at once, or not at all."""
    GTD = 4
    """Good till the order's `expire_time`."""


class SelfTradePrevention(_ProtocolEnum):
    """What happens when an order would trade with another one of its own account."""

    UNSPECIFIED = 0
    """Cancel the maker."""
    CANCEL_MAKER = 1
    CANCEL_TAKER = 2
    CANCEL_BOTH = 3


class OrderStatus(_ProtocolEnum):
    UNSPECIFIED = 0
    OPEN = 1
    FILLED = 2
    CANCELLED = 3
    REJECTED = 4
    PENDING_FUNDS = 5
    """Waits for money that is not in its market yet; in no book so far. Executions and `get_order` tell what becomes
    of it, within a second as a rule."""


class CloseReason(_ProtocolEnum):
    """Why an order was closed before it was filled."""

    UNSPECIFIED = 0
    REQUESTED = 1
    NOT_FILLED = 2
    SELF_TRADE = 3
    EXPIRED = 4
    DEAD_MANS_SWITCH = 5
    DISCONNECTED = 6
    AMEND_FAILED = 7
    OPERATOR = 8


class RejectReason(_ProtocolEnum):
    """Why a command was refused, banded by who refuses.

    1xx the order itself, 2xx the instrument's rules, 3xx the account, 4xx the state of the book,
    5xx the stage of the shard, 6xx load and availability.
    """

    UNSPECIFIED = 0

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
    def passes(self) -> bool:
        """Whether it speaks of the moment (stage, load, availability) rather than of the command."""
        return self >= 500


class Stage(_ProtocolEnum):
    """What a shard lets through."""

    UNSPECIFIED = 0
    REPLAYING = 1
    CANCEL_ONLY = 2
    POST_ONLY = 3
    LIMITED = 4
    OPEN = 5
    HALTED = 6


class Outcome(_ProtocolEnum):
    """What a client learns of a command."""

    UNSPECIFIED = 0
    ACKNOWLEDGED = 1
    """Durable and applied; the rest of the result says what became of it."""
    REJECTED = 2
    """Surely not executed, and never will be."""
    UNKNOWN = 3
    """May or may not have been executed: send it again with the same id, or ask with `get_order`."""


class ExecutionType(_ProtocolEnum):
    UNSPECIFIED = 0
    NEW = 1
    TRADE = 2
    AMENDED = 3
    CLOSED = 4


class Liquidity(_ProtocolEnum):
    UNSPECIFIED = 0
    MAKER = 1
    TAKER = 2


class CandleInterval(_ProtocolEnum):
    """The protocol's names start with a digit, which Python's cannot."""

    UNSPECIFIED = 0
    SECOND = 1
    MINUTE = 2
    FIVE_MINUTES = 3
    HOUR = 4
    DAY = 5


class EntryType(_ProtocolEnum):
    """How an account came by money, or lost it."""

    UNSPECIFIED = 0
    DEPOSIT = 1
    WITHDRAWAL = 2
    TRANSFER = 3


class BalanceChangeReason(_ProtocolEnum):
    """Why an account has more or less than before."""

    UNSPECIFIED = 0
    DEPOSIT = 1
    WITHDRAWAL = 2
    TRANSFER = 3
    TRADE = 4
    """What was bought or sold, and what was paid or received for it."""
    FEE = 5
    """Of a trade; a rebate is positive. What the house account gets of others' trades is of this kind, too."""


class Permission(_ProtocolEnum):
    UNSPECIFIED = 0
    READ = 1
    TRADE = 2
    TRANSFER = 3
    OPERATOR = 4


class AccountTier(_ProtocolEnum):
    """How many orders an account may send; the exchange's settings have the numbers."""

    UNSPECIFIED = 0
    STANDARD = 1
    MAKER = 2
    UNLIMITED = 3


class ComponentState(_ProtocolEnum):
    UNSPECIFIED = 0
    STARTING = 1
    UP = 2
    SUSPECT = 3
    DOWN = 4
    STOPPING = 5
    """Maintenance ends it."""
    PARKED = 6
    """It was lost too often, and is down until a person lets it go (`unpark`)."""


class StageAction(_ProtocolEnum):
    UNSPECIFIED = 0
    HOLD = 1
    RESUME = 2
    SKIP = 3


class Role(_ProtocolEnum):
    UNSPECIFIED = 0
    STANDBY = 1
    """Follows the journal, ready to take over."""
    PRIMARY = 2
    """Writes the journal."""
    RETIRED = 3
    """Has handed over, or another one has taken over."""


class RolloutState(_ProtocolEnum):
    """Of a version of the settings."""

    UNSPECIFIED = 0
    ROLLING = 1
    APPLIED = 2
    REVERTED = 3
    """It was taken back; `detail` says why."""


class MaintenanceKind(_ProtocolEnum):
    UNSPECIFIED = 0
    RESTART = 1
    """Processes are replaced, one at a time."""
    DRAIN = 2
    """Everything is moved off a node, and nothing is started there."""
    UNDRAIN = 3


class MaintenanceState(_ProtocolEnum):
    """Of the whole, and of each step."""

    UNSPECIFIED = 0
    WAITING = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    """It stopped there; `detail` says why."""
    UNFINISHED = 5
    """The supervisor was replaced meanwhile."""


class MaintenanceAction(_ProtocolEnum):
    UNSPECIFIED = 0
    RESTART = 1
    HAND_OVER = 2
    """The standby becomes the primary, and another standby is started."""
    RESTART_STANDBY_SUPERVISOR = 3
    RESTART_ACTIVE_SUPERVISOR = 4
