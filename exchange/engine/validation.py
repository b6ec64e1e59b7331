"""What must hold of a shard between batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.engine.timers import Timer, TimerKind
from exchange.engine.words import Side, TimeInForce

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_BUY = int(Side.BUY)
_GTD = int(TimeInForce.GTD)
_EXPIRY, _SWITCH = int(TimerKind.EXPIRY), int(TimerKind.SWITCH)


def validate(shard: Shard) -> None:
    """Check books, names, timers, sessions and money; AssertionError says what does not hold."""
    open_orders = in_sessions = timers = 0
    for symbol, book in shard.books.items():
        assert book.instrument.symbol == symbol
        book.validate()
        for order in book.orders():
            request = order.request
            open_orders += 1
            named = shard.remembered.with_name(order.account, request.client_order_id)
            assert named is order, f"{order.describe()}: rests under a client order id that is not its own"
            assert shard.remembered.with_id(order.order_id) is order, f"{order.describe()}: not found by its id"
            if request.time_in_force == _GTD:
                timer = Timer(_EXPIRY, order.account, order.order_id)
                assert (request.expire_time_ns, timer) in shard.timers, f"{order.describe()}: never expires"
                timers += 1
            if request.session:
                assert shard.sessions[request.session][order.order_id] is order
                in_sessions += 1
    for trader in (t for book in shard.books.values() for t in book.traders.values()):
        wallet = shard.funds.wallets[trader.account]
        assert trader in wallet.traders, f"account {trader.account}: a book has another trader than the wallet"
    _validate_holds(shard)
    for account, due_ns in shard.switches.items():
        assert (due_ns, Timer(_SWITCH, account, 0)) in shard.timers, f"switch of account {account} has no timer"
    expected = timers + len(shard.switches) + len(shard.parked)
    assert len(shard.timers) == expected, "a timer is left that nothing needs"
    assert in_sessions == sum(map(len, shard.sessions.values()))
    known_orders, by_id = shard.remembered.counts()
    refused = sum(1 for order in shard.closed if not order.is_named_by_id)
    parked = sum(1 for p in shard.parked.values() if p.order is not None)
    assert known_orders == open_orders + parked + len(shard.closed), "an order is neither open nor closed, or both"
    assert known_orders == by_id + refused + parked, "an order is not found by its id"
    assert all(order.level is None for order in shard.closed)


def _validate_holds(shard: Shard) -> None:
    """Check that holds are what open orders and parked commands need, and that no money came or went."""
    shard.funds.validate()
    needed: dict[tuple[str, int], list[int]] = {}
    for symbol, book in shard.books.items():
        for account in book.traders:
            needed[symbol, account] = [0, 0]
        for order in book.orders():
            needed[symbol, order.account][order.request.side == _BUY] += book.hold_of(order)
    for parked in shard.parked.values():
        command = parked.command
        needed[command.instrument, command.account][parked.is_buy] += parked.part
    for symbol, book in shard.books.items():
        for account, trader in book.traders.items():
            held = [trader.base_held, trader.quote_held]
            need = needed[symbol, account]
            assert held == need, f"account {account}: {symbol} holds {held} (base, quote), its orders need {need}"
