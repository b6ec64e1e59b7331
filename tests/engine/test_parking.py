"""Commands that wait for money from the ledger: how they come to wait, how it ends, and what the ledger may say."""

from __future__ import annotations

from exchange.engine.commands import CancelAllAfter, Tick
from exchange.engine.words import OrderStatus
from tests.engine.market import BUY, START_NS, Market, S

PENDING = OrderStatus.PENDING_FUNDS


def test_a_switch_that_fires_when_an_order_has_waited_long_enough_cancels_it_once() -> None:
    market = Market(is_rich=False)
    assert market.place(1, "a", BUY, 100, 1).status == PENDING
    market.apply(CancelAllAfter(1, START_NS + S))
    market.time_ns += S
    assert market.apply(Tick()).cancelled_orders == 1
    assert market.shard.next_timer_ns() is None
