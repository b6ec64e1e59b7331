"""Cancelling many orders at once: on request, at the end of a session, or when their time has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.engine import parking
from exchange.engine.commands import CancelAll, CancelAllAfter, CancelSessions
from exchange.engine.events import Result
from exchange.engine.timers import TimerKind
from exchange.engine.words import CloseReason, RejectReason, Side

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

_ANY_SESSION: Final = (0, 1 << 64)


def cancel_all(shard: Shard, command: CancelAll) -> Result:
    """Cancel the open orders of an account, in one instrument or all, on one side or both.

    In all: but for instruments whose own stage lets no cancel through.
    """
    stages = shard.stages
    refused = 0 if stages.is_open else stages.refuses_cancel(command.instrument)
    if refused:
        return shard.refuse("", refused)
    if command.instrument and command.instrument not in shard.books:
        return shard.refuse("", RejectReason.INSTRUMENT_UNKNOWN)
    if command.side not in (0, Side.BUY, Side.SELL):
        return shard.refuse("", RejectReason.SIDE_INVALID)
    symbols = [command.instrument]
    if not command.instrument and any(map(stages.refuses_cancel, stages.by_instrument)):
        symbols = [symbol for symbol in shard.books if not stages.refuses_cancel(symbol)]
    cancelled = 0
    for symbol in symbols:
        cancelled += _cancel_orders_of(shard, command.account, symbol, command.side, command.reason)
    return shard.done(cancelled_orders=cancelled)


def cancel_sessions(shard: Shard, command: CancelSessions) -> Result:
    """Cancel what some sessions placed."""
    cancelled = 0
    # In the order of their numbers: which of them came first, a restored shard could not tell.
    for session in sorted(s for s in shard.sessions if command.first <= s <= command.last):
        for order in list(shard.sessions[session].values()):
            shard.close(shard.books[order.request.instrument], order, int(CloseReason.DISCONNECTED))
            cancelled += 1
    sessions = max(command.first, 1), command.last
    cancelled += parking.cancel_where(shard, 0, "", 0, sessions, int(CloseReason.DISCONNECTED))
    return shard.done(cancelled_orders=cancelled)


def cancel_all_after(shard: Shard, command: CancelAllAfter) -> Result:
    """Arm or disarm the dead man's switch of an account."""
    shard.set_switch(command.account, command.trigger_time_ns)
    return shard.done()


def tick(shard: Shard) -> Result:
    """Let orders expire and switches fire that are due, the earliest first; then return money that lies idle.

    It ends early when a parked command is done after all.
    """
    cancelled = 0
    while due := shard.timers.due(shard.time_ns):
        for kind, account, order_id in due:
            if kind == TimerKind.PARKED:
                if parking.expire(shard, order_id):
                    # Its priority is the sequence, and no other may have the same. The next tick is due at once.
                    return shard.done(cancelled_orders=cancelled)
            elif kind == TimerKind.SWITCH:
                shard.set_switch(account, 0)
                cancelled += _cancel_orders_of(shard, account, "", 0, int(CloseReason.DEAD_MANS_SWITCH))
            else:
                order = shard.remembered.with_id(order_id)
                assert order is not None, "a timer outlived its order"
                shard.close(shard.books[order.request.instrument], order, int(CloseReason.EXPIRED))
                cancelled += 1
    for purse in shard.funds.idle_purses(shard.time_ns):
        parking.give_back(shard, purse, purse.available)
    return shard.done(cancelled_orders=cancelled)


def _cancel_orders_of(shard: Shard, account: int, symbol: str, side: int, reason: int) -> int:
    books = [shard.books[symbol]] if symbol else shard.books.values()
    cancelled = 0
    for book in books:
        for order in book.traders.get(account, ()):
            if not side or order.request.side == side:
                shard.close(book, order, reason)
                cancelled += 1
    return cancelled + parking.cancel_where(shard, account, symbol, side, _ANY_SESSION, reason)
