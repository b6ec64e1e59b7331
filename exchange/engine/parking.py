"""Commands that wait for money from the ledger, and what the ledger says to a shard.

A command that the account's free money cannot cover is parked: it binds what there is and asks the ledger for the rest.
With the answer it runs again as if it had just come, so it queues behind what came to rest meanwhile. What became of it
is told by an event (`ParkedResolved`), as its result said no more than PENDING_FUNDS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exchange.engine.channel import AHEAD_SHARE, AnswerFunds, AnswerStatus, Ask, RecallFunds
from exchange.engine.commands import AmendOrder, PlaceOrder
from exchange.engine.events import EscrowChanged, EventKind, ParkedResolved, Result
from exchange.engine.funds import DRY_NS, Purse, Trader
from exchange.engine.orders import Order, new_order
from exchange.engine.timers import Timer, TimerKind
from exchange.engine.words import OrderStatus, RejectReason, Side, TimeInForce

if TYPE_CHECKING:
    from exchange.engine.shard import Shard

PARKED_NS_MAX: Final = 1_000_000_000
"""How long a command waits for the ledger."""
PARKED_MAX = 10_000  # tests set it, so it is not Final
"""How many commands of a shard wait."""
_PARKED: Final = int(TimerKind.PARKED)
_PENDING: Final = int(OrderStatus.PENDING_FUNDS)
_BUY: Final = int(Side.BUY)
_REFUSALS: Final = {
    int(AnswerStatus.GRANTED): 0,
    int(AnswerStatus.DENIED): int(RejectReason.INSUFFICIENT_FUNDS),
    int(AnswerStatus.UNAVAILABLE): int(RejectReason.FUNDS_UNAVAILABLE),
}
_DENIED: Final = int(AnswerStatus.DENIED)
_ARRIVED: Final = (int(AnswerStatus.DONE),)


class Parked:
    """A command that waits. `order`: the one that it places, of an amend None.

    `part` of what it needs is bound, the message `n` asks for the rest. `refusal` (a RejectReason) is set when nothing
    more is to be had: then it has its last run.
    """

    __slots__ = ("command", "deadline_ns", "is_buy", "n", "order", "part", "refusal", "sequence", "trader")

    def __init__(
        self,
        sequence: int,
        command: PlaceOrder | AmendOrder,
        trader: Trader,
        is_buy: bool,
        deadline_ns: int,
    ) -> None:
        self.sequence = sequence
        self.command = command
        self.order: Order | None = None
        self.trader = trader
        self.is_buy = is_buy
        self.deadline_ns = deadline_ns
        self.part = 0
        self.n = 0
        self.refusal = 0

    @property
    def purse(self) -> Purse:
        return self.trader.quote if self.is_buy else self.trader.base

    def bind(self, part: int) -> None:
        """Bind more of the account's free money, or less (`part` < 0)."""
        self.part += part
        self.trader.bind(self.is_buy, part)


# ---------------------------------------------------------------- waiting


def place_later(shard: Shard, request: PlaceOrder, trader: Trader, need: int, parked: Parked | None) -> Result:
    """Park an order that needs more than there is, for the first time or again; or refuse it."""
    reason = _park(shard, request, trader, request.side == _BUY, need, parked)
    if reason == RejectReason.INSUFFICIENT_FUNDS:
        return shard.refuse_order(request, reason, parked)
    if reason:
        return shard.refuse(request.client_order_id, reason)
    waiting = parked or shard.parked[shard.sequence]
    if waiting.order is None:
        watched = request.session != 0 or request.time_in_force == TimeInForce.GTD
        order = new_order(shard.sequence, request, trader, request.price, request.quantity, shard.time_ns, watched)
        order.parked = True
        waiting.order = order
        shard.remembered.add(order)
    waiting.order.parked = True
    return Result(shard.sequence, request.client_order_id, 0, _PENDING, 0, request.quantity)


def amend_later(shard: Shard, command: AmendOrder, order: Order, need: int, parked: Parked | None) -> int:
    """Park an amend that needs more than there is; return 0, or a RejectReason why not."""
    trader = order.trader
    assert trader is not None
    return _park(shard, command, trader, order.request.side == _BUY, need, parked)


def _park(
    shard: Shard,
    command: PlaceOrder | AmendOrder,
    trader: Trader,
    is_buy: bool,
    need: int,
    parked: Parked | None,
) -> int:
    if parked is None:
        if len(shard.parked) >= PARKED_MAX:
            return RejectReason.FUNDS_UNAVAILABLE
        parked = Parked(shard.sequence, command, trader, is_buy, shard.time_ns + PARKED_NS_MAX)
        enter(shard, parked)
    elif parked.refusal:
        return parked.refusal
    purse = parked.purse
    parked.bind(purse.available)
    parked.n = shard.funds.ask(purse, need - parked.part, is_urgent=True)
    shard.parked_by_message[parked.n] = parked
    return 0


def enter(shard: Shard, parked: Parked) -> None:
    """Count a command among those that wait."""
    shard.parked[parked.sequence] = parked
    shard.timers.add(parked.deadline_ns, Timer(_PARKED, parked.trader.account, parked.sequence))


