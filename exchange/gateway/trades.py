"""The tape of an instrument: its last trades, candles, and the last 24 hours in one line. All of it bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

NS_PER_S: Final = 1_000_000_000
TRADES_KEPT: Final = 10_000
CANDLES_KEPT: Final = 1_500
DAY_NS: Final = 86_400 * NS_PER_S
MINUTE: Final = 2
INTERVALS_S: Final = {1: 1, MINUTE: 60, 3: 300, 4: 3_600, 5: 86_400}
"""CandleInterval to seconds; each a multiple of the first."""

# Makes a named tuple from a tuple of its fields at a third of the cost of calling its class.
_new: Final = tuple.__new__


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

    def then(self, later: CandleRow) -> CandleRow:
        """Return both as one candle that starts where this one does."""
        return CandleRow(
            self.start_time_ns,
            self.open,
            max(self.high, later.high),
            min(self.low, later.low),
            later.close,
            self.volume + later.volume,
            self.trades + later.trades,
        )


class Tape:
    """Trades in order. `watchers` are told of each.

    A trade touches the second at hand alone; when that is over, it is folded into the candles of every interval. An
    interval without a trade has no candle.
    """

    def __init__(self) -> None:
        self.trades: deque[TradeRow] = deque(maxlen=TRADES_KEPT)
        self.last_price = 0
        self.last_quantity = 0
        self.watchers: list[Callable[[TradeRow], None]] = []
        self._trade_id = 0
        self._candles: dict[int, deque[CandleRow]] = {i: deque(maxlen=CANDLES_KEPT) for i in INTERVALS_S}
        self._second = [0] * 7
        """The candle of the second at hand, whose last field is 0 if there is none."""
        self._second_ends_ns = 0
        self._day: tuple[tuple[int, int], CandleRow | None] = (0, 0), None
        """What `_past_day` found last, and for what."""

    def resume(self, last_price: int, trade_id: int) -> None:
        """Take the last price from a dump; trades before it that are not known here stay unknown."""
        if trade_id != self._trade_id:
            self.last_price, self.last_quantity, self._trade_id = last_price, 0, trade_id

    def add(self, trade_id: int, price: int, quantity: int, taker_side: int, sequence: int, time_ns: int) -> None:
        """Add a trade. One that is known already is passed over."""
        if trade_id <= self._trade_id:
            return
        self._trade_id = trade_id
        self.last_price, self.last_quantity = price, quantity
        trade = _new(TradeRow, (trade_id, price, quantity, taker_side, sequence, time_ns))
        self.trades.append(trade)
        second = self._second
        if time_ns < self._second_ends_ns:
            if price > second[2]:
                second[2] = price
            elif price < second[3]:
                second[3] = price
            second[4] = price
            second[5] += quantity
            second[6] += 1
        else:
            self._fold()
            start_ns = time_ns - time_ns % NS_PER_S
            self._second = [start_ns, price, price, price, price, quantity, 1]
            self._second_ends_ns = start_ns + NS_PER_S
        for watcher in self.watchers:
            watcher(trade)

    def candles(self, interval: int, limit: int) -> list[CandleRow]:
        """Return the newest candles of an interval (a CandleInterval), newest last."""
        self._fold()
        return list(self._candles[interval])[-limit:]

    def last_day(self, now_ns: int) -> CandleRow:
        """Return the last 24 hours as one candle, to the minute; all zero without a trade."""
        self._fold()
        since_ns = now_ns - DAY_NS
        minutes = self._candles[MINUTE]
        latest = minutes[-1] if minutes and minutes[-1].start_time_ns > since_ns else None
        past = self._past_day(since_ns)
        if past is not None and latest is not None:
            return past.then(latest)._replace(start_time_ns=since_ns)
        return (past or latest or CandleRow(0, 0, 0, 0, 0, 0, 0))._replace(start_time_ns=since_ns)

    def _past_day(self, since_ns: int) -> CandleRow | None:
        """Return the minutes after a time, all but the latest. Kept, so that it is worked out once a minute."""
        minutes = self._candles[MINUTE]
        minute_ns = INTERVALS_S[MINUTE] * NS_PER_S
        latest_ns = minutes[-1].start_time_ns if minutes else 0
        key = since_ns // minute_ns, latest_ns
        if self._day[0] != key:
            past: CandleRow | None = None
            for candle in minutes:
                if since_ns < candle.start_time_ns < latest_ns:
                    past = candle if past is None else past.then(candle)
            self._day = key, past
        return self._day[1]

    def _fold(self) -> None:
        """Put the second at hand into the candles. What follows within that second starts a part of its own."""
        if not self._second[6]:
            return
        part = CandleRow(*self._second)
        for interval, seconds in INTERVALS_S.items():
            candles = self._candles[interval]
            start_ns = part.start_time_ns - part.start_time_ns % (seconds * NS_PER_S)
            if candles and candles[-1].start_time_ns == start_ns:
                candles[-1] = candles[-1].then(part)
            else:
                candles.append(part._replace(start_time_ns=start_ns))
        self._second = [0] * 7
        self._second_ends_ns = 0
