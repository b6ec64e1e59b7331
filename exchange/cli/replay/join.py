"""Putting together what the streams of an exchange tell of a replay. Pure: it is fed messages, and knows no connection.

A trade comes twice, to its maker and to its taker, on two streams that are not ordered with each other; the best prices
come on a third. Each stream alone is in order, and each message says the shard's sequence that it belongs to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import NamedTuple
from zlib import crc32

from exchange.cli.replay.mirror import OrderState, best_changes
from exchange.cli.replay.outcome import Best, TradeRow
from exchange.v1 import market_data_pb2, trading_pb2

_SIDES = (1, 2)
_EMPTY: Best = (0, 0, 0, 0)


class _Leg(NamedTuple):
    """One account's part in a trade."""

    sequence: int
    order: str
    price: int
    quantity: int


class Join:
    """What the streams have shown so far of one instrument that nobody else trades.

    `fault` says what is wrong with one of them, once something is; `check` what is wrong with all of them together.
    """

    def __init__(self, symbol: str) -> None:
        self.fault = ""
        self.best: list[tuple[int, Best]] = []
        self.cancelled: dict[int, int] = {}
        self.book_sequence = 0
        self._symbol = symbol
        self._executed = dict.fromkeys(_SIDES, 0)
        self._makers: dict[int, _Leg] = {}
        self._takers: dict[int, _Leg] = {}
        self._traded: list[int] = []  # sequences of trades, ascending: takers on one stream are, on two nearly so
        self._states: dict[int, list[OrderState]] = {side: [] for side in _SIDES}

    # ---------------------------------------------------------------- what comes in

    def add_executions(self, side: int, executions: Iterable[trading_pb2.Execution]) -> None:
        """Take a message of the execution stream of the account that enters `side`."""
        for execution in executions:
            if execution.instrument != self._symbol:
                continue
            sequence = execution.sequence
            if execution.type == trading_pb2.EXECUTION_TYPE_TRADE:
                self._add_trade(execution)
            elif execution.type == trading_pb2.EXECUTION_TYPE_CLOSED:
                self.cancelled[sequence] = execution.quantity - execution.filled_quantity
            self._executed[side] = max(self._executed[side], sequence)
            state = OrderState(sequence, side, execution.client_order_id, execution.price, execution.open_quantity)
            self._states[side].append(state)

    def _add_trade(self, execution: trading_pb2.Execution) -> None:
        is_maker = execution.liquidity == trading_pb2.LIQUIDITY_MAKER
        legs = self._makers if is_maker else self._takers
        if execution.trade_id in legs:
            self._note(f"trade {execution.trade_id} was reported twice to order {execution.client_order_id}")
        legs[execution.trade_id] = _Leg(
            execution.sequence, execution.client_order_id, execution.trade_price, execution.trade_quantity
        )
        if not is_maker and (not self._traded or self._traded[-1] != execution.sequence):
            at = bisect_right(self._traded, execution.sequence)
            if not at or self._traded[at - 1] != execution.sequence:
                self._traded.insert(at, execution.sequence)

    def add_book(self, updates: Iterable[market_data_pb2.OrderBookUpdate]) -> None:
        """Take a message of the order book stream of depth 1."""
        for update in updates:
            before = self.best[-1][1] if self.best and not update.snapshot else _EMPTY
            if not update.snapshot and update.previous_sequence != self.book_sequence:
                self._note(f"order book: expected a change after {self.book_sequence}, was {update.previous_sequence}")
            best = (*_first(update.bids, before[:2]), *_first(update.asks, before[2:]))
            if checksum(best) != update.checksum:
                self._note(f"order book: checksum differs at {update.sequence}")
            self.book_sequence = update.sequence
            self.best.append((update.sequence, best))

    def _note(self, fault: str) -> None:
        self.fault = self.fault or fault

    # ---------------------------------------------------------------- what is known

    def has_reached(self, sequence: int) -> bool:
        """Whether the streams are so far: executions to `sequence`, the book to the last trade that is known before it.

        Every trade changes a best price. Other commands may not, so that the book stream need not speak of them.
        """
        if max(self._executed.values()) < sequence:
            return False
        at = bisect_right(self._traded, sequence)
        return not at or self.book_sequence >= self._traded[at - 1] or bool(self.fault)

    def is_complete(self, last_sequences: Mapping[int, int], trades: int) -> bool:
        """Whether all executions are here: of each side to its last sequence, and both legs of so many trades."""
        behind = any(self._executed[side] < sequence for side, sequence in last_sequences.items())
        return not behind and len(self._makers) >= trades <= len(self._takers)

    def trades(self) -> list[TradeRow]:
        """Return the trades in the order of execution, joined from their legs."""
        rows = []
        for trade_id, maker in sorted(self._makers.items()):
            taker = self._takers.get(trade_id)
            if taker is not None:
                rows.append(TradeRow(taker.sequence, taker.order, maker.order, maker.price, maker.quantity))
        return rows

    def check(self, end: int) -> str:
        """Return what is wrong with all that came before the sequence `end`, once it is here; "" if nothing is."""
        return self.fault or self._check_trades() or self._check_book(end)

    def _check_trades(self) -> str:
        if self._makers.keys() != self._takers.keys():
            lone = min(self._makers.keys() ^ self._takers.keys())
            return f"trade {lone} was reported to only one of its two orders"
        for count, (trade_id, maker) in enumerate(sorted(self._makers.items()), 1):
            taker = self._takers[trade_id]
            if trade_id != count:
                return f"trade {count} is missing: the next one is {trade_id}"
            if (maker.sequence, *maker[2:]) != (taker.sequence, *taker[2:]):
                return f"trade {trade_id} differs: {maker} for the maker, {taker} for the taker"
        return ""

    def _check_book(self, end: int) -> str:
        """Hold the stream's best prices against those that follow from the executions, command by command."""
        expected = [change for change in best_changes(*self._states.values()) if change[0] < end]
        shown: list[tuple[int, Best]] = []
        for sequence, best in self.best:
            if sequence < end and best != (shown[-1][1] if shown else _EMPTY):
                shown.append((sequence, best))
        for wanted, found in zip_longest(expected, shown):
            if wanted == found:
                continue
            if found is None or (wanted is not None and found[0] > wanted[0]):
                return f"order book: the change at {wanted[0]} was merged into a later one: this reader was too slow"
            return f"order book: expected {wanted or 'no more changes'}, was {found}"
        return ""


def checksum(best: Best) -> int:
    """Return the CRC-32 of a book of depth 1, as `market_data.proto` defines it."""
    bid, bid_quantity, ask, ask_quantity = best
    parts = [f"{bid}:{bid_quantity}"] if bid_quantity else []
    if ask_quantity:
        parts.append(f"{ask}:{ask_quantity}")
    return crc32(":".join(parts).encode())


def _first(levels: Iterable[market_data_pb2.PriceLevel], before: tuple[int, int]) -> tuple[int, int]:
    """Return the best level of a side after changes to it at depth 1; `before` if there are none."""
    quantities = {level.price: level.quantity for level in levels}
    if not quantities:
        return before
    return next(((price, quantity) for price, quantity in quantities.items() if quantity), (0, 0))
