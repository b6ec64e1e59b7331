"""The tape says what a list of all trades would say, from bounded memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.gateway.trades import CANDLES_KEPT, DAY_NS, INTERVALS_S, NS_PER_S, TRADES_KEPT, CandleRow, Tape, TradeRow

MINUTE_NS = 60 * NS_PER_S
START_NS = 1_700_000_000 * NS_PER_S

# From several in one second to pauses of more than a day.
pauses = st.one_of(
    st.integers(0, NS_PER_S),
    st.integers(0, 10 * MINUTE_NS),
    st.integers(0, 30 * 60 * MINUTE_NS),
)
trades = st.lists(st.tuples(pauses, st.integers(1, 200), st.integers(1, 50), st.booleans()), max_size=60)


def candle_of(start_ns: int, rows: list[TradeRow]) -> CandleRow:
    prices = [row.price for row in rows]
    volume = sum(row.quantity for row in rows)
    return CandleRow(start_ns, prices[0], max(prices), min(prices), prices[-1], volume, len(rows))


@given(trades)
@settings(max_examples=200, deadline=None)
def test_candles_and_the_last_day_are_those_of_all_trades(steps: list[tuple[int, int, int, bool]]) -> None:
    tape, rows, now_ns = Tape(), list[TradeRow](), START_NS
    for number, (pause_ns, price, quantity, looks) in enumerate(steps, 1):
        now_ns += pause_ns
        tape.add(number, price, quantity, 1 + number % 2, number * 10, now_ns)
        rows.append(TradeRow(number, price, quantity, 1 + number % 2, number * 10, now_ns))
        if looks:
            # Reading in the middle of a second must not split its candles.
            tape.last_day(now_ns)
            tape.candles(1, 1)
    assert list(tape.trades) == rows
    for interval, seconds in INTERVALS_S.items():
        by_start: dict[int, list[TradeRow]] = {}
        for row in rows:
            by_start.setdefault(row.time_ns - row.time_ns % (seconds * NS_PER_S), []).append(row)
        assert tape.candles(interval, 1_000) == [candle_of(start, group) for start, group in by_start.items()]
    for later_ns in (0, MINUTE_NS, DAY_NS // 2, DAY_NS, 2 * DAY_NS):
        since_ns = now_ns + later_ns - DAY_NS
        day = [row for row in rows if row.time_ns - row.time_ns % MINUTE_NS > since_ns]
        expected = candle_of(since_ns, day) if day else CandleRow(since_ns, 0, 0, 0, 0, 0, 0)
        assert tape.last_day(now_ns + later_ns) == expected


def test_all_of_it_is_bounded() -> None:
    tape = Tape()
    for number in range(1, TRADES_KEPT + 2_001):
        tape.add(number, 100, 1, 1, number, START_NS + number * MINUTE_NS)
    assert [len(tape.trades), tape.trades[0].trade_id] == [TRADES_KEPT, 2_001]
    assert all(len(tape.candles(interval, 10**6)) <= CANDLES_KEPT for interval in INTERVALS_S)
    assert tape.last_day(START_NS + (TRADES_KEPT + 2_000) * MINUTE_NS).trades == 24 * 60


def test_a_limit_gives_the_newest_candles_newest_last() -> None:
    tape = Tape()
    for number in range(1, 6):
        tape.add(number, 100 + number, 1, 1, number, START_NS + number * NS_PER_S)
    assert [candle.open for candle in tape.candles(1, 2)] == [104, 105]


def test_a_trade_that_is_known_already_is_passed_over() -> None:
    tape = Tape()
    seen: list[int] = []
    tape.watchers.append(lambda row: seen.append(row.trade_id))
    for trade_id in (1, 2, 2, 1, 3):
        tape.add(trade_id, 100, 1, 1, trade_id, START_NS)
    assert seen == [1, 2, 3]
    assert tape.candles(1, 10)[0].trades == 3


def test_after_a_dump_the_last_price_is_known_and_older_trades_are_passed_over() -> None:
    tape = Tape()
    tape.add(1, 90, 4, 1, 1, START_NS)
    tape.resume(90, 1)
    assert (tape.last_price, tape.last_quantity) == (90, 4), "nothing was missed"
    tape.resume(120, 7)
    assert (tape.last_price, tape.last_quantity) == (120, 0)
    tape.add(7, 1, 1, 1, 7, START_NS)
    assert tape.last_price == 120
    tape.add(8, 121, 1, 1, 8, START_NS)
    assert (tape.last_price, len(tape.trades)) == (121, 2)


def test_a_minute_leaves_the_last_day_exactly_24_hours_after_it_began() -> None:
    tape = Tape()
    start_ns = START_NS - START_NS % MINUTE_NS
    for number in range(1, 4):
        tape.add(number, 100, 1, 1, number, start_ns + number * MINUTE_NS)
    assert tape.last_day(start_ns + DAY_NS + MINUTE_NS - 1).trades == 3
    assert tape.last_day(start_ns + DAY_NS + MINUTE_NS).trades == 2
