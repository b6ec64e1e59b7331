"""The machines' hosts as others see them: whatever stands behind, a Ray actor or a test's object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class PeerUnavailable(Exception):
    """The call failed; whether it took effect is unknown."""


class Peer(Protocol):
    """One incarnation of a host. Every call raises `PeerUnavailable` when the process is gone or out of reach."""

    @property
    def incarnation(self) -> int: ...

    async def submit(self, batch: bytes) -> bytes:
        """Journal and apply a packed LinkBatch; returns the packed replies."""
        ...

    async def feed(self, after_sequence: int, timeout_s: float) -> Sequence[bytes] | None:
        """Return packed FeedBatches after a sequence, waiting for some; None: start again from a dump."""
        ...

    async def dump(self) -> bytes:
        """Return the packed state that a reader of the feed starts with."""
        ...

    async def query(self, request: bytes) -> bytes:
        """Answer a packed question about the state."""
        ...
