"""Where boards come from, as far as the web is concerned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from status.model import Board

STALE_AFTER_S = 20.0
"""A board whose last look at the exchange is older says nothing about now; the page then says so."""


class Publisher(Protocol):
    def board(self) -> Board:
        """The latest. Its `checked_ns` may be newer than that of an earlier one of the same version."""

    def changes(self) -> AsyncIterator[Board]:
        """Each board whose version is new, from the latest on; a reader that is slow gets the newest only."""


def is_stale(board: Board, now_ns: int) -> bool:
    """Whether the last look is too old to speak of the present. A board without any look is empty, not stale."""
    return bool(board.checked_ns) and now_ns - board.checked_ns > STALE_AFTER_S * 1e9
