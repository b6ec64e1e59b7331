"""What a shard and the ledger say to each other about money.

A shard numbers what it says: 1, 2, 3 ... for its whole life. It keeps each message until it has journaled the answer,
and whoever carries messages repeats them until then; the ledger keeps each answer until the shard says, with `low`,
that it has it. So each takes effect once on either side, however often it comes and in whatever order. Recalls go the
other way by the same rule: the ledger numbers them by shard and repeats each until a `ReturnFunds` names it.

Money moves at two places alone: from the ledger to a shard when the ledger grants, from a shard to the ledger when the
shard makes a `Return`. What is under way is the difference between what one side sent and the other received.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from exchange.engine.instrument import Instrument

HOUSE: Final = 1
"""The account that fees go to and rebates come from: the first one that the ledger makes, which is the operator's."""
AHEAD_SHARE: Final = 2
"""One part of so many of what is free beyond what is asked for goes along, for the orders to come."""


class AnswerStatus(IntEnum):
    WAITING = 0
    """The ledger has asked other shards to give back; the answer comes later."""
    GRANTED = 1
    DENIED = 2
    """The account has less than that."""
    UNAVAILABLE = 3
    """A shard that may have it did not say in time."""
    DONE = 4
    """A return has arrived."""


class Ask(NamedTuple):
    """Wants `amount`. With `is_urgent` an order waits for it; else it is for orders to come."""

    n: int
    account: int
    asset: str
    amount: int
    is_urgent: bool


class Return(NamedTuple):
    """Gives `amount` back, of its own accord or as the answer to `recall` (else 0)."""

    n: int
    account: int
    asset: str
    amount: int
    recall: int


Message = Ask | Return


class FundsAnswer(NamedTuple):
    """The ledger's answer to message `n`."""

    n: int
    status: int
    amount: int


class AskFunds(NamedTuple):
    """To the ledger: an `Ask` of a shard, which has the answers to all messages below `low`."""

    shard: str
    low: int
    n: int
    account: int
    asset: str
    amount: int
    is_urgent: bool


class ReturnFunds(NamedTuple):
    """To the ledger: a `Return` of a shard, which has the answers to all messages below `low`."""

    shard: str
    low: int
    n: int
    account: int
    asset: str
    amount: int
    recall: int


class AnswerFunds(NamedTuple):
    """To a shard: the answer to its message `n`."""

    n: int
    status: int
    amount: int


class RecallFunds(NamedTuple):
    """To a shard: give back `amount` and a part of what is free beyond. All recalls below `low` are settled."""

    m: int
    low: int
    account: int
    asset: str
    amount: int


class Seen:
    """Which numbers were seen, when all below `low` need not be told apart any longer."""

    __slots__ = ("low", "numbers")

    def __init__(self, low: int = 1, numbers: list[int] | None = None) -> None:
        self.low = low
        self.numbers: dict[int, None] = dict.fromkeys(numbers or [])

    def __contains__(self, number: int) -> bool:
        return number < self.low or number in self.numbers

    def add(self, number: int) -> None:
        self.numbers[number] = None

    def advance(self, low: int) -> None:
        """Forget the numbers below `low`; one that is lower than before is of an old message."""
        if low > self.low:
            self.low = low
            for number in [n for n in self.numbers if n < low]:
                del self.numbers[number]


def quote_terms(instrument: Instrument) -> tuple[int, int]:
    """Return multiplier and divisor that turn price x quantity into units of the quote asset."""
    digits = instrument.quote_scale - instrument.price_scale - instrument.quantity_scale
    return (10**digits, 1) if digits >= 0 else (1, 10**-digits)


def base_unit(instrument: Instrument) -> int:
    """Return how many units of the base asset a quantity of 1 is."""
    scale = instrument.quantity_scale if instrument.base_scale is None else instrument.base_scale
    return int(10 ** (scale - instrument.quantity_scale))
