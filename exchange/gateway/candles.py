"""The tape of an instrument: its last trades, candles, and the last 24 hours in one line. All of it bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

NS_PER_S = 1_000_000_000
TRADES_KEPT = 10_000
CANDLES_KEPT = 1_500
DAY_MINUTES = 1_440
INTERVALS_S = {1: 1, 2: 60, 3: 300, 4: 3_600, 5: 86_400}
"""CandleInterval to seconds."""


class TradeRow(NamedTuple):
    trade_id: int
    price: int
    quantity: int
    taker_side: int
    sequence: int
    time_ns: int


class CandleRow(NamedTuple):
    start_time_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int


class Tape:
    """Trades in order. `watchers` are told of each."""

    def __init__(self) -> None:
        self.trades: deque[TradeRow] = deque(maxlen=TRADES_KEPT)
        self.last_price = 0
        self.last_quantity = 0
        self.watchers: list[Callable[[TradeRow], None]] = []
        self._candles: dict[int, deque[CandleRow]] = {i: deque(maxlen=CANDLES_KEPT) for i in INTERVALS_S}
        self._trade_id = 0

    def resume(self, last_price: int, trade_id: int) -> None:
        """Take the last price from a dump; the trades before it are not known here."""
        self.last_price, self._trade_id = last_price, trade_id

    def add(self, trade_id: int, price: int, quantity: int, taker_side: int, sequence: int, time_ns: int) -> None:
        """Add a trade. One that is known already is passed over."""
        if trade_id <= self._trade_id:
            return
        self._trade_id = trade_id
        self.last_price, self.last_quantity = price, quantity
        trade = TradeRow(trade_id, price, quantity, taker_side, sequence, time_ns)
        self.trades.append(trade)
        for interval, seconds in INTERVALS_S.items():
            candles = self._candles[interval]
            start_ns = time_ns - time_ns % (seconds * NS_PER_S)
            if candles and candles[-1].start_time_ns == start_ns:
                _, open_, high, low, _, volume, trades = candles[-1]
                candles[-1] = CandleRow(
                    start_ns,
                    open_,
                    max(high, price),
                    min(low, price),
                    price,
                    volume + quantity,
                    trades + 1,
                )
            else:
                candles.append(CandleRow(start_ns, price, price, price, price, quantity, 1))
        for watcher in self.watchers:
            watcher(trade)

    def candles(self, interval: int, limit: int) -> list[CandleRow]:
        """Return the newest candles of an interval, newest last."""
        return list(self._candles[interval])[-limit:]

    def last_day(self, now_ns: int) -> CandleRow:
        """Return the last 24 hours as one candle, to the minute; all zero without a trade."""
        since_ns = now_ns - DAY_MINUTES * 60 * NS_PER_S
        day = [candle for candle in self._candles[2] if candle.start_time_ns > since_ns]
        if not day:
            return CandleRow(since_ns, 0, 0, 0, 0, 0, 0)
        return CandleRow(
            since_ns,
            day[0].open,
            max(candle.high for candle in day),
            min(candle.low for candle in day),
            day[-1].close,
            sum(candle.volume for candle in day),
            sum(candle.trades for candle in day),
        )
