"""Orders expire and dead man's switches fire when a tick comes at their time, and not before."""

from __future__ import annotations

from exchange.engine.commands import AddInstrument, CancelAllAfter, Tick
from exchange.engine.events import OrderClosed
from exchange.engine.timers import Timer, Timers
from exchange.engine.words import CloseReason, OrderStatus
from tests.engine.market import BUY, GTD, INSTRUMENT, SELL, START_NS, Market, S


def reasons(market: Market) -> list[int]:
    return [event.reason for event in market.events if isinstance(event, OrderClosed)]


def test_an_order_expires_at_its_time() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 1, time_in_force=GTD, expire_time_ns=START_NS + 2 * S)
    market.place(1, "b", BUY, 100, 1, time_in_force=GTD, expire_time_ns=START_NS + 3 * S)
    assert market.shard.next_timer_ns() == START_NS + 2 * S
    market.time_ns = START_NS + 2 * S - 1
    assert market.apply(Tick()).cancelled_orders == 0
    market.time_ns += 1
    assert market.apply(Tick()).cancelled_orders == 1
    assert reasons(market) == [CloseReason.EXPIRED]
    assert market.bids() == [("b", 100, 1)]
    assert market.shard.next_timer_ns() == START_NS + 3 * S


def test_an_order_that_is_gone_leaves_no_timer() -> None:
    market = Market()
    for name, price in (("a", 100), ("b", 101)):
        market.place(1, name, BUY, price, 1, time_in_force=GTD, expire_time_ns=START_NS + S)
    market.place(2, "taker", SELL, 101, 1)
    market.cancel(1, "a")
    assert market.shard.next_timer_ns() is None


def test_an_expiring_order_that_never_rests_sets_no_timer() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 1)
    result = market.place(2, "b", SELL, 100, 1, time_in_force=GTD, expire_time_ns=START_NS + S)
    assert result.status == OrderStatus.FILLED
    assert market.shard.next_timer_ns() is None


def test_a_switch_cancels_everything_of_its_account_everywhere() -> None:
    market = Market()
    market.apply(AddInstrument(INSTRUMENT._replace(symbol="ETH-USDT")))
    market.place(1, "a", BUY, 100, 1)
    market.place(2, "other", BUY, 100, 1)
    market.symbol = "ETH-USDT"
    market.place(1, "b", SELL, 100, 1)
    market.apply(CancelAllAfter(1, START_NS + S))
    market.time_ns += S
    assert market.apply(Tick()).cancelled_orders == 2
    assert reasons(market) == [CloseReason.DEAD_MANS_SWITCH] * 2
    assert market.shard.next_timer_ns() is None
    # It fires once: the account may trade again.
    market.place(1, "c", BUY, 90, 1)
    market.time_ns += S
    assert market.apply(Tick()).cancelled_orders == 0


def test_a_switch_that_is_set_again_fires_at_its_new_time_alone() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 1)
    for n in range(1, 1_000):
        market.shard.apply(market.time_ns, [CancelAllAfter(1, START_NS + n * S)])
    assert market.shard.next_timer_ns() == START_NS + 999 * S
    market.apply(CancelAllAfter(1, START_NS + 2 * S))
    assert market.shard.next_timer_ns() == START_NS + 2 * S


def test_a_switch_can_be_disarmed() -> None:
    market = Market()
    market.apply(CancelAllAfter(1, START_NS + S))
    market.apply(CancelAllAfter(1, 0))
    market.apply(CancelAllAfter(2, 0))
    assert market.shard.next_timer_ns() is None


def test_orders_and_switches_of_one_time_fire_in_a_fixed_order() -> None:
    market = Market()
    due_ns = START_NS + S
    for account, name in ((3, "a"), (1, "b"), (2, "c")):
        market.place(account, name, BUY, 100, 1, time_in_force=GTD, expire_time_ns=due_ns)
        market.place(account, name + "2", BUY, 100, 1)
        market.apply(CancelAllAfter(account, due_ns))
    market.time_ns = due_ns
    assert market.apply(Tick()).cancelled_orders == 6
    closed = [order.request.client_order_id for order in market.shard.closed]
    assert closed == ["b", "c", "a", "b2", "c2", "a2"]


def test_time_never_goes_back() -> None:
    market = Market()
    market.place(1, "a", BUY, 100, 1, time_in_force=GTD, expire_time_ns=START_NS + S)
    market.time_ns = START_NS + S
    market.place(2, "b", BUY, 90, 1)
    market.time_ns = START_NS
    assert market.apply(Tick()).cancelled_orders == 1
    assert market.shard.time_ns == START_NS + S


def test_timers_keep_nothing_of_what_was_called_off() -> None:
    timers = Timers()
    for n in range(10_000):
        timers.add(START_NS + n % 1_000, Timer(0, 1, n))
    for n in range(10_000):
        timers.remove(START_NS + n % 1_000, Timer(0, 1, n))
    assert len(timers) == 0
    assert timers.next_ns() is None
    assert timers.due(START_NS + 2_000) == []