def _leave(shard: Shard, parked: Parked) -> None:
    del shard.parked[parked.sequence]
    shard.parked_by_message.pop(parked.n, None)
    shard.timers.remove(parked.deadline_ns, Timer(_PARKED, parked.trader.account, parked.sequence))


# ---------------------------------------------------------------- ends of waiting


def expire(shard: Shard, sequence: int) -> bool:
    """Let a command run for the last time that has waited long enough; return whether it was done after all."""
    parked = shard.parked.get(sequence)
    if parked is None:
        # A switch of the same time has cancelled it.
        return False
    parked.refusal = int(RejectReason.FUNDS_UNAVAILABLE)
    return not _run(shard, parked).reject_reason


def cancel(shard: Shard, order: Order, reason: int) -> Result:
    """Cancel an order that waits."""
    parked = shard.parked[order.order_id]
    parked.bind(-parked.part)
    _leave(shard, parked)
    order.parked = False
    order.close_reason = reason
    order.update_time_ns = shard.time_ns
    shard.remembered.add_id(order)
    shard.closed.append(order)
    result = shard.result_of(order)
    _tell(shard, parked, result)
    return result


def cancel_where(shard: Shard, account: int, symbol: str, side: int, sessions: tuple[int, int], reason: int) -> int:
    """Cancel orders that wait: of an account (0: any), of an instrument ("": any), of a side (0: both), of sessions."""
    first, last = sessions
    found = [
        parked.order
        for parked in shard.parked.values()
        if parked.order is not None
        and account in (0, parked.trader.account)
        and symbol in ("", parked.command.instrument)
        and side in (0, parked.order.request.side)
        and first <= parked.order.request.session <= last
    ]
    for order in found:
        cancel(shard, order, reason)
    return len(found)


def _run(shard: Shard, parked: Parked) -> Result:
    """Run a parked command once more; it ends, or waits for more."""
    parked.bind(-parked.part)
    order, command = parked.order, parked.command
    if order is not None:
        order.parked = False
    result = shard.place(command, parked) if isinstance(command, PlaceOrder) else shard.amend(command, parked)
    if result.status == _PENDING:
        return result
    _leave(shard, parked)
    if order is not None and result.reject_reason and RejectReason(result.reject_reason).is_passing:
        shard.remembered.forget_name(order)
    _tell(shard, parked, result)
    return result


def _tell(shard: Shard, parked: Parked, result: Result) -> None:
    command = parked.command
    row = ParkedResolved(
        int(EventKind.RESOLVED),
        shard.sequence,
        command.instrument,
        command.account,
        parked.sequence,
        result.client_order_id,
        result.order_id,
        result.status,
        result.filled,
        result.open,
        result.reject_reason,
        result.close_reason,
    )
    shard.events.append(row)


# ---------------------------------------------------------------- what the ledger says


def answer(shard: Shard, command: AnswerFunds) -> Result:
    """Take the ledger's answer to a message. One that was taken before, or ends no such message, changes nothing."""
    n, status, amount = command
    funds = shard.funds
    message = funds.outbox.get(n)
    if message is None or status not in (_REFUSALS if isinstance(message, Ask) else _ARRIVED):
        return shard.done()
    del funds.outbox[n]
    if not isinstance(message, Ask):
        return shard.done()
    purse = funds.credit(message.account, message.asset, amount, shard.time_ns)
    if amount:
        _tell_escrow(shard, purse, amount, n)
    if purse.asking == n:
        purse.asking = 0
        if not amount:
            purse.dry_until_ns = shard.time_ns + DRY_NS
    parked = shard.parked_by_message.pop(n, None)
    if parked is not None:
        # What has come in since it asked may do for it together with less than what it was denied: then it asks again.
        is_final = status != _DENIED or not purse.available
        parked.refusal = _REFUSALS[status] if is_final else 0
        _run(shard, parked)
    return shard.done()


def recall(shard: Shard, command: RecallFunds) -> Result:
    """Give back what is free of what the ledger asks for, as it is another shard's turn to have it.

    A part of what is free beyond that goes along, so that the next order there need not have it fetched, too.
    What parked commands have bound counts as free: they asked later, and ask again for what they lack then.
    """
    m, low, account, asset, amount = command
    funds = shard.funds
    funds.recalls.advance(low)
    if m in funds.recalls:
        return shard.done()
    funds.recalls.add(m)
    purse = funds.purse(account, asset)
    for parked in reversed(list(shard.parked.values())):
        missing = amount - purse.available
        if missing <= 0:
            break
        if parked.purse is purse:
            parked.bind(-min(parked.part, missing))
    asked = min(purse.available, amount)
    give_back(shard, purse, asked + (purse.available - asked) // AHEAD_SHARE, m)
    return shard.done()


def give_back(shard: Shard, purse: Purse, amount: int, recalled: int = 0) -> None:
    """Send free money to the ledger."""
    n = shard.funds.give_back(purse, amount, recalled)
    if amount:
        _tell_escrow(shard, purse, -amount, n)


def _tell_escrow(shard: Shard, purse: Purse, change: int, n: int) -> None:
    kind = int(EventKind.ESCROW)
    shard.events.append(EscrowChanged(kind, shard.sequence, purse.account, purse.asset, change, n))
