"""The best prices after each command, worked out from what the orders' own accounts were told.

It is what the order book stream is held against: a stream that is read too slowly merges changes, and what it then says
is true, but no longer of each command.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from exchange.cli.replay.outcome import Best
from exchange.engine.ladder import Ladder
from exchange.engine.words import Side


class OrderState(NamedTuple):
    """An order as one execution left it; `open_quantity` 0: it does not rest."""

    sequence: int
    side: int
    order: str
    price: int
    open_quantity: int


class _Side:
    """The levels of one side; `sign` 1 for bids, -1 for asks, so that the highest key is the best."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._quantities: dict[int, int] = {}
        self._ladder = Ladder()

    def add(self, price: int, quantity: int) -> None:
        """Add to what rests at a price; a negative quantity takes away."""
        if not quantity:
            return
        before = self._quantities.get(price, 0)
        after = self._quantities[price] = before + quantity
        if not before:
            self._ladder.add(price * self._sign)
        elif not after:
            del self._quantities[price]
            self._ladder.remove(price * self._sign)

    def best(self) -> tuple[int, int]:
        if not self._ladder:
            return 0, 0
        price = self._ladder.highest() * self._sign
        return price, self._quantities[price]


def best_changes(*streams: Iterable[OrderState]) -> list[tuple[int, Best]]:
    """Return the sequences at which the best prices of a book changed, and what they were from then on.

    The book starts empty. Each stream is in order; within a sequence the last word on an order counts.
    """
    bids, asks = _Side(1), _Side(-1)
    resting: dict[str, tuple[int, int]] = {}
    changes: list[tuple[int, Best]] = []
    best: Best = (0, 0, 0, 0)
    by_sequence = attrgetter("sequence")
    for sequence, states in groupby(merge(*streams, key=by_sequence), key=by_sequence):
        for order, state in {state.order: state for state in states}.items():
            side = bids if state.side == Side.BUY else asks
            price, quantity = resting.pop(order, (0, 0))
            side.add(price, -quantity)
            if state.open_quantity:
                side.add(state.price, state.open_quantity)
                resting[order] = state.price, state.open_quantity
        now: Best = (*bids.best(), *asks.best())
        if now != best:
            best = now
            changes.append((sequence, now))
    return changes
