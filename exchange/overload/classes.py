"""What kind of work a command is: overload is met by class."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class WorkClass(IntEnum):
    """Most urgent first. `CONTROL` and `CANCELS` are never shed."""

    CONTROL = 0
    """Of the exchange itself."""
    CANCELS = 1
    PASSIVE = 2
    """What cannot trade at once: post-only orders, amends that keep the price."""
    ORDERS = 3
    QUERIES = 4

    @property
    def is_sheddable(self) -> bool:
        return self >= WorkClass.PASSIVE


class ShedReason(StrEnum):
    """Why the exchange refused what it could have done at another time."""

    QUEUE = "queue"
    """It would have waited longer than its class may."""
    DELAY = "delay"
    """Its class has been slow for a whole interval, and it had waited long."""
    BREAKER = "breaker"
    """The shard refuses nearly everything."""
    DEADLINE = "deadline"
    """It would not have been done by its deadline, or was not."""
    MEMORY = "memory"
    """The last bound, whatever the class."""
    RATE = "rate"
    """The account's own limit."""
    AWAY = "away"
    """The shard has no host."""
