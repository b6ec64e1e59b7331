"""How a message gets to a subscriber. A channel says whether trying again makes sense."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from status.announce.messages import Message


class Refused(Exception):
    """The channel will never take this message: a wrong token, a chat that is not there."""

    code = "ANNOUNCEMENT_REFUSED"


class NotDelivered(Exception):
    """It was not taken now. `retry_after_s`: when the channel wants to be asked again; None: it does not say."""

    code = "ANNOUNCEMENT_NOT_DELIVERED"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Delivery(NamedTuple):
    """One thing to be said to one subscriber. `id` is the same however often it is tried."""

    id: str
    message: Message
    reference: str
    """What the channel called the first message of this subject; empty: there was none."""


class Channel(Protocol):
    """Of one subscriber."""

    async def deliver(self, delivery: Delivery) -> str:
        """Say it, and return how what was said first is referred to. Raises `Refused`, `NotDelivered`."""
        ...

    async def close(self) -> None: ...
